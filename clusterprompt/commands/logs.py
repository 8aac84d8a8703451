"""Print mean and spread over seeds of results in log files, of this project or of the CoOp family.

A folder of seeds holds seed1/log.txt, seed2/log.txt, ...:

    clusterprompt logs output/base2new/train_base/shapes/shots_16/TAC/basetonovel
    clusterprompt logs output/base2new/test_new/shapes/shots_16/TAC/basetonovel --test-log

With --multi-exp the folder holds several such folders, and their means are averaged too.

The number after +- is the standard deviation as the CoOp family prints it (divided by n); the 95 % interval is
Student's, of the mean.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..results.logs import print_folder
from .errors import guarded
from .options import parser_for


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = parser_for("logs", __doc__)
    parser.add_argument("directory", type=Path, metavar="FOLDER", help="folder of seeds")
    parser.add_argument("--test-log", action="store_true", help="logs of evaluations, without training")
    parser.add_argument("--multi-exp", action="store_true", help="the folder holds several folders of seeds")
    parser.add_argument("--keyword", default="accuracy", help="accuracy (default), error, macro_f1, ...")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = build_parser().parse_args(argv)
    return guarded(
        lambda: print_folder(args.directory, args.keyword, test_log=args.test_log, multi_exp=args.multi_exp),
        with_traceback=args.traceback,
    )


if __name__ == "__main__":
    sys.exit(main())
