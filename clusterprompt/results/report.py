"""One HTML file with everything about the runs below a folder: tables, charts, examples, settings.

It needs no network and no script.
"""

import base64
from pathlib import Path

import jinja2  # comes with torch

from .charts import changes, confusion, curves, labels_of, main_charts
from .examples import confusion as find_confusion
from .formats import align, grid, sections, sources
from .runs import TRANSFER, differing_settings, settings, span
from .tables import CONVENTIONS, INTERVALS, TITLES, grouped

TEMPLATE = Path(__file__).with_name("report.html")


def write_report(file: Path, folder: Path, tables: list, runs: list, interval: str, notes: list):
    """Write the report."""
    notes = list(notes)
    parts = [section(protocol, own, runs, notes) for protocol, own in sections(tables)]
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["uri"] = lambda chart: (
        "data:image/svg+xml;base64," + base64.b64encode(chart.svg.encode()).decode()
    )
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        folder=folder.name or str(folder),
        sections=parts,
        interval=INTERVALS[interval],
        notes=list(dict.fromkeys(notes)),
        runs=len({run.path for run in runs}),
        methods=settings_of(runs),
        machines=machines(runs),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8")


def section(protocol: str, tables: list, runs: list, notes: list) -> dict:
    """Put together what the page says of one protocol."""
    drawn = set()  # learning curves of a training run that two tables share are drawn once
    blocks = []
    for table in tables:
        trained = {run.path for run in table.runs if run.result.get("history")}
        of_training = [] if table.data == "average" or trained <= drawn else curves(table)
        drawn |= trained if of_training else set()
        few = [chart for chart in of_training if not chart.name.endswith("_terms")]
        headers, lines = grid(table, "\0{}".format)
        blocks.append(
            {
                "table": table,
                "headers": headers,
                "lines": lines,
                "sides": align(headers, table),
                "notes": [*table.notes, *sources(table)],
                "charts": [*main_charts(table), *few],
                "terms": of_training[len(few) :],
                "methods": [] if table.data == "average" or protocol in TRANSFER else details(table, runs, notes),
            }
        )
    return {"name": protocol, "title": TITLES[protocol], "convention": CONVENTIONS[protocol], "blocks": blocks}


def details(table, runs: list, notes: list) -> list:
    """Return, for each method of a table and each part of the classes, the changes of classes and the worst ones."""
    if table.protocol == "few_shot":
        most = max(run.method.shots for run in table.runs)
        own = [run for run in table.runs if run.method.shots == most]
    else:
        own = table.runs
    names = {
        run.method: labels_of(table).get(run.method) or labels_of(table).get(run.method._replace(shots=0))
        for run in own
    }
    found = []
    for (method, part), group in grouped(own, lambda run: (run.method, run.part)).items():
        if not names[method]:
            continue  # not in the table
        baseline = zero_shot(group[0], runs)
        changed = (
            changes(table, group, names[method], part, baseline)
            if baseline and method.trainer != "ZeroshotCLIP"
            else None
        )
        confused = find_confusion(group, notes)
        drawn = (
            confusion(table, names[method], part, confused.classnames, confused.counts, confused.worst)
            if confused
            else None
        )
        if changed or confused:
            charts = [chart for chart in (changed, drawn) if chart]
            found.append(
                {
                    "title": f"{names[method]}, {part} classes",
                    "charts": charts,
                    "worst": confused.classes if confused else [],
                    "seeds": span(run.seed for run in group),
                }
            )
    return found


def zero_shot(run, runs: list) -> dict:
    """Return zero-shot CLIP's accuracy by class on the data of a run; empty if it was not run there."""
    same = [
        other
        for other in runs
        if other.method.trainer == "ZeroshotCLIP"
        and (other.dataset, other.part, other.method.backbone) == (run.dataset, run.part, run.method.backbone)
        and other.result.get("classnames") == run.result.get("classnames")
    ]
    same.sort(
        key=lambda other: (other.method.folder != run.method.folder, other.seed != run.seed)
    )  # that of the same folder and seed, if there is one
    found = same[0].result.get("per_class") if same else None
    return (
        {name: value for name, value in found.items() if isinstance(value, (int, float))}
        if isinstance(found, dict)
        else {}
    )


def settings_of(runs: list) -> list:
    """Return the settings of each method, those in which its runs differ apart."""
    found = []
    for method, group in grouped(runs, lambda run: run.method).items():
        texts = [settings(run) for run in group]
        shared = set.intersection(*map(set, texts))
        same = {name: texts[0][name] for name in sorted(shared) if len({text[name] for text in texts}) == 1}
        title = " ".join(
            part
            for part in (
                method.trainer,
                method.backbone,
                method.cfg,
                f"{method.shots} shots" if method.shots else "",
                method.folder,
            )
            if part
        )
        by_data = [
            (f"{dataset} {part}", differing_settings(own))
            for (dataset, part), own in grouped(group, lambda run: (run.dataset, run.part)).items()
        ]
        found.append(
            {
                "title": title,
                "same": same,
                "by_data": sorted({name for name in shared if name not in same}),
                "mixed": [pair for pair in by_data if pair[1]],
                "parameters": max(run.result.get("learned_parameters") or 0 for run in group),
                "seconds": max(run.result.get("seconds_per_epoch") or 0 for run in group),
                "memory": max(run.result.get("peak_memory_mb") or 0 for run in group),
                "digests": sorted(
                    {
                        (run.dataset, run.seed, str(run.result["fewshot_digest"])[:12])
                        for run in group
                        if run.result.get("fewshot_digest") and run.method.shots and run.dataset == run.source
                    }
                ),
            }
        )
    return found


def machines(runs: list) -> list:
    """Return (what, values that occur) of versions, devices, precisions and commits."""
    found = {}
    for run in runs:
        versions = run.result.get("versions")
        facts = {
            **(versions if isinstance(versions, dict) else {}),
            **{name: run.result.get(name) for name in ("device", "precision", "commit")},
        }
        for name, value in facts.items():
            if value:
                found.setdefault(name, {})[str(value)] = None
    return [(name, list(values)) for name, values in found.items()]
