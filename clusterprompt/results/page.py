"""A Markdown page of results for the repository: tables, and charts as files in a folder beside it."""

import shlex
from pathlib import Path

from .charts import curves, main_charts
from .formats import escape_markdown, markdown_table, sections, sources
from .runs import is_embedded, span
from .tables import CONVENTIONS, INTERVALS, TITLES

WARNING = (
    "> **A small synthetic world.** What is marked `tiny` or `Shapes` is of the embedded model (a CLIP of 1.7 M parameters, pretrained on drawings) "
    "or the embedded data (drawn figures). It shows that the methods do what they should, and **compares with no published number**."
)


def write_page(file: Path, command: list, tables: list, runs: list, interval: str, notes: list):
    """Write the page; its charts go into a folder of the same name."""
    charts = file.with_suffix("")
    charts.mkdir(parents=True, exist_ok=True)
    parts = [
        "# Results",
        f"Made by this command, from the runs that it finds; it writes this page and the charts anew:\n\n```bash\n{shlex.join(command)}\n```",
    ]
    parts += [WARNING] if any(is_embedded(run) for run in runs) else []
    facts = [f"{len({run.path for run in runs})} finished runs, seeds {span({run.seed for run in runs})}"]
    for name in ("device", "precision", "commit"):
        values = sorted(
            {str(run.result[name])[: 40 if name != "commit" else 10] for run in runs if run.result.get(name)}
        )
        facts += [f"{name} {', '.join(values)}"] if values else []
    parts.append(
        escape_markdown(
            "; ".join(facts) + f". Accuracy in percent; the best of a column is bold. {INTERVALS[interval]}", "|<>*`["
        )
    )
    for protocol, own in sections(tables):
        parts += [f"## {TITLES[protocol]}", CONVENTIONS[protocol]]
        for table in own:
            remarks = [*table.notes, *sources(table)]
            parts += [f"### {escape_markdown(table.title)}", markdown_table(table)]
            parts += ["\n".join(f"- {escape_markdown(note)}" for note in remarks)] if remarks else []
            drawn = [*main_charts(table), *([] if table.data == "average" else curves(table))]
            for chart in drawn:
                (charts / f"{chart.name}.svg").write_text(chart.svg, encoding="utf-8")
                parts.append(
                    f"![{escape_markdown(chart.title)}]({charts.name}/{chart.name}.svg)\n\n*{escape_markdown(chart.caption)}*"
                )
    parts += ["\n".join(["## Notes", "", *(f"- {escape_markdown(note)}" for note in notes)])] if notes else []
    file.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
