"""Compare ZeroshotCLIP, CoOp, TAC and AttriPrompt from base to new classes on the embedded data, with the embedded
CLIP.

Runs 4 methods x 3 seeds, 16 shots, each by scripts/base2new.py in a process of its own, and prints one table. What is
finished is kept: a second call shows the same numbers at once, an interrupted one goes on; --fresh runs all of it
again. scripts/compare.sh does the same with all methods.
"""

import argparse

from tabulate import tabulate

from ..running.budget import Method
from ..running.comparison import Comparison, shown

# Epochs, and seconds a run on one core (a first guess, corrected as the demo goes).
METHODS = (
    Method("ZeroshotCLIP", None, 20, ("TRAINER.ZEROSHOTCLIP.PREC", "fp32")),
    Method("CoOp", 50, 110, ("TRAINER.COOP.PREC", "fp32")),
    Method("TAC", 10, 110, ("TRAINER.TAC.PREC", "fp32")),
    Method("AttriPrompt", 4, 70, ("TRAINER.ATTRIPROMPT.PREC", "fp32")),
)
DEMO = Comparison(
    folder="demo",
    dataset="shapes",
    shots=16,
    seeds=(1, 2, 3),
    methods=METHODS,
    backbone="tiny",
    command="bash scripts/demo.sh",
)
COLUMNS = ("trainer", "base", "new", "HM", "seconds", "peak MB")


def main(argv=None):
    """Run what is missing, print the table, write it as CSV and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fresh", action="store_true", help="run everything again")
    args = parser.parse_args(argv)
    print(
        f"Base-to-new on the embedded data set '{DEMO.dataset}': {', '.join(method.trainer for method in METHODS)}; {DEMO.shots} shots, "
        f"seeds {', '.join(map(str, DEMO.seeds))}."
    )
    records = DEMO.run(args.fresh)
    rows = DEMO.summaries(records)
    print(
        "\n"
        + tabulate([[shown(row[column]) for column in COLUMNS] for row in rows], headers=COLUMNS, disable_numparse=True)
    )
    print(
        f"\nAccuracy in %, mean +- standard deviation over {len(DEMO.seeds)} seeds; HM is the harmonic mean of base and new. The data are a small "
        "drawn world \nand the CLIP a small one trained on it: the numbers show that the methods work as they should, and compare with no published "
        "ones."
    )
    print(f"Written: {', '.join(map(str, DEMO.write(rows, records, COLUMNS, DEMO.output / 'table')))}")


if __name__ == "__main__":
    main()
