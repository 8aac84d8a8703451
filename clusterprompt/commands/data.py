"""Prepare the data sets below a data root.

    clusterprompt data status
    clusterprompt data prepare caltech101 oxford_pets --root /data
    clusterprompt data verify caltech101

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

CHECKOUT = Path(__file__).resolve().parents[2]
ACTIONS = (
    ("status", "*", "show what is there, what is missing, what to do (default: all data sets)"),
    ("prepare", "+", "fetch, check and unpack what is missing"),
    ("verify", "*", "open every image (default: all data sets that are there)"),
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
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return the exit code, 1 where a data set is not complete or an image is damaged."""
    args = build_parser().parse_args(argv)
    return guarded(lambda: _run(args), with_traceback=args.traceback, go_on="the same command goes on")


def _run(args: argparse.Namespace) -> int:
    """Carry out the action; return the exit code."""
    from .. import dassl_compat
    from ..data.inventory import chosen, look
    from ..data.prepare import prepare

    dassl_compat.prepare()
    data_sets = chosen(dict.fromkeys(args.names))
    root = Path(os.path.expandvars(args.root or _default_root())).expanduser().absolute()
    if args.action == "prepare":
        return 0 if prepare(data_sets, root) else 1
    found = [look(name, cls, root) for name, cls in data_sets.items()]
    if args.action == "status":
        return _show_status(found, root, named=bool(args.names))
    there = [inventory for inventory in found if args.names or inventory.images]
    if not there:
        print(f"{root} holds none of the data sets")
    return 1 if sum([_verify(inventory) for inventory in there]) else 0


def _default_root() -> str | Path:
    """Return the folder of the data sets where none is named: the environment's DATA, else the checkout's ``data``."""
    default = CHECKOUT / "data" if (CHECKOUT / "train.py").is_file() else Path("data")
    return os.environ.get("DATA") or default


def _show_status(found: list[Inventory], root: Path, named: bool) -> int:
    """Print what is there; return 1 if a data set that was named is not complete."""
    print(f"Data root: {root}{'' if root.is_dir() else ' (does not exist yet)'}\n")
    print(table(found))
    if any(inventory.next_step.startswith("prepare") for inventory in found):
        print(f"\nnext: clusterprompt data prepare ... --root {root}")
    return 1 if named and not all(inventory.complete for inventory in found) else 0


def table(found: Sequence[Inventory]) -> str:
    """Return what was found as a table."""
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
