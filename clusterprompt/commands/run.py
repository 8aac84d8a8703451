"""Run whole protocols: train and test what is missing, side by side, and print the tables.

    clusterprompt run --protocol all --trainers CoOp TAC AttriPrompt --datasets shapes --seeds 1 2 3
    clusterprompt run --protocol few_shot --trainers all --datasets caltech101 dtd --shots 1 4 16
    clusterprompt run --protocol cross_dataset domain_generalisation --source imagenet --trainers TAC --plan

Settings are those of configs/trainers/<TRAINER>/<protocol's yaml>, then of the environment as for `clusterprompt
base2new` (DATA, BACKBONE, EPOCHS, SHOTS, OUTPUT), then KEY VALUE pairs. On drawn data sets (shapes...) there are fewer
epochs, and precision is fp32. Finished runs are kept and shown, unfinished ones resumed; if one fails the others go on,
it is listed at the end, and the exit code is 1. docs/protocols.md describes the protocols and their folders.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..record import folder as run_folder
from ..record.names import dataset_label
from ..record.protocols import DATASETS, FEW_SHOTS, SHOTS, all_protocols
from .options import add_output, add_overwrite, add_seeds, add_trainers, parser_for, run_with_pairs

if TYPE_CHECKING:
    from ..running.campaign import Campaign
    from ..running.plan import Job
    from ..running.schedule import Engine

LISTED = 20  # runs that --plan shows one by one
STATES = ("to do", "go on", "again", "other settings", "done")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = parser_for("run", __doc__)
    add = parser.add_argument
    protocols = [*all_protocols(), "all"]
    add(
        "--protocol",
        "--protocols",
        nargs="+",
        required=True,
        choices=protocols,
        metavar="NAME",
        help=f"one or more of {', '.join(protocols)}",
    )
    add_trainers(parser, required=True)
    add(
        "--datasets",
        nargs="+",
        metavar="NAME",
        default=["shapes"],
        help="names of yamls in configs/datasets, paths of your own, or all for the papers' eleven; default: shapes",
    )
    add(
        "--source",
        metavar="NAME",
        default="",
        help="what transfers train on; default: shapes for drawn data sets, else imagenet",
    )
    add(
        "--targets",
        nargs="*",
        metavar="NAME",
        help="what transfers test on; default: all that the protocol has for the source; nothing: only train",
    )
    add_seeds(parser)
    add(
        "--shots",
        nargs="+",
        type=int,
        metavar="N",
        help="training images a class; few_shot takes several; default: the environment's SHOTS, else 16, and for "
        "few_shot 1 2 4 8 16",
    )
    add("--jobs", type=int, default=0, metavar="N", help="runs at a time; default: one a core (at most 4) or GPU")
    add("--engine", choices=("local", "ray"), default="local", help="this machine, or a Ray cluster (docs/cluster.md)")
    add("--address", metavar="HOST:PORT", help="of the Ray cluster; default: one on this machine, else a new one")
    add("--gpus-per-run", type=float, metavar="N", help="0 to 1 of a GPU on Ray; default: 1 where there are GPUs")
    add_output(parser)
    add_overwrite(parser)
    add(
        "--plan",
        nargs="?",
        const="short",
        choices=("short", "full"),
        help=f"only show what would be run: run by run, or counted where there are more than {LISTED}; full lists all",
    )
    add("opts", nargs="*", metavar="KEY VALUE", help="config values for all runs, such as OPTIM.LR 0.001")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return the exit code."""
    return run_with_pairs(argv, build_parser(), run)


def run(args: argparse.Namespace, pairs: Sequence[str]) -> int:
    """Run what is missing and print the tables; return the exit code."""
    from ..running.sweep import carry_out
    from .tables import campaign_tables

    if args.opts:
        raise ValueError(f"unknown words: {' '.join(args.opts)}; KEY VALUE pairs have keys such as OPTIM.LR")
    campaign, engine = campaign_of(args, pairs), engine_of(args)
    # Two transfers share their training runs.
    jobs = list({job.log: job for plan in campaign.jobs().values() for job in plan}.values())
    print(f"{campaign.headline()} {len(jobs)} runs.", flush=True)
    if args.plan:
        show(jobs, args.overwrite, counted=args.plan == "short" and len(jobs) > LISTED)
        return 0
    failures = carry_out(jobs, overwrite=args.overwrite, engine=engine)
    print(campaign_tables(campaign), flush=True)
    return 1 if failures else 0


def campaign_of(args: argparse.Namespace, pairs: Sequence[str]) -> Campaign:
    """Return the parsed command line as a value.

    Raises:
        ValueError: A name or a number is not allowed.
    """
    from ..running.budget import chosen_trainers
    from ..running.campaign import Campaign
    from ..running.spec import Environment, output_root

    known = all_protocols()
    environment = Environment.read()
    few_shots = args.shots or ([environment.shots] if environment.shots else list(FEW_SHOTS))
    one = args.shots or [environment.shots or SHOTS]
    protocols = [each for name, each in known.items() if name in args.protocol or "all" in args.protocol]
    if min(few_shots) < 1 or args.jobs < 0:
        raise ValueError("--shots takes numbers from 1 on, and --jobs from 0 on")
    if len(one) > 1 and any(not each.shots_are_columns for each in protocols):
        others = ", ".join(each.name for each in protocols if not each.shots_are_columns)
        raise ValueError(f"--shots takes one number for {others}, not {' '.join(map(str, one))}")
    if len(pairs) % 2:
        raise ValueError(
            f"config keys and values must come in pairs, KEY VALUE KEY VALUE ...; given: {' '.join(pairs)}"
        )
    return Campaign(
        protocols=protocols,
        trainers=chosen_trainers(args.trainers),
        datasets=list(dict.fromkeys(n for given in args.datasets for n in (DATASETS if given == "all" else [given]))),
        source=args.source,
        targets=args.targets,
        seeds=list(dict.fromkeys(args.seeds)),
        shots=one[0],
        few_shots=list(dict.fromkeys(few_shots)),
        output=output_root(args.output),
        pairs=tuple(pairs),
    )


def engine_of(args: argparse.Namespace) -> Engine:
    """Return where the runs take place.

    Raises:
        ValueError: Options of Ray without it, or a share of a GPU that is not allowed.
        ImportError: Ray is not installed.
    """
    from ..running.engine import LocalEngine
    from ..running.ray_engine import RayEngine

    if args.engine == "ray":
        return RayEngine(args.address, args.gpus_per_run, args.jobs)
    if args.address is not None or args.gpus_per_run is not None:
        raise ValueError("--address and --gpus-per-run are for a Ray cluster; add --engine ray, or leave them out")
    return LocalEngine(args.jobs)


def show(jobs: Sequence[Job], overwrite: bool, counted: bool = False) -> None:
    """Print a plan, and what is there of it.

    Args:
        jobs: The plan.
        overwrite: Everything would be run again.
        counted: Print a row for each method and data set in place of one for each run.
    """
    from tabulate import tabulate

    from ..running.sweep import other_settings, unfinished

    changed = {} if overwrite else {job.log: differences for job, differences in other_settings(jobs)}
    todo = unfinished(jobs, overwrite)
    waiting = {job.log for job in todo}
    states = [_state(job, job.log in changed, job.log in waiting, overwrite) for job in jobs]
    if counted:
        print(tabulate(*_counts(jobs, states), disable_numparse=True))
        print("--plan full lists every run and its folder.")
    else:
        rows = [[state, job.name, job.folders[0]] for job, state in zip(jobs, states)]
        print(tabulate(rows, headers=["", "run", "folder"]))
    print(f"\n{len(todo)} of {len(jobs)} runs have to be run.")
    differing = [job for job in jobs if job.log in changed]
    for job in differing[: LISTED if counted else None]:
        print(f"{job.name} is there with other settings: {'; '.join(changed[job.log][:4])}")
    if counted and len(differing) > LISTED:
        print(f"... and {len(differing) - LISTED} more with other settings")


def _state(job: Job, changed: bool, waiting: bool, overwrite: bool) -> str:
    """Return in a word or two what is there of a job."""
    if changed:
        return "other settings"
    if not waiting:
        return "done"
    states = {run_folder.state(folder) for folder in job.folders}
    if overwrite or states == {"finished"}:
        return "again"
    return "go on" if states != {"fresh"} else "to do"


def _counts(jobs: Sequence[Job], states: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """Return rows and headers of a plan's table by method and training data; seeds and parts are counted."""
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    seeds: dict[tuple[str, str, str], set[int]] = {}
    for job, state in zip(jobs, states):
        spec = job.specs[0]
        source = spec.leg.model or spec.leg
        key = (source.place.split("/")[0], spec.trainer, dataset_label(source.dataset))
        counts.setdefault(key, Counter())[state] += 1
        seeds.setdefault(key, set()).add(spec.seed)
    shown = [state for state in STATES if state in states]
    rows = [
        [*key, str(len(seeds[key])), str(found.total()), *(str(found[state] or "") for state in shown)]
        for key, found in counts.items()
    ]
    return rows, ["", "trainer", "data", "seeds", "runs", *shown]


if __name__ == "__main__":
    sys.exit(main())
