"""Classify images with a trained run.

    clusterprompt predict --run FOLDER image.jpg photos/ ...
    find photos -name "*.jpg" | clusterprompt predict --run FOLDER --json -

A folder stands for all images in it and below, sorted; - reads paths from stdin, one a line. Results are printed in the
order of the images, as soon as a batch of them is done. An image that cannot be read is reported, and the others are
classified; the exit code is then 1. Control characters in names are printed as escapes such as \\n; --json has names as
they are.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .. import load_run
from ..record.names import printable
from .errors import guarded
from .options import add_run, parser_for

if TYPE_CHECKING:
    from ..use.classifier import Prediction


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = parser_for("predict", __doc__)
    add = parser.add_argument
    add_run(parser)
    add("images", nargs="+", metavar="IMAGE", help="image, folder, or - for paths on stdin; before --classes")
    add("--classes", nargs="+", metavar="NAME", help="tell these classes apart, in place of those of the training")
    add("--topk", type=int, default=5, metavar="N", help="classes printed for each image (default 5)")
    add("--json", action="store_true", help="print one JSON object a line")
    add("--batch-size", type=int, metavar="N", help="images that go through the model at once (default 32)")
    add("--workers", type=int, metavar="N", help="threads that decode images (default one a core, at most 8)")
    add("--device", default="", metavar="cpu|cuda", help="default: a GPU if there is one")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return the exit code, 1 if an image could not be read."""
    args = build_parser().parse_args(argv)
    return guarded(lambda: _predict(args), with_traceback=args.traceback)


def _predict(args: argparse.Namespace) -> int:
    """Classify and print; return the exit code."""
    classifier = load_run(
        args.run, args.classes, device=args.device, backbone=args.backbone, trust_record=args.trust_record
    )
    results = classifier.stream(sources(args.images), args.topk, args.batch_size, args.workers)
    return show(results, args.json)


def sources(words: Iterable[str]) -> Iterator[str]:
    """Yield the paths of the command line; ``-`` is replaced by those on stdin."""
    for word in words:
        if word == "-":
            # Not sys.stdin: its lock would stop the end of the process while a thread waits for the next line.
            with open(0, encoding=sys.getfilesystemencoding(), errors="surrogateescape", closefd=False) as lines:
                yield from (line.rstrip("\r\n") for line in lines if line.strip())
        else:
            yield word


def show(results: Iterable[Prediction], as_json: bool) -> int:
    """Print predictions as they come; return 1 if one was of an image that could not be read, else 0."""
    from tqdm import tqdm

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names may hold any bytes
    broken = 0
    for result in tqdm(results, unit=" images", leave=False, disable=True if sys.stdout.isatty() else None):
        if result.error:
            broken += 1
            tqdm.write(printable(f"error: {result.path}: {result.error}"), file=sys.stderr)
        if as_json:
            print(json.dumps(as_record(result)), flush=True)
        elif not result.error:
            print(
                printable(result.path),
                *(f"{100 * p:5.1f}% {printable(name)}" for name, p in zip(result.classes, result.confidences)),
                sep="\t",
                flush=True,
            )
    if broken:
        print(f"{broken} of the images could not be read", file=sys.stderr)
    return int(broken > 0)


def as_record(result: Prediction) -> dict[str, Any]:
    """Return a prediction as ``--json`` prints it."""
    if result.error:
        return {"path": result.path, "error": result.error}
    return {
        "path": result.path,
        "predictions": [
            {"class": name, "confidence": round(p, 6)} for name, p in zip(result.classes, result.confidences)
        ],
    }
