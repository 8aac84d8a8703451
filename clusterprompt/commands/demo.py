"""Compare ZeroshotCLIP, CoOp, TAC and AttriPrompt on drawn data, with the embedded CLIP.

Runs 4 methods x 3 seeds from base to new classes, 16 shots, and prints one table. Finished runs are kept: a second call
shows the same numbers at once, an interrupted one goes on; --overwrite runs everything again. --epochs and --shots make
it shorter. `clusterprompt compare` does the same with all methods.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..record.protocols import SHOTS
from .errors import guarded
from .options import add_output, add_overwrite, add_seeds, parser_for, seeds_label

# Epochs, and seconds of a run on one core (a first guess, corrected as the demo goes on).
METHODS = {
    "ZeroshotCLIP": (None, 20),
    "CoOp": (50, 110),
    "TAC": (10, 110),
    "AttriPrompt": (8, 70),
}
FACTS = ("seconds", "peak MB")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = parser_for("demo", __doc__)
    add_seeds(parser)
    parser.add_argument("--epochs", type=int, metavar="N", help="epochs of every method; default: 50, 10 and 4")
    parser.add_argument("--shots", type=int, default=SHOTS, metavar="N", help="training images a class; default: 16")
    add_output(parser)
    add_overwrite(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return the exit code."""
    args = build_parser().parse_args(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: run(args), with_traceback=args.traceback, go_on="the same command goes on from here")


def run(args: argparse.Namespace) -> int:
    """Run what is missing, print the table, write it as CSV, JSON and Markdown; return the exit code."""
    from ..running.budget import Method
    from ..running.spec import output_root
    from .comparison import Comparison

    methods = [
        Method(name, args.epochs or epochs, guess, (f"TRAINER.{name.upper()}.PREC", "fp32"))
        for name, (epochs, guess) in METHODS.items()
    ]
    output = Path(output_root(args.output), "demo")
    comparison = Comparison("shapes", methods, args.seeds, args.shots, output, backbone="tiny")
    print(comparison.headline())
    if comparison.carry_out(args.overwrite):
        return 1
    table = comparison.table()
    print("\n" + comparison.text(table, FACTS))
    note = (
        f"Accuracy in %, mean +- standard deviation over {seeds_label(args.seeds)}; HM is the harmonic mean of the "
        "mean base and new accuracy.\nThe data are a small drawn world and the CLIP a small one trained on it: the "
        "numbers show that the methods work\nas they should, and compare with no published ones."
    )
    print("\n" + note)
    print(f"Written: {', '.join(map(str, comparison.write(table, FACTS, output / 'table', note)))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
