"""Train or evaluate one method on one data set, with CoOp's command line.

Example:
    clusterprompt train --data data --seed 1 --trainer TAC --dataset-config-file configs/datasets/shapes.yaml \\
        --config-file configs/trainers/TAC/basetonovel.yaml --backbone tiny --output-dir output/trial \\
        DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES base
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import fields

from ..running.options import TrainOptions
from .errors import guarded
from .options import parser_for


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = parser_for("train", __doc__)
    add = parser.add_argument
    add(
        "--root",
        "--data",
        dest="root",
        default="",
        help="folder of the data sets (default: environment's DATA, or data)",
    )
    add("--output-dir", "--output", default="", metavar="FOLDER", help="folder of this run's results")
    add(
        "--resume", nargs="?", const=True, default=None, metavar="DIR", help="go on from the output folder, or from DIR"
    )
    add("--overwrite", "--fresh", action="store_true", help="replace the run in the output folder")
    add("--seed", type=int, default=None, help="0 or more fixes every random draw (default: not fixed)")
    add("--trainer", default="", help="name of the trainer")
    add("--config-file", default="", metavar="YAML", help="yaml of the trainer")
    add("--dataset-config-file", default="", metavar="YAML", help="yaml of the data set")
    add("--backbone", default="", help="tiny (embedded), an OpenAI name such as ViT-B/16, or a file")
    add("--eval-only", action="store_true", help="evaluate only")
    add("--model-dir", "--run", default="", metavar="FOLDER", help="folder of the run to evaluate")
    add("--load-epoch", type=int, metavar="N", help="epoch to load (default: the best or final model)")
    add("--no-train", action="store_true", help="build everything, train nothing")
    add("--transforms", nargs="+", metavar="NAME", help="data augmentation methods")
    add("--source-domains", nargs="+", metavar="NAME", help="source domains, for Dassl's own data sets")
    add("--target-domains", nargs="+", metavar="NAME", help="target domains, for Dassl's own data sets")
    add("--head", default="", help="name of the head, for Dassl's own trainers")
    add(
        "--options",
        action="store_true",
        help="list the settings that --trainer takes, with defaults and allowed values, and do nothing else",
    )
    add("opts", nargs="*", metavar="KEY VALUE", help="config values, such as OPTIM.MAX_EPOCH 5")
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line; options and KEY VALUE pairs may come in any order."""
    words = list(sys.argv[1:] if argv is None else argv)
    for i, word in enumerate(words[:-1]):
        following = words[i + 1]
        if word == "--resume" and re.fullmatch(r"[A-Z][A-Z0-9_]*(\.\w+)+", following) and not os.path.isdir(following):
            words[i] = "--resume="  # what follows is a config key, not a folder
        if re.fullmatch(r"-[0-9.]+[eE][+-]?[0-9]+", following):
            words[i + 1] = f" {following}"  # a number like -1e-5, which argparse would take for an option
    args = build_parser().parse_intermixed_args(words)
    args.opts = [word.lstrip() if word.startswith(" -") else word for word in args.opts]
    args.resume = True if args.resume == "" else args.resume
    return args


def train_options(args: argparse.Namespace) -> TrainOptions:
    """Return the parsed command line as a value."""
    return TrainOptions(**{each.name: getattr(args, each.name) for each in fields(TrainOptions)})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return the exit code."""
    args = parse(argv)

    def work() -> None:
        from ..running.train import settings_table, train

        if args.options:
            print(settings_table(args.trainer))
        else:
            train(train_options(args))

    return guarded(work, with_traceback=args.traceback, go_on="--resume goes on from the last checkpoint")


if __name__ == "__main__":
    sys.exit(main())
