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
import sys
from collections.abc import Sequence
from pathlib import Path

from ..record.protocols import all_protocols
from ..record.statistics import INTERVALS
from ..results.show import FORMATS, show
from ..running.spec import data_root, output_root
from .errors import guarded
from .options import parser_for


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
    parser.add_argument(
        "--protocol", "--protocols", choices=protocols, nargs="+", default=protocols, help="default: all"
    )
    parser.add_argument("--interval", choices=tuple(INTERVALS), default="std", help="the number after +-; default: std")
    parser.add_argument("--format", choices=tuple(FORMATS), default="text", help="printed format; default: text")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write the tables there in all formats")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report with tables, charts and examples")
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        metavar="FOLDER",
        help="folders of data sets whose images the report may show; default: environment's DATA, else data/",
    )
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
    return guarded(
        lambda: show(
            args.folder or Path(output_root()),
            args.protocol,
            interval=args.interval,
            format=args.format,
            out=args.out,
            html=args.html,
            page=args.page,
            command=("clusterprompt", "results", *words),
            roots=args.data or [Path(data_root())],
        ),
        with_traceback=args.traceback,
    )


if __name__ == "__main__":
    sys.exit(main())
