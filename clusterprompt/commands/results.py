"""Make the papers' tables from all finished runs below a folder, beside the published values.

    clusterprompt results                                               # every table of the output folder, as text
    clusterprompt results output/ --protocol base2new --format latex    # one protocol, for a paper
    clusterprompt results output/ --out tables/                         # text, Markdown, LaTeX and CSV, as files
    clusterprompt results output/ --html report.html                    # one page with tables, charts and examples

Runs are grouped by what their result.json says: protocol, method, data set, shots, and the name of the trainer's yaml.
Runs in several folders of results, such as output/demo and output/compare, are several rows. The number after +- is the
standard deviation over seeds (divided by n), or with --interval ci95 half the 95 % interval of the mean. --html and
--page need matplotlib.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Sequence

from ..record.protocols import all_protocols
from ..record.statistics import INTERVALS
from ..results import formats, latex
from ..results.published import Published
from ..results.runs import Findings, collect_runs
from ..results.tables import Table, build
from .errors import guarded
from .options import parser_for

# Each format's writer, and the ending of its files.
FORMATS = {
    "text": (formats.text, "txt"),
    "markdown": (formats.markdown, "md"),
    "latex": (latex.latex, "tex"),
    "csv": (lambda tables, interval, notes: formats.as_csv(tables, interval), "csv"),
}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    protocols = list(all_protocols())
    parser = parser_for("results", __doc__)
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        metavar="FOLDER",
        help="folder of results, searched with all folders below it; default: environment's OUTPUT, else output",
    )
    parser.add_argument("--protocol", choices=protocols, nargs="+", default=protocols, help="default: all")
    parser.add_argument("--interval", choices=tuple(INTERVALS), default="std", help="the number after +-; default: std")
    parser.add_argument("--format", choices=tuple(FORMATS), default="text", help="printed format; default: text")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write the tables there in all formats")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report with tables, charts and examples")
    parser.add_argument(
        "--page",
        type=Path,
        metavar="FILE",
        help="write a Markdown page with tables; its charts go into a folder of the same name beside it",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(words)
    return guarded(lambda: _show(args, words), with_traceback=args.traceback)


def _show(args: argparse.Namespace, words: list[str]) -> None:
    """Print the tables, and write the files that were asked for.

    Raises:
        FileNotFoundError: There is no such folder, or no run in it.
        ValueError: No run, or no table, of the protocols asked for.
        ImportError: --html or --page without matplotlib.
    """
    folder: Path = args.folder or _default_folder()
    found = collect_runs(folder)
    runs = [run for run in found.runs if run.protocol in args.protocol]
    if not runs:
        there = ", ".join(sorted({run.protocol for run in found.runs}))
        raise ValueError(f"no run of {', '.join(args.protocol)} below {folder}; there are runs of: {there}")
    tables = build(runs, Published(), args.interval)
    if not tables:
        raise ValueError(
            f"the runs below {folder} make no table: models were trained on a source, but tested on no target"
        )
    _write(args, tables, found)
    if args.html:
        _drawing("report").write_report(args.html, folder, tables, runs, args.interval, found.notes)
        print(f"Written: {args.html}", file=sys.stderr)
    if args.page:
        command = ["clusterprompt", "results", *words]
        _drawing("page").write_page(args.page, command, tables, runs, args.interval, found.notes)
        print(f"Written: {args.page}, and its charts in {args.page.with_suffix('')}", file=sys.stderr)


def _write(args: argparse.Namespace, tables: list[Table], found: Findings) -> None:
    """Print the tables in one format, and write them in all formats."""
    made = {name: write(tables, args.interval, found.notes) for name, (write, _) in FORMATS.items()}
    print(made[args.format], end="")
    if args.format == "csv":
        for note in found.notes:
            print(f"note: {note}", file=sys.stderr)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        for name, content in made.items():
            file = args.out / f"tables.{FORMATS[name][1]}"
            file.write_text(content, encoding="utf-8")
            print(f"Written: {file}", file=sys.stderr)


def _default_folder() -> Path:
    """Return the folder of all results."""
    return Path(os.environ.get("OUTPUT") or "output")


def _drawing(module: str) -> ModuleType:
    """Import a module that draws; the tables do without matplotlib."""
    try:
        return importlib.import_module(f"clusterprompt.results.{module}")
    except ModuleNotFoundError as error:
        raise ImportError(f"charts need {error.name}, which is not installed: pip install {error.name}") from error
