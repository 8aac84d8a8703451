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
from pathlib import Path
from statistics import fmean
from typing import Sequence

from ..results.logs import TESTED, TRAINED, print_runs
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
    return guarded(lambda: _print(args), with_traceback=args.traceback)


def _print(args: argparse.Namespace) -> None:
    """Print the runs of each folder of seeds, and their average.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: No complete run is found.
    """
    folder: Path = args.directory
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    groups = sorted(entry for entry in folder.iterdir() if entry.is_dir()) if args.multi_exp else [folder]
    means = [print_runs(group, args.keyword, TESTED if args.test_log else TRAINED) for group in groups]
    found = [mean for mean in means if mean is not None]
    if not found:
        hint = "" if args.test_log else "; for evaluations add --test-log"
        raise ValueError(f"no finished run with '* {args.keyword}: ...%' below {folder}{hint}")
    if args.multi_exp:
        print(f"Average of {len(found)} experiments: {fmean(found):.2f}%")
