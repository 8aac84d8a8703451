"""Compare methods from base to new classes on one data set, in one table sorted by HM.

    clusterprompt compare shapes [--trainers CoOp TAC] [--seeds 1 2 3] [--overwrite] [KEY VALUE ...]

Every method runs with 16 shots and the settings of its yaml (configs/trainers/<TRAINER>/basetonovel.yaml): its authors'
batch size, learning rate and depth. On drawn data sets the epochs are fewer (clusterprompt/running/budget.py) and
precision is fp32, so that all methods and three seeds take less than 15 minutes on two cores. Finished runs are kept,
an interrupted comparison goes on, --overwrite runs everything again. Settings come from the environment as for
`clusterprompt base2new` (DATA, BACKBONE, EPOCHS, SHOTS, OUTPUT). The table is written as CSV, JSON and Markdown.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .options import (
    add_output,
    add_overwrite,
    add_seeds,
    add_trainers,
    parser_for,
    run_with_pairs,
    seeds_label,
)

FACTS = ("parameters", "s/epoch", "peak MB")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = parser_for("compare", __doc__)
    parser.add_argument("dataset", help="name of a yaml in configs/datasets, or the path of your own")
    add_trainers(parser)
    add_seeds(parser)
    add_output(parser)
    add_overwrite(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return the exit code."""
    return run_with_pairs(argv, build_parser(), run)


def run(args: argparse.Namespace, pairs: Sequence[str]) -> int:
    """Run what is missing, print and write the table; return the exit code."""
    from ..record.names import dataset_label
    from ..record.protocols import SHOTS
    from ..results.notes import transductive_notes
    from ..running.budget import chosen_trainers, left_out_note, method, that_serve_new_classes
    from ..running.spec import Environment, check_dataset, is_drawn, output_root
    from .comparison import Comparison

    check_dataset(args.dataset)
    chosen = chosen_trainers(args.trainers)
    methods = [method(cls, args.dataset) for cls in that_serve_new_classes(chosen, "base2new")]
    output = Path(output_root(args.output), "compare")
    shots = Environment.read().shots or SHOTS
    comparison = Comparison(args.dataset, methods, args.seeds, shots, output, pairs=tuple(pairs))
    print(comparison.headline() + left_out_note(chosen, "base2new"))
    if comparison.carry_out(args.overwrite):
        return 1
    table = comparison.table()
    bold = "\033[1m{}\033[0m" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else "{}"
    print("\n" + comparison.text(table, FACTS, bold.format))
    note = (
        f"Accuracy in %, mean +- standard deviation over {seeds_label(args.seeds)}; HM: harmonic mean of the mean base "
        "and new accuracy; parameters: learned ones; s/epoch: of training; peak MB: of the process."
    )
    if is_drawn(args.dataset):
        note += " A small drawn world and a small CLIP: the numbers compare with no published ones."
    note = " ".join([note, *transductive_notes(table.runs)])
    print("\n" + note)
    files = comparison.write(table, FACTS, output / f"table_{dataset_label(args.dataset)}", note)
    print(f"Written: {', '.join(map(str, files))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
