"""Train a method on the base half of a data set's classes, test it on that half, then on the new half.

Settings come from configs/trainers/<TRAINER>/<CFG>.yaml and configs/datasets/<dataset>.yaml (or a yaml anywhere,
docs/own_images.md), then from the environment:

    DATA      folder of the data sets             default: data
    BACKBONE  tiny, an OpenAI name, or a file     default: the yaml's; tiny for drawn data sets
    EPOCHS    OPTIM.MAX_EPOCH                     default: the yaml's
    SHOTS     training images a class             default: 16
    CFG       name of the trainer's yaml          default: basetonovel
    OUTPUT    folder of all results               default: output

then from options of `clusterprompt train` (--root, --load-epoch, KEY VALUE ...). Output folders are those of the CoOp
family: OUTPUT/base2new/{train_base,test_new}/<dataset>/shots_<SHOTS>/<TRAINER>/<CFG>/seed<SEED>.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields

from . import train
from .errors import guarded
from .options import add_output, parser_for

# Options of `train` that the protocol sets.
OWN = ("output_dir", "config_file", "dataset_config_file", "eval_only", "model_dir", "no_train")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; what it does not know goes to the parser of ``train``."""
    parser = parser_for("base2new", __doc__)
    add = parser.add_argument
    add("--trainer", "--trainers", required=True, help="name of the method")
    add("--dataset", "--datasets", required=True, help="name of a yaml in configs/datasets, or the path of your own")
    add("--seed", "--seeds", required=True, type=int, help="seed of the run")
    add("--shots", type=int, metavar="N", help="training images a class (default: environment's SHOTS, or 16)")
    add_output(parser)
    add("--resume", action="store_true", help="go on with an interrupted training run")
    add("--overwrite", "--fresh", action="store_true", help="replace earlier runs")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return the exit code."""
    parser = build_parser()
    args, passed_on = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    more = train.parse(passed_on)
    given = [name for name in OWN if getattr(more, name) != train.build_parser().get_default(name)]
    if given:
        parser.error(f"--{given[0].replace('_', '-')} is set by the protocol; use `clusterprompt train` to choose it")
    return guarded(
        lambda: run(args, more), with_traceback=args.traceback, go_on="--resume goes on from the last checkpoint"
    )


def run(args: argparse.Namespace, more: argparse.Namespace) -> None:
    """Run both halves and print base, new and their harmonic mean."""
    from ..record.protocols import SHOTS, Request, all_protocols
    from ..record.statistics import harmonic_mean
    from ..running.budget import class_bound, known_trainers, own_name
    from ..running.chain import run_chain
    from ..running.options import TrainOptions
    from ..running.spec import Environment, RunSpec, check_dataset, is_drawn, output_root

    check_dataset(args.dataset)
    args.trainer = own_name(args.trainer)
    protocol, environment = all_protocols()["base2new"], Environment.read()
    defaults = TrainOptions()
    options = {each.name: getattr(more, each.name) for each in fields(TrainOptions)}
    passed = {name: value for name, value in options.items() if value != getattr(defaults, name) and name != "opts"}
    backbone = {"backbone": passed.pop("backbone")} if "backbone" in passed else {}
    specs = [
        RunSpec.of(
            leg,
            args.trainer,
            args.seed,
            environment.cfg or protocol.yaml,
            output=output_root(args.output),
            pairs=tuple(more.opts),
            options=passed,
            **backbone,
        )
        for leg in protocol.legs(Request(args.dataset, args.shots or environment.shots or SHOTS))
    ]
    bound = class_bound(known_trainers()[args.trainer]) if args.trainer in known_trainers() else ""
    if bound:
        print(f"{args.trainer} is tested on the base classes alone: {bound}.")
        specs = specs[:1]
    deep = specs[0].deep_prompts()
    if deep:
        changes = ", ".join(f"{key} {value}" for key, value in deep.items())
        print(f"The embedded CLIP has fewer layers than the yaml names; set to what suits any depth: {changes}")
    try:
        base, new = [*run_chain(specs, resume=args.resume, overwrite=args.overwrite), None][:2]
    except (FileNotFoundError, ConnectionError) as error:
        if is_drawn(args.dataset):
            raise
        way_out = f"clusterprompt base2new --trainer {args.trainer} --dataset shapes --seed 1"
        raise type(error)(
            f"{str(error).rstrip('.')}. No data or weights at hand? This needs neither: {way_out}"
        ) from error
    print_table(args, base, new, None if base is None or new is None else harmonic_mean(base, new))


def print_table(args: argparse.Namespace, base: float | None, new: float | None, hm: float | None) -> None:
    """Print the row of the run; "-" for what was not tested."""
    from tabulate import tabulate

    from ..record.names import dataset_label
    from ..running.budget import known_trainers

    marked = getattr(known_trainers().get(args.trainer), "transductive", False)
    row = [args.trainer + " (transductive)" * marked, dataset_label(args.dataset), args.seed, base, new, hm]
    headers = ["trainer", "dataset", "seed", "base", "new", "HM"]
    print(tabulate([row], headers=headers, floatfmt=".2f", missingval="-"))


if __name__ == "__main__":
    sys.exit(main())
