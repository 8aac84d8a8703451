"""One HTML file with everything about the runs below a folder: tables, charts, examples, settings.

It needs no network and no script.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import jinja2  # comes with torch

from ..record.files import write_text
from ..record.protocols import Protocol
from ..record.statistics import INTERVALS
from .charts import main_charts
from .class_charts import changes, confusion
from .curves import curves
from .drawing import Chart
from .examples import find_confusion
from .facts import parameters, peak_memory_mb
from .formats import align, grid, sections, sources
from .notes import differing_settings, grouped, settings
from .run import Run, format_ranges
from .tables import Table

TEMPLATE = Path(__file__).with_name("report.html")


def write_report(
    file: Path,
    folder: Path,
    tables: Sequence[Table],
    runs: Sequence[Run],
    interval: str,
    notes: Sequence[str],
    roots: Sequence[Path] = (),
) -> None:
    """Write the report.

    Args:
        file: HTML file to write.
        folder: Folder of the runs, for the heading.
        tables: Tables of the report.
        runs: All runs behind them.
        interval: A key of ``record.statistics.INTERVALS``.
        notes: Notes about the whole folder.
        roots: Folders whose images may be shown.
    """
    notes = list(notes)
    parts = [_section(protocol, own, runs, notes, roots) for protocol, own in sections(tables)]
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["uri"] = _data_uri
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        folder=folder.name or str(folder),
        sections=parts,
        interval=INTERVALS[interval],
        notes=list(dict.fromkeys(notes)),
        runs=len({run.path for run in runs}),
        methods=_settings_of(runs),
        machines=_machines(runs),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, page)


def _data_uri(chart: Chart) -> str:
    """Return a chart as a data URI."""
    return "data:image/svg+xml;base64," + base64.b64encode(chart.svg.encode()).decode()


def _section(
    protocol: Protocol, tables: Sequence[Table], runs: Sequence[Run], notes: list[str], roots: Sequence[Path]
) -> dict:
    """Return what the template shows of one protocol."""
    drawn: set[Path] = set()  # learning curves of a training run that two tables share are drawn once
    blocks = []
    for table in tables:
        trained = {run.path for run in table.runs if run.record.history}
        of_training = [] if table.is_average or trained <= drawn else curves(table)
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
                "methods": [] if table.is_average or protocol.transfers else _details(table, runs, notes, roots),
            }
        )
    return {"name": protocol.name, "title": protocol.title, "convention": protocol.convention, "blocks": blocks}


def _details(table: Table, runs: Sequence[Run], notes: list[str], roots: Sequence[Path]) -> list[dict]:
    """Return, for each method of a table and each part of the classes, the changes of classes and the worst ones."""
    own = table.runs
    if table.protocol.shots_are_columns:
        most = max(run.method.shots for run in own)
        own = [run for run in own if run.method.shots == most]
    names, found = table.names(), []
    for (method, part), group in grouped(own, lambda run: (run.method, run.part)).items():
        name = names.get(method) or names.get(method._replace(shots=0))
        if not name:
            continue  # not in the table
        charts: list[Chart | None] = []
        baseline = _zero_shot(group[0], runs)
        if baseline and not group[0].record.is_zero_shot:
            charts.append(changes(table, group, name, part, baseline))
        confused = find_confusion(group, notes, roots)
        if confused:
            charts.append(confusion(table, name, part, confused.classnames, confused.counts, confused.worst))
        shown = [chart for chart in charts if chart]
        if shown:
            found.append(
                {
                    "title": f"{name}, {part} classes",
                    "charts": shown,
                    "worst": confused.classes if confused else [],
                    "seeds": format_ranges(run.seed for run in group),
                }
            )
    return found


def _zero_shot(run: Run, runs: Sequence[Run]) -> dict[str, float]:
    """Return zero-shot CLIP's accuracy by class on the data of a run; empty if it was not run there."""
    same = [
        other
        for other in runs
        if other.record.is_zero_shot
        and (other.dataset, other.part, other.method.backbone) == (run.dataset, run.part, run.method.backbone)
        and other.record.classnames == run.record.classnames
    ]
    # That of the same folder and seed, if there is one.
    same.sort(key=lambda other: (other.method.folder != run.method.folder, other.seed != run.seed))
    per_class = same[0].record.per_class or {} if same else {}
    return {name: value for name, value in per_class.items() if isinstance(value, (int, float))}


def _settings_of(runs: Sequence[Run]) -> list[dict]:
    """Return the settings of each method, those in which its runs differ apart."""
    found = []
    for method, group in grouped(runs, lambda run: run.method).items():
        texts = [settings(run) for run in group]
        shared = set.intersection(*map(set, texts))
        same = {name: texts[0][name] for name in sorted(shared) if len({text[name] for text in texts}) == 1}
        shots = f"{method.shots} shots" if method.shots else ""
        title = (method.trainer, method.backbone, method.cfg, shots, method.folder)
        by_data = grouped(group, lambda run: (run.dataset, run.part)).items()
        mixed = [(f"{dataset} {part}", differing_settings(own)) for (dataset, part), own in by_data]
        found.append(
            {
                "title": " ".join(part for part in title if part),
                "same": same,
                "by_data": sorted(shared - same.keys()),
                "mixed": [pair for pair in mixed if pair[1]],
                "parameters": parameters(group) or 0,
                "seconds": max(run.record.seconds_per_epoch for run in group),
                "memory": peak_memory_mb(group) or 0,
                "digests": sorted(
                    {
                        (run.dataset, run.seed, run.record.fewshot_digest[:12])
                        for run in group
                        if run.record.fewshot_digest and run.method.shots and run.dataset == run.source
                    }
                ),
            }
        )
    return found


def _machines(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return (name, values that occur) of versions, devices, precisions and commits."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        record = run.record
        facts = {
            **record.versions,
            "device": record.device,
            "precision": record.precision,
            "commit": record.commit,
        }
        for name, value in facts.items():
            if value:
                found.setdefault(name, {})[str(value)] = None
    return [(name, list(values)) for name, values in found.items()]
