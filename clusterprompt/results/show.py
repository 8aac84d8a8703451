"""Everything that can be made of a folder of runs: printed tables, files of tables, a report, a page."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from . import formats, latex
from .published import Published
from .runs import Findings, collect_runs
from .tables import Table, build

# Each format's writer, and the ending of its files.
FORMATS = {
    "text": (formats.text, "txt"),
    "markdown": (formats.markdown, "md"),
    "latex": (latex.latex, "tex"),
    "csv": (lambda tables, interval, notes: formats.as_csv(tables, interval), "csv"),
}


def show(
    folder: Path,
    protocols: Sequence[str],
    *,
    interval: str,
    format: str,
    out: Path | None,
    html: Path | None,
    page: Path | None,
    command: Sequence[str],
    roots: Sequence[Path] = (),
) -> None:
    """Print the tables of a folder, and write the files that were asked for.

    Args:
        folder: Folder of results; every folder below it is searched.
        protocols: Names of the protocols to show.
        interval: A key of ``record.statistics.INTERVALS``.
        format: Printed format, a key of :data:`FORMATS`.
        out: Folder to write the tables to in all formats.
        html: File of the report.
        page: File of the Markdown page.
        command: Words of the command line, which the page quotes.
        roots: Folders whose images the report may show.

    Raises:
        FileNotFoundError: There is no such folder, or no run in it.
        ValueError: No run, or no table, of these protocols.
        ImportError: A report or page without matplotlib.
    """
    found = collect_runs(folder)
    runs = [run for run in found.runs if run.protocol in protocols]
    if not runs:
        there = ", ".join(sorted({run.protocol for run in found.runs}))
        raise ValueError(f"no run of {', '.join(protocols)} below {folder}; there are runs of: {there}")
    tables = build(runs, Published(), interval)
    if not tables:
        raise ValueError(
            f"the runs below {folder} make no table: models were trained on a source, but tested on no target"
        )
    _write_tables(tables, found, interval, format, out)
    if html:
        _drawing("report").write_report(html, folder, tables, runs, interval, found.notes, roots)
        print(f"Written: {html}", file=sys.stderr)
    if page:
        _drawing("page").write_page(page, command, tables, runs, interval, found.notes)
        print(f"Written: {page}, and its charts in {page.with_suffix('')}", file=sys.stderr)


def _write_tables(tables: list[Table], found: Findings, interval: str, format: str, out: Path | None) -> None:
    """Print the tables in one format, and write them in all formats."""
    made = {name: write(tables, interval, found.notes) for name, (write, _) in FORMATS.items()}
    print(made[format], end="")
    if format == "csv":
        for note in found.notes:
            print(f"note: {note}", file=sys.stderr)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in made.items():
            file = out / f"tables.{FORMATS[name][1]}"
            file.write_text(content, encoding="utf-8")
            print(f"Written: {file}", file=sys.stderr)


def _drawing(module: str) -> ModuleType:
    """Import a module that draws; the tables do without matplotlib."""
    try:
        return importlib.import_module(f".{module}", __package__)
    except ModuleNotFoundError as error:
        raise ImportError(f"charts need {error.name}, which is not installed: pip install {error.name}") from error
