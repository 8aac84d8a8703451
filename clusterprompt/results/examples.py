"""The classes a method does worst on: what their images are taken for, and some of these images."""

import base64
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from .runs import read_predictions

WORST = 5
IMAGES = 4  # of each of the worst classes
PIXELS = 88


class Example(NamedTuple):
    """A wrongly classified image: a JPEG as a data URI (None if it cannot be shown, then ``why``), and what it was
    taken for.
    """

    uri: str
    why: str
    path: str
    taken_for: str


class WorstClass(NamedTuple):
    """A class, its accuracy in percent, and examples of its errors."""

    name: str
    accuracy: float
    images: int
    examples: list


class Confusion(NamedTuple):
    """Counts of what was taken for what, (C, C), over all seeds; the worst classes as indices and with examples."""

    classnames: list
    counts: np.ndarray
    worst: list
    classes: list


def confusion(runs: list, notes: list):
    """Count the predictions of runs of one method on the same classes; None where there are none, or no error.

    A damaged predictions.csv is left out and added to ``notes``.
    """
    counts, classnames, errors = None, None, {}
    for run in runs:
        try:
            rows = read_predictions(run)
        except ValueError as error:
            notes.append(str(error))
            continue
        if not rows or (classnames is not None and run.result["classnames"] != classnames):
            continue
        if counts is None:
            classnames = run.result["classnames"]
            counts = np.zeros((len(classnames), len(classnames)), int)
        root = (run.result.get("config") or {}).get("DATASET", {}).get("ROOT", "")
        for path, label, prediction in rows:
            counts[label, prediction] += 1
            if label != prediction:
                errors.setdefault(label, {}).setdefault(path, (root, prediction))  # of the first seed that got it wrong
    if counts is None or not errors:
        return None
    seen = counts.sum(axis=1)
    accuracy = np.where(seen > 0, 100 * counts.diagonal() / np.maximum(seen, 1), 100)
    worst = [int(c) for c in np.argsort(accuracy, kind="stable")[:WORST] if accuracy[c] < 100]
    classes = []
    for c in worst:
        chosen = list(errors[c].items())[:: max(1, len(errors[c]) // IMAGES)][:IMAGES]
        examples = [
            Example(*thumbnail(root, path), path, classnames[prediction]) for path, (root, prediction) in chosen
        ]
        classes.append(WorstClass(classnames[c], float(accuracy[c]), int(seen[c]), examples))
    return Confusion(classnames, counts, worst, classes)


def thumbnail(root: str, path: str) -> tuple:
    """Return a small JPEG of an image as a data URI, or "" and why there is none."""
    try:
        with Image.open(Path(root).expanduser() / path) as image:
            small = image.convert("RGB")
        small.thumbnail((PIXELS, PIXELS))
        out = io.BytesIO()
        small.save(out, "JPEG", quality=82)
    except FileNotFoundError:
        return "", "image not found"
    except (UnidentifiedImageError, OSError, ValueError):
        return "", "image cannot be read"
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode(), ""
