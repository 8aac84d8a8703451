"""Draw what a trained AttriPrompt or TAC does, as PNG files and one HTML page that shows them.

    clusterprompt pictures --run FOLDER [--images a.jpg b.jpg ...]

--images are any pictures. Without them, test images of the run's data set are shown, which has to be there then. The
page is written to FOLDER/pictures/index.html, or where --output says. Needs matplotlib.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .errors import guarded
from .options import add_run, parser_for


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = parser_for("pictures", __doc__)
    add = parser.add_argument
    add_run(parser, "output folder of a training run of AttriPrompt or TAC")
    add("--images", nargs="+", type=Path, default=[], metavar="IMAGE", help="pictures to show; default: test images")
    add("--output", "--out", type=Path, metavar="FOLDER", help="folder of the pictures; default: <run>/pictures")
    words = "folder of the data sets, for test images; default: environment's DATA, else data/"
    add("--data", "--root", default="", metavar="FOLDER", help=words)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return the exit code."""
    args = build_parser().parse_args(argv)
    return guarded(lambda: _draw(args), with_traceback=args.traceback)


def _draw(args: argparse.Namespace) -> None:
    """Draw, and print where the pictures are and what they show."""
    from ..running.spec import data_root
    from ..use.pictures_page import draw, write_page

    drawn = draw(args.run, args.images, args.backbone, data_root=data_root(args.data), trust_record=args.trust_record)
    folder = args.output or args.run / "pictures"
    page = write_page(folder, args.run, drawn)
    for name, _, caption in drawn:
        print(f"{folder / name}.png: {caption}")
    print(f"Page: {page}")
