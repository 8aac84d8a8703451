"""Choose the images that a run's pictures show, and write the page of the pictures."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..record.files import ImageError, atomic_path, read_image, write_text
from ..record.result import RunRecord
from .classifier import Classifier, load_run, read_record, refuse_files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..trainers.base import PromptTrainer

SHOWN = 6  # test images in the pictures that show images
SAMPLE = 200  # test images on which the use of the pools and attention are measured
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{ font-family: sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em }} figure {{ margin: 2em 0 }}
img {{ max-width: 100% }} figcaption {{ color: #333; line-height: 1.4; margin-top: .5em }}</style></head>
<body><h1>{title}</h1><p>{run}</p>
{figures}
</body></html>
"""
FIGURE = '<figure><img src="{name}.png" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


def draw(
    run: str | Path,
    images: Sequence[str | Path] = (),
    backbone: str = "",
    *,
    data_root: str = "",
    trust_record: bool = False,
) -> list[tuple[str, Figure, str]]:
    """Draw all pictures of a run.

    Args:
        run: Output folder of a training run.
        images: Image files to show. Default: test images of the run's data set, which has to be there then.
        backbone, trust_record: See :func:`clusterprompt.load_run`; a trusted record also says where the data set is.
        data_root: Folder of the data sets.

    Returns:
        File name, figure and caption of each picture.

    Raises:
        FileNotFoundError: No run, no weights, no such image, or no data set.
        ValueError: There are no pictures of this method, or a file is not an image.
        ImportError: matplotlib is missing.
    """
    pictures = _import_pictures()
    check_drawable(Path(run), read_record(run))
    classifier = load_run(run, backbone=backbone, keep_descriptions=True, trust_record=trust_record)
    trainer = classifier.trainer
    if images:
        names = [Path(path).stem for path in images]
        shown = sample = read_images(classifier, images)
    else:
        items = items_to_test(Path(run), trainer, None if trust_record else data_root)
        chosen = one_of_each_class(items, SHOWN)
        names = [item.classname.replace("_", " ") for item in chosen]
        shown = read_images(classifier, [item.impath for item in chosen])
        spread = items[:: max(1, len(items) // SAMPLE)][:SAMPLE]
        sample = read_images(classifier, [item.impath for item in spread])
    return pictures.PICTURES[type(trainer).__name__](trainer, shown, names, sample)


def _import_pictures() -> Any:
    """Import the module that draws; nothing else needs matplotlib."""
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ImportError("pictures need matplotlib, which is not installed: pip install matplotlib") from error
    matplotlib.use("Agg")
    from . import pictures

    return pictures


def check_drawable(folder: Path, record: RunRecord) -> None:
    """Raise ValueError for a run of a method that has no pictures."""
    drawable = record.trainer in ("AttriPrompt", "TAC")
    if record.trainer == "AttriPrompt":
        drawable = bool(record.config.get("TRAINER", {}).get("ATTRIPROMPT", {}).get("RETRIEVAL"))
    if not drawable:
        raise ValueError(
            f"{folder} is a run of {record.trainer}; there are pictures of TAC, and of AttriPrompt with retrieval"
        )


def items_to_test(folder: Path, trainer: PromptTrainer, data_root: str | None) -> list[Any]:
    """Return the test images of the run's data set, each with ``impath``, ``label`` and ``classname``.

    Args:
        folder: Output folder of the run.
        trainer: Its trainer.
        data_root: Folder of the data sets; None for the one that the run's record names.
    """
    from dassl.data.datasets import build_dataset

    cfg = trainer.cfg.clone()
    cfg.defrost()
    if data_root is not None:
        refuse_files(folder, [f"table {cfg.DATASET.CSV}"] if cfg.DATASET.get("CSV") else [])
        cfg.DATASET.ROOT = data_root
    return build_dataset(cfg).test


def one_of_each_class(items: Sequence[Any], count: int) -> list[Any]:
    """Return the first image of each of ``count`` classes, spread over all of them."""
    first: dict[int, Any] = {}
    for item in items:
        first.setdefault(item.label, item)
    labels = sorted(first)
    return [first[label] for label in labels[:: max(1, len(labels) // count)][:count]]


def read_images(classifier: Classifier, paths: Sequence[str | Path]) -> Tensor:
    """Read image files as the model sees them, (B, 3, H, W).

    Raises:
        FileNotFoundError: No such file.
        ValueError: A file is not an image.
    """
    images = []
    for path in paths:
        try:
            images.append(classifier.transform(read_image(path, classifier.grey_range)))
        except FileNotFoundError:
            raise FileNotFoundError(f"no picture {path}") from None
        except ImageError as error:
            raise ValueError(f"not a picture that can be read: {error}") from None
    return torch.stack(images)


def write_page(folder: Path, run: Path, drawn: Sequence[tuple[str, Figure, str]]) -> Path:
    """Write the figures, and a page with their captions; return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = []
    for name, figure, caption in drawn:
        with atomic_path(folder / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=110, bbox_inches="tight", facecolor="white")
        figures.append(FIGURE.format(name=name, caption=html.escape(caption)))
    record = read_record(run)
    accuracy = "" if record.accuracy is None else f", accuracy {record.accuracy:.1f}%"
    title = html.escape(f"{record.trainer} on {record.dataset}, seed {record.seed}{accuracy}")
    page = folder / "index.html"
    write_text(page, PAGE.format(title=title, run=html.escape(str(run)), figures="\n".join(figures)))
    return page
