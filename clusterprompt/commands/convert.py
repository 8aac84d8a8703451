"""Convert a checkpoint, official or our own, to its small form: the learner alone.

    clusterprompt convert SOURCE OUT [--trainer NAME] [--safetensors]

SOURCE is a checkpoint file, or the output folder of a run: an official one (CoOp's, MaPLe's, PromptSRC's, ... layout,
often with all of CLIP in it), or one of this project. Neither CLIP nor a data set is needed. OUT becomes a folder that
``--model-dir`` reads, or, if it ends in ``.safetensors``, one file with metadata: method, epoch and, where they are
known, classes, backbone and config.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .errors import guarded
from .options import parser_for


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = parser_for("convert", __doc__)
    add = parser.add_argument
    add("source", metavar="SOURCE", help="checkpoint file, or output folder of a run")
    add("out", metavar="OUT", help="folder to write, or a name that ends in .safetensors")
    add("--trainer", default="", metavar="NAME", help="method, where the checkpoint does not tell")
    add("--epoch", type=int, metavar="N", help="epoch to take out of a folder; default: the best model, else the last")
    add("--safetensors", action="store_true", help="write OUT.safetensors")
    add("--classes", nargs="+", default=[], metavar="NAME", help="class names for the metadata, in order of the labels")
    add("--backbone", default="", metavar="NAME", help="backbone for the metadata, such as ViT-B/16")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return the exit code."""
    args = build_parser().parse_args(argv)
    return guarded(lambda: _convert(args), with_traceback=args.traceback)


def _convert(args: argparse.Namespace) -> None:
    """Convert, and print what was written."""
    from ..use.convert import convert

    path, trainer, weights = convert(
        args.source,
        args.out,
        trainer=args.trainer,
        epoch=args.epoch,
        safetensors=args.safetensors,
        classes=args.classes,
        backbone=args.backbone,
    )
    numbers = sum(value.numel() for value in weights.values())
    print(f"{path}: {trainer}, {len(weights)} tensors, {numbers:,} numbers, {path.stat().st_size / 1e6:.2f} MB")
