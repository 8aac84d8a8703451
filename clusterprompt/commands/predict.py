"""Classify images with a trained run.

    python -m clusterprompt.predict --run <output folder> image.jpg photos/ ...
    find photos -name "*.jpg" | python -m clusterprompt.predict --run <output folder> --json -

A folder stands for all images in it and below, sorted; - reads paths from stdin, one a line. Results are printed in the
order of the images, as soon as a batch of them is done. An image that cannot be read is reported, and the rest goes on;
the exit code is then 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Iterable, Iterator

from tqdm import tqdm

from .. import load_run

if TYPE_CHECKING:
    from ..use.classifier import Prediction


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m clusterprompt.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--run", required=True, metavar="FOLDER", help="output folder of a training run")
    add("images", nargs="+", metavar="IMAGE", help="image, folder, or - for paths on stdin; before --classes")
    add("--classes", nargs="+", metavar="NAME", help="tell these classes apart, in place of those of the training")
    add("--topk", type=int, default=5, metavar="N", help="classes printed for each image (default 5)")
    add("--json", action="store_true", help="print one JSON object a line")
    add("--batch-size", type=int, metavar="N", help="images that go through the model at once (default 32)")
    add("--workers", type=int, metavar="N", help="threads that decode images (default one a core, at most 8)")
    add("--device", default="", metavar="cpu|cuda", help="default: a GPU if there is one")
    add("--backbone", default="", metavar="NAME", help="name or file of the run's CLIP, where it lies elsewhere now")
    return parser


def main(argv=None) -> int:
    """Run one command line; see the module.

    Returns:
        The exit code: 0; 1 if an image could not be read; 2 for what the user can put right; 130 after an interrupt.
    """
    args = build_parser().parse_args(argv)
    try:
        classifier = load_run(args.run, args.classes, device=args.device, backbone=args.backbone)
        results = classifier.stream(sources(args.images), args.topk, args.batch_size, args.workers)
        return show(results, args.json)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        return 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
    except RuntimeError as error:
        if type(error).__name__ != "CheckpointError":  # the toolbox's, which real Dassl lacks
            raise
        print(f"error: {error}", file=sys.stderr)
    return 2


def sources(words: Iterable[str]) -> Iterator[str]:
    """Yield the paths of the command line, and those on stdin in the place of ``-``."""
    for word in words:
        if word == "-":
            # Not sys.stdin: its lock would stop the end of the process while a thread waits for the next line.
            with open(0, encoding=sys.getfilesystemencoding(), errors="surrogateescape", closefd=False) as lines:
                yield from (line.rstrip("\r\n") for line in lines if line.strip())
        else:
            yield word


def show(results: Iterable[Prediction], as_json: bool) -> int:
    """Print predictions as they come; return 1 if one was of an image that could not be read, else 0."""
    sys.stdout.reconfigure(errors="surrogateescape")  # file names may hold any bytes
    broken = 0
    for result in tqdm(results, unit=" images", leave=False, disable=True if sys.stdout.isatty() else None):
        if result.error:
            broken += 1
            tqdm.write(f"error: {result.path}: {result.error}", file=sys.stderr)
        if as_json:
            print(json.dumps(as_record(result)), flush=True)
        elif not result.error:
            print(
                result.path,
                *(f"{100 * p:5.1f}% {name}" for name, p in zip(result.classes, result.confidences)),
                sep="\t",
                flush=True,
            )
    if broken:
        print(f"{broken} of the images could not be read", file=sys.stderr)
    return int(broken > 0)


def as_record(result: Prediction) -> dict:
    """Return a prediction as it stands in a line of JSON."""
    if result.error:
        return {"path": result.path, "error": result.error}
    return {
        "path": result.path,
        "predictions": [
            {"class": name, "confidence": round(p, 6)} for name, p in zip(result.classes, result.confidences)
        ],
    }


if __name__ == "__main__":
    raise SystemExit(main())
