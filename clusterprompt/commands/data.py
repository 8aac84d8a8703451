"""Prepare the data sets below a data root.

Examples:
    python -m clusterprompt.data status
    python -m clusterprompt.data prepare caltech101 oxford_pets --root /data
    python -m clusterprompt.data verify caltech101

Names are those of configs/datasets/*.yaml. Exit codes: 0 all is well; 1 a named data set is not complete (prepare:
could not be made so), or an image is damaged; 2 wrong usage.
"""

import argparse
import os
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m clusterprompt.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for command, names, words in (
        ("status", "*", "what is there, what is missing, what to do (default: all data sets)"),
        ("prepare", "+", "fetch, check and unpack what is missing"),
        ("verify", "*", "open every image (default: all data sets that are there)"),
    ):
        sub = commands.add_parser(command, help=words, description=words)
        sub.add_argument("names", nargs=names, metavar="name", help="of a yaml in configs/datasets, such as caltech101")
        sub.add_argument(
            "--root",
            "--data",
            dest="root",
            default="",
            help="folder of the data sets (default: environment's DATA, else data/)",
        )
    return parser


def main(argv=None) -> int:
    """Run one command line and return its exit code."""
    args = build_parser().parse_args(argv)
    try:
        return run(args)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130


def run(args) -> int:
    """Do what the parsed command line asks, and return the exit code."""
    # imported here: the processes of `verify` import this file too, and need none of it
    from .. import dassl_compat
    from ..data.inventory import chosen, look

    dassl_compat.prepare()
    data_sets = chosen(dict.fromkeys(args.names))
    root = data_root(args.root)
    if args.command == "prepare":
        from ..data.prepare import prepare

        return 0 if prepare(data_sets, root) else 1

    found = [look(name, cls, root) for name, cls in data_sets.items()]
    if args.command == "status":
        print(f"Data root: {root}{'' if root.is_dir() else ' (does not exist yet)'}\n")
        print(table(found))
        if any(inventory.next_step.startswith("prepare") for inventory in found):
            print(f"\nnext: python -m clusterprompt.data prepare ... --root {root}")
        return 1 if args.names and not all(inventory.complete for inventory in found) else 0

    from ..data.verify import damaged

    there = [inventory for inventory in found if args.names or inventory.images]
    if not there:
        print(f"{root} holds none of the data sets.")
    return 1 if sum([_verify(inventory, damaged) for inventory in there]) else 0


def table(found) -> str:
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


def data_root(given: str) -> Path:
    """Return the folder of the data sets, chosen as train.py does."""
    default = CHECKOUT / "data" if (CHECKOUT / "train.py").is_file() else Path("data")
    return Path(os.path.expandvars(given or os.environ.get("DATA") or default)).expanduser().absolute()


def _verify(inventory, damaged) -> int:
    """Print what is wrong with a data set and return how many things that is."""
    bad = damaged([inventory.image_folder / path for path in sorted(inventory.images)], inventory.name)
    verdict = f"{len(bad)} damaged" if bad else "none damaged"
    print(
        f"{inventory.name}: {len(inventory.images)} image files opened, {verdict}{'' if inventory.complete else '; not complete'}"
    )
    for path, reason in bad.items():
        print(f"  damaged: {path} ({reason})")
    for problem in inventory.problems:
        print(f"  {problem}")
    if bad:
        print(f"  Remove the damaged files; 'prepare {inventory.name}' fetches again what is missing.")
    return len(bad) + len(inventory.problems)


if __name__ == "__main__":
    sys.exit(main())
