"""Run whole protocols: what has to be trained and tested, side by side, going on where an earlier call stopped, with a
table at the end.

    python scripts/run.py --protocol all --trainers CoOp TAC AttriPrompt --datasets shapes --seeds 1 2 3
    python scripts/run.py --protocol base2new few_shot --trainers all --datasets caltech101 dtd --shots 1 4 16 [KEY
    VALUE ...] python scripts/run.py --protocol cross_dataset domain_generalisation --source imagenet --trainers TAC
    --plan

Settings are those of configs/trainers/<TRAINER>/{basetonovel,crossdatasets,fewshot}.yaml, then of the environment as
for base2new.py (DATA, BACKBONE, EPOCHS, SHOTS, OUTPUT), then KEY VALUE pairs. On the embedded data sets (shapes...)
there are fewer epochs, and precision is fp32. Finished runs are kept and shown, unfinished ones resumed; if one fails
the others go on, it is listed at the end, and the exit code is 1. docs/protocols.md says what the protocols are, and
where their results lie.
"""

import argparse
import os
import re
import shlex
import sys
from pathlib import Path

from tabulate import tabulate

from .. import dassl_compat, registration
from ..record import folder as run_folder
from ..record import protocols
from ..running.base2new import CHECKOUT, default_output
from ..running.budget import check_environment, method
from ..running.plan import Task, base2new, cross, few_shot, in_words, is_embedded
from ..running.protocol_tables import Results
from ..running.runner import carry_out, other_settings, unfinished


def main(argv=None) -> int:
    """Run what is missing and print the tables; return the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        args = parse_args(argv)
        plans = planned(args)
        runs = list(
            {run.log: run for plan in plans.values() for run in plan}.values()
        )  # two protocols may share training runs
        print(headline(args, runs), flush=True)
        if args.plan:
            show(runs, args.fresh)
            return 0
        failures = carry_out(runs, args.fresh, f"python scripts/run.py {shlex.join(argv)}", args.jobs)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print(tables(args), flush=True)
    return 1 if failures else 0


def parse_args(argv: list):
    """Read the command line; ``trainers`` become classes, ``pairs`` are the KEY VALUE pairs."""
    dassl_compat.prepare()
    trainers = {cls.__name__: cls for cls in registration.own_trainers()}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--protocol", nargs="+", required=True, choices=[*protocols.PROTOCOLS, "all"])
    add("--trainers", nargs="+", required=True, metavar="TRAINER", help=f"all, or some of {', '.join(trainers)}")
    add(
        "--datasets",
        nargs="+",
        metavar="NAME",
        default=["shapes"],
        help="of base2new and few_shot: names of yamls in configs/datasets, paths of your own, or all for the papers' eleven; default: shapes",
    )
    add(
        "--source",
        metavar="NAME",
        help="what cross_dataset and domain_generalisation train on; default: shapes if all of --datasets are embedded "
        "ones, else imagenet",
    )
    add(
        "--targets",
        nargs="*",
        metavar="NAME",
        help="what they test on; default: all that the protocol has for the source; nothing: only train",
    )
    add("--seeds", nargs="+", type=int, default=[1, 2, 3])
    add(
        "--shots",
        nargs="+",
        type=int,
        help="of few_shot; default: the environment's SHOTS, else 1 2 4 8 16. The other protocols take SHOTS, else 16",
    )
    add(
        "--jobs",
        type=int,
        default=0,
        help="runs at a time; default: one a core (at most 4) on the embedded data sets, else one a GPU",
    )
    add("--fresh", action="store_true", help="run everything again")
    add("--plan", action="store_true", help="only show what would be run")
    words, pairs = split_pairs(argv)
    args = parser.parse_args(words)
    args.pairs = pairs
    args.protocol = [name for name in protocols.PROTOCOLS if name in args.protocol or "all" in args.protocol]
    args.trainers = list(dict.fromkeys(trainers if "all" in args.trainers else args.trainers))
    args.datasets = list(
        dict.fromkeys(name for given in args.datasets for name in (protocols.DATASETS if given == "all" else [given]))
    )
    args.seeds = list(dict.fromkeys(args.seeds))
    args.source = args.source or ("shapes" if all(map(is_embedded, args.datasets)) else "imagenet")
    args.output = str(os.environ.get("OUTPUT") or default_output())

    unknown = [name for name in args.trainers if name not in trainers]
    if unknown:
        parser.error(f"no trainer {', '.join(map(repr, unknown))}; there are {', '.join(trainers)}")
    for name in args.trainers:
        for yaml in sorted({protocols.YAMLS[protocol] for protocol in args.protocol}):
            if not (CHECKOUT / "configs" / "trainers" / name / f"{yaml}.yaml").is_file():
                parser.error(
                    f"{name} has no configs/trainers/{name}/{yaml}.yaml; copy another protocol's and change what has to be"
                )
    args.trainers = [trainers[name] for name in args.trainers]
    for name in [*args.datasets, args.source, *(args.targets or [])]:
        check_dataset(parser, name)
    if args.shots and "few_shot" not in args.protocol:
        parser.error(
            "--shots is for few_shot; the other protocols take the environment's: SHOTS=4 python scripts/run.py ..."
        )
    check_environment(parser)
    args.few_shots = list(
        dict.fromkeys(args.shots or ([int(os.environ["SHOTS"])] if os.environ.get("SHOTS") else protocols.FEW_SHOTS))
    )
    args.shots = int(os.environ.get("SHOTS") or protocols.SHOTS)
    if min(args.few_shots) < 1 or args.jobs < 0:
        parser.error("--shots takes numbers from 1 on, and --jobs from 0 on")
    if args.targets:
        args.protocol = [name for name in args.protocol if name not in protocols.TARGETS or targets_of(name, args)]
        if not args.protocol:
            parser.error(
                f"--targets {' '.join(args.targets)}: no protocol that was asked for tests on these; see docs/protocols.md, or say --protocol all"
            )
    return args


def split_pairs(argv: list) -> tuple:
    """Return a command line without its KEY VALUE pairs, and those; keys are the words in capitals with a dot or
    underscore in them.
    """
    words, pairs = [], []
    rest = iter(argv)
    for word in rest:
        if re.fullmatch(r"[A-Z][A-Z0-9]*([._][A-Z0-9]+)+", word):
            pairs += [word, *[value for value in [next(rest, None)] if value is not None]]
        else:
            words.append(word)
    return words, pairs


def check_dataset(parser, name: str):
    """End with a message if there is no such data set."""
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            parser.error(f"no such file: {name}")
    elif not (CHECKOUT / "configs" / "datasets" / f"{name}.yaml").is_file():
        there = sorted(path.stem for path in (CHECKOUT / "configs" / "datasets").glob("*.yaml"))
        parser.error(f"no data set {name!r}; there are {', '.join(there)}")


def planned(args) -> dict:
    """Return the runs of each protocol."""
    task = Task(args.output, args.shots, tuple(args.seeds), tuple(args.pairs))
    plans = {}
    for protocol in args.protocol:
        if protocol in protocols.TARGETS:
            methods = [method(cls, args.source) for cls in args.trainers]
            plans[protocol] = cross(task, methods, args.source, targets_of(protocol, args))
        else:
            plans[protocol] = []
            for dataset in args.datasets:
                methods = [method(cls, dataset) for cls in args.trainers]
                plans[protocol] += (
                    base2new(task, methods, dataset)
                    if protocol == "base2new"
                    else few_shot(task, methods, dataset, args.few_shots)
                )
    return plans


def targets_of(protocol: str, args) -> tuple:
    """Return what a protocol tests the source's model on; a target that no protocol lists counts as cross_dataset's."""
    usual = protocols.targets(protocol, args.source)
    if args.targets is None:
        return usual
    elsewhere = protocols.targets("domain_generalisation", args.source) if protocol == "cross_dataset" else ()
    return tuple(
        name for name in args.targets if name in usual or (protocol == "cross_dataset" and name not in elsewhere)
    )


def headline(args, runs) -> str:
    """Say what is going to be run."""
    over = [", ".join(args.datasets)] if {"base2new", "few_shot"} & set(args.protocol) else []
    over += [f"source {args.source}"] * bool(set(protocols.TARGETS) & set(args.protocol))
    return (
        f"{', '.join(args.protocol)} on {'; '.join(over)}: {', '.join(cls.__name__ for cls in args.trainers)}; "
        f"seeds {', '.join(map(str, args.seeds))}. {len(runs)} runs."
    )


def tables(args) -> str:
    """Return a table for each protocol, what its numbers are, and what makes the full ones."""
    results = Results(args.output, [cls.__name__ for cls in args.trainers], args.seeds)
    parts = []
    for protocol in args.protocol:
        title = protocol.replace("_", " ")
        if protocol == "base2new":
            headers, rows = results.base2new(args.datasets, args.shots)
            title = f"{title}, {in_words(args.shots)}"
        elif protocol == "few_shot":
            headers, rows = results.few_shot(args.datasets, args.few_shots)
        else:
            headers, rows = results.cross(args.source, targets_of(protocol, args), args.shots)
            title = f"{title}, trained on {args.source} with {in_words(args.shots)}"
        if protocol in ("base2new", "few_shot") and len(args.datasets) == 1:
            title += f", {args.datasets[0]}"
        parts.append(f"\n{title}\n\n{tabulate(rows, headers=headers, disable_numparse=True)}\n")
    note = f"Accuracy in %, mean +- standard deviation over {len(args.seeds)} seed{'s' * (len(args.seeds) > 1)}"
    note += "; HM: harmonic mean of base and new" * ("base2new" in args.protocol)
    note += "; average: of the targets" * bool(set(protocols.TARGETS) & set(args.protocol))
    if all(map(is_embedded, [*args.datasets, args.source])):
        note += ". A small drawn world and a small CLIP: the numbers compare with no published ones"
    return "".join(parts) + f"\n{note}.\nFull tables and a report: python scripts/results.py {args.output}"


def show(runs, fresh: bool):
    """List all runs and what is there of them."""
    changed = {} if fresh else {run.log: differences for run, differences in other_settings(runs)}
    todo = unfinished(runs, fresh)
    rows = []
    for run in runs:
        states = {run_folder.state(folder) for folder in run.folders}
        state = (
            "other settings"
            if run.log in changed
            else "done"
            if run not in todo
            else "again"
            if fresh or states == {"finished"}
            else "go on"
            if states != {"fresh"}
            else "to do"
        )
        rows.append([state, run.name, run.folders[0]])
    print(tabulate(rows, headers=["", "run", "folder"]))
    print(f"\n{len(todo)} of {len(runs)} runs have to be run.")
    for run in runs:
        if run.log in changed:
            print(f"{run.name} is there with other settings: {'; '.join(changed[run.log][:4])}")


if __name__ == "__main__":
    sys.exit(main())
