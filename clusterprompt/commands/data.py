"""Prepare the data sets below a data root.

    clusterprompt data status
    clusterprompt data prepare caltech101 oxford_pets --root /data
    clusterprompt data verify caltech101
    clusterprompt data descriptions all
    clusterprompt data descriptions --write classes.txt --with http://localhost:8000/v1 --model NAME

Names are those of configs/datasets/*.yaml. Exit codes: 0 all is well; 1 a named data set is not complete (prepare:
could not be completed), or an image is damaged; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import guarded
from .options import parser_for

if TYPE_CHECKING:
    from ..data.inventory import Inventory

ACTIONS = (
    ("status", "*", "show what is there, what is missing, what to do (default: all data sets)"),
    ("prepare", "+", "fetch, check and unpack what is missing"),
    ("verify", "*", "open every image (default: all data sets that are there)"),
    ("descriptions", "*", "fetch the official sentences about classes (all: of every data set; default: show them)"),
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = parser_for("data", __doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for action, count, words in ACTIONS:
        sub = actions.add_parser(action, help=words, description=words, allow_abbrev=False)
        sub.add_argument("names", nargs=count, metavar="NAME", help="of a yaml in configs/datasets, such as caltech101")
        sub.add_argument(
            "--root",
            "--data",
            dest="root",
            default="",
            metavar="FOLDER",
            help="folder of the data sets (default: environment's DATA, else data/)",
        )
        sub.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        if action == "descriptions":
            _add_writing(sub)
    return parser


def _add_writing(parser: argparse.ArgumentParser) -> None:
    """Add the options that let a language model write descriptions of own classes."""
    group = parser.add_argument_group("descriptions of own classes, written by a language model")
    group.add_argument("--write", metavar="CLASSES", help="text file of the classes, one a line")
    group.add_argument(
        "--with",
        dest="place",
        metavar="MODEL",
        help="address of an OpenAI-compatible endpoint, such as http://localhost:8000/v1, or a command that reads the "
        "prompt from stdin and writes the answer to stdout; there is no default",
    )
    group.add_argument("--model", metavar="NAME", help="name of the model; it is kept in the file")
    group.add_argument("--sentences", type=int, default=10, metavar="N", help="sentences a class (default: 10)")
    group.add_argument("--prompt", metavar="TEXT", help="prompt with {class} and {n} (default: docs/descriptions.md)")
    group.add_argument("--key-from", metavar="VARIABLE", help="environment variable that holds the endpoint's key")
    group.add_argument("--to", metavar="FILE", help="file to write (default: descriptions.json beside CLASSES)")
    group.add_argument("--overwrite", action="store_true", help="replace that file")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return the exit code, 1 where a data set is not complete or an image is damaged."""
    args = build_parser().parse_args(argv)
    return guarded(lambda: _run(args), with_traceback=args.traceback, go_on="the same command goes on")


def _run(args: argparse.Namespace) -> int:
    """Carry out the action; return the exit code."""
    from .. import dassl_compat
    from ..data.inventory import chosen, look
    from ..data.prepare import prepare
    from ..running.spec import data_root

    dassl_compat.prepare()
    if args.action == "descriptions":
        return _descriptions(args, Path(data_root(args.root)).absolute())
    data_sets = chosen(dict.fromkeys(args.names))
    root = Path(data_root(args.root)).absolute()
    if args.action == "prepare":
        return 0 if prepare(data_sets, root) else 1
    found = [look(name, cls, root) for name, cls in data_sets.items()]
    if args.action == "status":
        return _show_status(found, root, named=bool(args.names))
    there = [inventory for inventory in found if args.names or inventory.images]
    if not there:
        print(f"{root} holds none of the data sets")
    return 1 if sum([_verify(inventory) for inventory in there]) else 0


def _descriptions(args: argparse.Namespace, root: Path) -> int:
    """Show, fetch or write class descriptions; return the exit code."""
    from ..data.descriptions import described, fetch_descriptions, look

    if args.write:
        return _write_descriptions(args)
    if args.place:
        raise ValueError("--with needs --write: a text file of the classes to describe")
    data_sets = described(args.names)
    if args.names:
        return 0 if fetch_descriptions(data_sets, root) else 1
    from tabulate import tabulate

    states = {name: look(cls, root) for name, cls in data_sets.items()}
    rows = [(name, state.texts or "stops", state.file or "", state.problem) for name, state in states.items()]
    headers = ("data set", "class texts of a run", "file", "why")
    print(f"Data root: {root}\n\n{tabulate(rows, headers, maxcolwidths=[None, None, None, 60])}")
    print(f"\nnext: clusterprompt data descriptions all --root {root}")
    return 0


def _write_descriptions(args: argparse.Namespace) -> int:
    """Let a language model describe own classes."""
    from ..data.language_model import LanguageModel
    from ..data.writing import PROMPT, write_descriptions

    if args.names:
        raise ValueError(f"--write describes the classes of a file; leave out {' '.join(args.names)}")
    if not (args.place and args.model):
        raise ValueError("--write needs --with ADDRESS-OR-COMMAND and --model NAME; no model is asked by itself")
    if not 1 <= args.sentences <= 1000:
        raise ValueError(f"--sentences takes a number from 1 to 1000, not {args.sentences}")
    key = os.environ.get(args.key_from or "", "")
    if args.key_from and not key:
        raise ValueError(f"--key-from {args.key_from}: there is no such variable in the environment, or it is empty")
    classes = Path(args.write).expanduser()
    target = Path(args.to).expanduser() if args.to else classes.with_name("descriptions.json")
    if target.exists() and not args.overwrite:
        raise ValueError(f"{target} exists already; name another file (--to), or replace it (--overwrite)")
    model = LanguageModel(args.place, args.model, key)
    count = write_descriptions(classes, target, model, prompt=args.prompt or PROMPT, sentences=args.sentences)
    print(f"{target}: {args.sentences} sentences for each of {count} classes. Use it: DATASET.DESCRIPTIONS {target}")
    return 0


def _show_status(found: list[Inventory], root: Path, named: bool) -> int:
    """Print the table of the data sets; return 1 if one that was named is not complete."""
    print(f"Data root: {root}{'' if root.is_dir() else ' (does not exist yet)'}\n")
    print(table(found))
    if any(inventory.next_step.startswith("prepare") for inventory in found):
        print(f"\nnext: clusterprompt data prepare ... --root {root}")
    return 1 if named and not all(inventory.complete for inventory in found) else 0


def table(found: Sequence[Inventory]) -> str:
    """Return the inventories as a table."""
    from tabulate import tabulate

    rows = [
        (
            inventory.name,
            inventory.state,
            "" if inventory.classes is None else inventory.classes,
            " / ".join(str(inventory.counts[part]) for part in ("train", "val", "test") if part in inventory.counts),
            len(inventory.images) or "",
            "\n".join(inventory.problems),
            inventory.next_step,
        )
        for inventory in found
    ]
    headers = ("data set", "state", "classes", "train / val / test", "image files", "what differs", "next")
    return tabulate(
        rows,
        headers,
        maxcolwidths=[None, None, None, None, None, 48, None],
        colalign=("left",) * 2 + ("right",) * 3 + ("left",) * 2,
    )


def _verify(inventory: Inventory) -> int:
    """Open all images of a data set, print its faults, and return their number."""
    from ..record.image_check import find_damaged

    bad = find_damaged([inventory.image_folder / path for path in sorted(inventory.images)], inventory.name)
    verdict = f"{len(bad)} damaged" if bad else "none damaged"
    incomplete = "" if inventory.complete else "; not complete"
    print(f"{inventory.name}: {len(inventory.images)} image files opened, {verdict}{incomplete}")
    for path, reason in bad.items():
        print(f"  damaged: {path} ({reason})")
    for problem in inventory.problems:
        print(f"  {problem}")
    if bad:
        print(f"  Remove the damaged files; 'prepare {inventory.name}' fetches again what is missing.")
    return len(bad) + len(inventory.problems)
