"""The classes a method does worst on: what their images are taken for, and some of these images."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..record.files import read_image
from .run import Run

WORST = 5
IMAGES = 4  # of each of the worst classes
PIXELS = 88
MOST_CLASSES = 20_000  # of a confusion matrix


class Example(NamedTuple):
    """A wrongly classified image.

    Attributes:
        uri: A small JPEG as a data URI; empty if the image cannot be shown.
        why: Why it cannot be shown.
        path: As in predictions.csv.
        taken_for: Name of the predicted class.
    """

    uri: str
    why: str
    path: str
    taken_for: str


class WorstClass(NamedTuple):
    """A class, its accuracy in percent, its number of answers, and examples of its errors."""

    name: str
    accuracy: float
    images: int
    examples: list[Example]


class Confusion(NamedTuple):
    """A confusion matrix over all seeds, with its worst classes.

    Attributes:
        classnames: In order of the labels.
        counts: Number of images by true and predicted class, (C, C).
        worst: Labels of the worst classes.
        classes: The worst classes with examples.
    """

    classnames: list[str]
    counts: np.ndarray
    worst: list[int]
    classes: list[WorstClass]


def find_confusion(runs: Sequence[Run], notes: list[str], roots: Sequence[Path] = ()) -> Confusion | None:
    """Count the predictions of runs of one method on the same classes; None where there are none, or no error.

    Args:
        runs: One a seed.
        notes: Gets a sentence for each damaged predictions.csv, which is left out.
        roots: Folders whose images may be shown. The files of a run name images, but not where they are looked for.
    """
    counts, classnames = None, []
    grey_range: Sequence[float] | None = ()
    errors: dict[int, dict[str, int]] = {}  # of the first seed that got an image wrong
    for run in runs:
        try:
            rows = run.record.predictions(run.path)
        except ValueError as error:
            notes.append(f"Left out, {error}")
            continue
        if not rows or (counts is not None and run.record.classnames != classnames):
            continue
        if len(run.record.classnames) > MOST_CLASSES:
            notes.append(f"Left out, more than {MOST_CLASSES} classes: {run.path}")
            continue
        if counts is None:
            classnames = run.record.classnames
            counts = np.zeros((len(classnames), len(classnames)), int)
        node = run.record.config.get("DATASET")
        grey_range = node.get("GREY_RANGE") if isinstance(node, dict) else ()
        for row in rows:
            counts[row.label, row.prediction] += 1
            if row.label != row.prediction:
                errors.setdefault(row.label, {}).setdefault(row.path, row.prediction)
    if counts is None or not errors:
        return None
    seen = counts.sum(axis=1)
    accuracy = np.where(seen > 0, 100 * counts.diagonal() / np.maximum(seen, 1), 100)
    worst = [int(c) for c in np.argsort(accuracy, kind="stable")[:WORST] if accuracy[c] < 100]
    classes = []
    for c in worst:
        chosen = list(errors[c].items())[:: max(1, len(errors[c]) // IMAGES)][:IMAGES]
        examples = [
            Example(*thumbnail(roots, path, grey_range), path, classnames[prediction]) for path, prediction in chosen
        ]
        classes.append(WorstClass(classnames[c], float(accuracy[c]), int(seen[c]), examples))
    return Confusion(classnames, counts, worst, classes)


def thumbnail(roots: Sequence[Path], path: str, grey_range: Sequence[float] | None = ()) -> tuple[str, str]:
    """Return a small JPEG of an image as a data URI; if there is none, "" and why.

    Args:
        roots: Folders to look in.
        path: As in predictions.csv; one that leads out of the folders is not followed.
        grey_range: ``DATASET.GREY_RANGE`` of the run.
    """
    if Path(path).is_absolute() or ".." in Path(path).parts:
        return "", "image is not below the data root (--data)"
    found = next((root / path for root in roots if (root / path).is_file()), None)
    if found is None:
        return "", "image not found (--data)"
    try:
        small = read_image(found, grey_range or ())
        small.thumbnail((PIXELS, PIXELS))
        out = io.BytesIO()
        small.save(out, "JPEG", quality=82)
    except Exception:  # Pillow raises a dozen types on odd files, and none of them may stop a report
        return "", "image cannot be read"
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode(), ""
