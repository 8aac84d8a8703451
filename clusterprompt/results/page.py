"""A Markdown page of results for the repository: tables, and charts as files in a folder beside it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from ..record.files import write_text
from ..record.statistics import INTERVALS
from .charts import main_charts
from .curves import curves
from .drawing import Chart
from .formats import escape_markdown, markdown_notes, markdown_table, sections, sources
from .run import Run, format_ranges
from .tables import Table

WARNING = (
    "> **A small synthetic world.** What is marked `tiny` or `Shapes` is of the embedded model (a CLIP of 1.7 M "
    "parameters, pretrained on drawings) or the embedded data (drawn figures). It shows that the methods do what they "
    "should, and **compares with no published number**."
)


def write_page(
    file: Path, command: Sequence[str], tables: Sequence[Table], runs: Sequence[Run], interval: str, notes: list[str]
) -> None:
    """Write the page; its charts go into a folder of the same name.

    Args:
        file: Markdown file to write.
        command: Words of the command line that makes the page.
        tables: Tables of the page.
        runs: All runs behind them.
        interval: A key of ``record.statistics.INTERVALS``.
        notes: Notes about the whole folder.
    """
    charts = file.with_suffix("")
    charts.mkdir(parents=True, exist_ok=True)
    parts = [
        "# Results",
        "Made by this command, from the runs that it finds; it writes this page and the charts again:\n\n"
        f"```bash\n{shlex.join(command)}\n```",
    ]
    parts += [WARNING] if any(run.record.is_embedded for run in runs) else []
    parts.append(escape_markdown(f"{_facts(runs)} {INTERVALS[interval]}", "|<>*`["))
    for protocol, own in sections(tables):
        parts += [f"## {protocol.title}", protocol.convention]
        for table in own:
            parts += [f"### {escape_markdown(table.title)}", markdown_table(table)]
            parts += markdown_notes([*table.notes, *sources(table)])
            for chart in [*main_charts(table), *([] if table.is_average else curves(table))]:
                write_text(charts / f"{chart.name}.svg", chart.svg)
                parts.append(_picture(chart, charts.name))
    parts += ["## Notes", *markdown_notes(notes)] if notes else []
    write_text(file, "\n\n".join(parts) + "\n")


def _facts(runs: Sequence[Run]) -> str:
    """Describe the runs: how many, and made with what."""
    facts = [f"{len({run.path for run in runs})} finished runs, seeds {format_ranges({run.seed for run in runs})}"]
    made_with = {
        "device": {run.record.device[:40] for run in runs},
        "precision": {run.record.precision[:40] for run in runs},
        "commit": {run.record.commit[:10] for run in runs},
    }
    for name, values in made_with.items():
        known = sorted(value for value in values if value)
        facts += [f"{name} {', '.join(known)}"] if known else []
    return "; ".join(facts) + ". Accuracy in percent; the best of a column is bold."


def _picture(chart: Chart, folder: str) -> str:
    """Return a chart as Markdown, with its caption below it."""
    return f"![{escape_markdown(chart.title)}]({folder}/{chart.name}.svg)\n\n*{escape_markdown(chart.caption)}*"
