"""Options that several commands have, spelled and explained once."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .errors import guarded

SEEDS = (1, 2, 3)


def parser_for(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return the parser of ``clusterprompt <name>``.

    Args:
        name: The command.
        description: Text above the options; a module's docstring.
    """
    parser = argparse.ArgumentParser(
        prog=f"clusterprompt {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    return parser


def add_trainers(
    parser: argparse.ArgumentParser, *, default: Sequence[str] | None = None, required: bool = False
) -> None:
    """Add ``--trainers``, also known as ``--methods``."""
    words = "methods by name, or all" + (f"; default: {' '.join(default)}" if default else "")
    parser.add_argument(
        "--trainers", "--methods", nargs="+", metavar="TRAINER", default=default, required=required, help=words
    )


def add_seeds(parser: argparse.ArgumentParser) -> None:
    """Add ``--seeds``."""
    words = f"seeds of the runs; default: {' '.join(map(str, SEEDS))}"
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", default=list(SEEDS), help=words)


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add ``--overwrite``, also known as ``--fresh``."""
    parser.add_argument("--overwrite", "--fresh", action="store_true", help="run everything again, replacing results")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add ``--output``."""
    words = "folder of all results; default: environment's OUTPUT, else output"
    parser.add_argument("--output", type=Path, metavar="FOLDER", help=words)


def add_run(parser: argparse.ArgumentParser, what: str = "output folder of a training run") -> None:
    """Add ``--run``, and the user's word on the files that its record names: ``--backbone``, ``--trust-record``."""
    parser.add_argument("--run", required=True, type=Path, metavar="FOLDER", help=what)
    words = "name or file of the run's CLIP; default: that of the record, if it is one of OpenAI's or the embedded one"
    parser.add_argument("--backbone", default="", metavar="NAME", help=words)
    words = "open the files that the run's record names (CLIP, class descriptions); only for runs that are your own"
    parser.add_argument("--trust-record", action="store_true", help=words)


def seeds_label(seeds: Sequence[int]) -> str:
    """Write a number of seeds."""
    return f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"


def run_with_pairs(
    argv: Sequence[str] | None,
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace, Sequence[str]], int],
) -> int:
    """Parse a command line that may hold KEY VALUE pairs, and do its work.

    Args:
        argv: Words of the command line; None for this process's.
        parser: Parser of the words that are not pairs.
        run: Takes what was parsed, and the pairs; returns the exit code.

    Returns:
        The exit code.
    """
    words, pairs = split_pairs(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(words)
    return guarded(lambda: run(args, pairs), with_traceback=args.traceback, go_on="the same command goes on from here")


def split_pairs(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split KEY VALUE pairs off a command line.

    Keys are the words in capitals with a dot or an underscore in them, such as ``OPTIM.MAX_EPOCH``.

    Returns:
        The other words, and the pairs.
    """
    others: list[str] = []
    pairs: list[str] = []
    rest = iter(words)
    for word in rest:
        if re.fullmatch(r"[A-Z][A-Z0-9]*([._][A-Z0-9]+)+", word):
            pairs += [word, *(value for value in [next(rest, None)] if value is not None)]
        else:
            others.append(word)
    return others, pairs
