"""Export a trained classifier, for use without this program.

    clusterprompt export --run FOLDER classifier.safetensors
    clusterprompt export --run FOLDER tower.onnx

.safetensors holds the class texts, for use with plain CLIP; it serves methods that leave CLIP's image tower as it is.
.onnx holds the image tower with its prompts, and the class texts: images in, image features and logits out. The graph
is compared with torch where onnxruntime is installed. All of it is in fp32.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .errors import guarded
from .options import add_run, parser_for


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = parser_for("export", __doc__)
    add = parser.add_argument
    add_run(parser)
    add("out", type=Path, metavar="OUT", help="file to write: *.safetensors or *.onnx")
    add("--classes", nargs="+", metavar="NAME", help="classes, in place of those of the training; after the file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return the exit code."""
    args = build_parser().parse_args(argv)
    return guarded(lambda: _export(args), with_traceback=args.traceback)


def _export(args: argparse.Namespace) -> None:
    """Export, and print a sentence about the file."""
    from ..use.export import export

    print(export(args.run, args.out, args.classes, args.backbone, trust_record=args.trust_record))
