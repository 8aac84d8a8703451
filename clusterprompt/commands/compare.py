"""Compare all methods from base to new classes on one data set, in one table sorted by HM.

    bash scripts/compare.sh shapes [--methods CoOp TAC] [--seeds 1 2 3] [--fresh]

Every method that is registered runs, with 16 shots, by scripts/base2new.py and the settings of its yaml
(configs/trainers/<METHOD>/basetonovel.yaml): its authors' batch size, learning rate and depth. On the embedded data
sets the epochs are fewer (methods.py) and precision is fp32, so that all methods and three seeds take less than 15
minutes on two cores. What is finished is kept; an interrupted comparison goes on; --fresh runs all of it again.
Settings come from the environment as for base2new.py (DATA, BACKBONE, EPOCHS, SHOTS, OUTPUT). The table is written as
CSV, JSON and Markdown.
"""

import argparse
import os
import sys

from tabulate import tabulate

from .. import dassl_compat, registration
from ..running.base2new import CHECKOUT, EMBEDDED
from ..running.budget import check_environment, method
from ..running.comparison import Comparison, shown

COLUMNS = ("trainer", "base", "new", "HM", "parameters", "s/epoch", "peak MB")
BEST = ("base", "new", "HM")


def main(argv=None) -> list:
    """Run what is missing, print and write the table; return its rows."""
    args = parse_args(argv)
    comparison = Comparison(
        folder="compare",
        dataset=args.dataset,
        shots=int(os.environ.get("SHOTS") or 16),
        seeds=tuple(args.seeds),
        methods=tuple(method(cls, args.dataset) for cls in args.methods),
        backbone="",
        command=f"bash scripts/compare.sh {args.dataset}",
    )
    print(
        f"Base-to-new on {args.dataset}: {', '.join(m.trainer for m in comparison.methods)}; {comparison.shots} shots, "
        f"seeds {', '.join(map(str, comparison.seeds))}."
    )
    records = comparison.run(args.fresh)
    rows = sorted(comparison.summaries(records), key=lambda row: -row["HM"][0])
    on_terminal = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print("\n" + table(rows, "\033[1m{}\033[0m" if on_terminal else "{}", "simple"))
    note = (
        f"Accuracy in %, mean +- standard deviation over {len(args.seeds)} seed{'s' * (len(args.seeds) > 1)}; HM: harmonic mean of base and new; "
        "parameters: learned ones; s/epoch: of training, one thread; peak MB: of the process."
    )
    if args.dataset.startswith(EMBEDDED):
        note += " A small drawn world and a small CLIP: the numbers compare with no published ones."
    print("\n" + note)
    stem = comparison.output / f"table_{args.dataset}"
    files = comparison.write(rows, records, COLUMNS, stem)
    markdown = stem.with_suffix(".md")
    markdown.write_text(table(rows, "**{}**", "github") + f"\n\n{note}\n", encoding="utf-8")
    print(f"Written: {', '.join(map(str, [*files, markdown]))}")
    return rows


def parse_args(argv):
    """Read the command line; ``methods`` become the trainers' classes."""
    dassl_compat.prepare()
    trainers = {cls.__name__: cls for cls in registration.own_trainers()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="name of a yaml in configs/datasets")
    parser.add_argument(
        "--methods", nargs="+", metavar="METHOD", default=list(trainers), help=f"default: all of {', '.join(trainers)}"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--fresh", action="store_true", help="run everything again")
    args = parser.parse_args(argv)
    check_environment(parser)
    if not (CHECKOUT / "configs" / "datasets" / f"{args.dataset}.yaml").is_file():
        there = sorted(path.stem for path in (CHECKOUT / "configs" / "datasets").glob("*.yaml"))
        parser.error(f"no data set {args.dataset!r}; there are {', '.join(there)}")
    unknown = [name for name in args.methods if name not in trainers]
    if unknown:
        parser.error(f"no method {', '.join(map(repr, unknown))}; there are {', '.join(trainers)}")
    args.methods = [trainers[name] for name in args.methods]
    return args


def table(rows, bold: str, style: str) -> str:
    """Write the rows; the best of each accuracy goes through the format ``bold``."""
    best = {column: max(row[column][0] for row in rows) for column in BEST}
    cells = [
        [
            bold.format(shown(row[column])) if column in BEST and row[column][0] == best[column] else shown(row[column])
            for column in COLUMNS
        ]
        for row in rows
    ]
    return tabulate(cells, headers=COLUMNS, tablefmt=style, disable_numparse=True)


if __name__ == "__main__":
    main()
