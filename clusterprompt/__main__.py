# PYTHON_ARGCOMPLETE_OK
"""``clusterprompt <command>``: find a command, import it, run it."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from . import __version__
from .commands.errors import USAGE, guarded, reader_is_gone

# Title of a group -> name of a command -> its module, and a line about it.
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "train and test": {
        "train": ("commands.train", "train one model, or test one; takes CoOp's command line"),
        "base2new": ("commands.base2new", "train on the base classes, test on base and new ones"),
        "run": ("commands.run", "carry out a protocol: data sets x seeds, resumed where it stopped"),
        "compare": ("commands.compare", "run several methods on one data set and put them side by side"),
        "ablation": ("commands.ablation", "run a method with its parts switched off, one after the other"),
        "search": ("commands.search", "choose a method's settings by validation images"),
        "demo": ("commands.demo", "see all of it in minutes, on drawn data and a small CLIP, on a CPU"),
    },
    "look at results": {
        "results": ("commands.results", "make tables, charts and an HTML report of all runs"),
        "logs": ("commands.logs", "average the accuracies in log files, as CoOp's parse_test_res.py does"),
        "pictures": ("commands.pictures", "draw what a trained AttriPrompt or TAC does"),
    },
    "use a trained model": {
        "predict": ("commands.predict", "classify images"),
        "export": ("commands.export", "write a classifier for plain CLIP or ONNX"),
        "convert": ("commands.convert", "convert a checkpoint, official or our own, to its small form"),
    },
    "data": {
        "data": ("commands.data", "show, fetch and check the data sets"),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
EXAMPLES = (
    "clusterprompt demo",
    "clusterprompt predict --run output/base2new/train_base/shapes/shots_16/TAC/basetonovel/seed1 photos/",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return guarded(lambda: run(words))
    finally:  # also after argparse has printed a help text
        _flush()


def run(words: list[str]) -> int:
    """Run a command; the first word names it."""
    if "_ARGCOMPLETE" in os.environ:
        complete()
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if words[0] == "--version":
        print(f"clusterprompt {__version__}")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        print(f"error: {unknown(name)}", file=sys.stderr)
        return USAGE
    return command(name).main(rest)


def command(name: str) -> Any:
    """Import the module of a command."""
    return import_module(f".{COMMANDS[name][0]}", __package__)


def unknown(name: str) -> str:
    """Say that there is no such command, and which one was probably meant."""
    close = difflib.get_close_matches(name, COMMANDS, 1, 0.5)
    meant = f"; did you mean {close[0]!r}?" if close else ";"
    return f"there is no command {name!r}{meant} 'clusterprompt --help' lists them"


def help_text() -> str:
    """Return all commands, by group, with a line each."""
    lines = [
        "usage: clusterprompt COMMAND ...",
        "",
        "CLIP prompt learning by clustering, and the methods it is compared with.",
    ]
    for title, group in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<10}{line}" for name, (_, line) in group.items())]
    lines += ["", "examples:", *(f"  {example}" for example in EXAMPLES)]
    lines += ["", "'clusterprompt COMMAND --help' explains a command, 'clusterprompt --version' tells the version."]
    return "\n".join(lines)


def complete() -> None:
    """Answer the shell's question how a command line goes on, and end the process.

    Only the command that the line names is imported.
    """
    import argcomplete

    parser = argparse.ArgumentParser(prog="clusterprompt")
    parser.add_argument("--version", action="store_true")
    commands = parser.add_subparsers(dest="command")
    words = os.environ.get("COMP_LINE", "").split()
    for name, (_, line) in COMMANDS.items():
        own = [command(name).build_parser()] if name in words[1:2] else []
        commands.add_parser(name, help=line, parents=own, add_help=False)
    argcomplete.autocomplete(parser)


def _flush() -> None:
    """Flush stdout while a closed pipe can still be passed over in silence."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        reader_is_gone()


if __name__ == "__main__":
    sys.exit(main())
