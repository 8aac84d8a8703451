"""Predictions of a test: scores for ``result.json``, a row an image for ``predictions.csv``, ``cmat.pt``."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .files import atomic_path

if TYPE_CHECKING:  # records are read without torch, which takes seconds to import
    from torch import Tensor

FILE = "predictions.csv"
CONFUSION = "cmat.pt"
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the beginning of a formula
HEADER = ("path", "label", "prediction", "confidence")


class Predictions:
    """Collects a test batch by batch; every list ends up as long as the split."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self._labels: list[Tensor] = []
        self._predicted: list[Tensor] = []
        self._confidence: list[Tensor] = []

    def add_images(self, labels: Tensor, paths: Sequence[str]) -> None:
        """Add a batch's labels, (B,), and the files of its images, where the loader returns them."""
        self._labels.append(labels.cpu())
        self.paths.extend(paths)

    def add_logits(self, logits: Tensor) -> None:
        """Add a batch's logits, (B, C)."""
        self._predicted.append(logits.argmax(dim=1).cpu())
        self._confidence.append(logits.float().softmax(dim=1).amax(dim=1).cpu())

    def scores(self, classnames: Sequence[str]) -> dict:
        """Return macro F1, number of images, and recall by class, in percent; over the classes that have images."""
        import torch
        from sklearn.metrics import f1_score, recall_score

        truth, predicted = torch.cat(self._labels).numpy(), torch.cat(self._predicted).numpy()
        labels = range(len(classnames))
        recall = recall_score(truth, predicted, labels=labels, average=None, zero_division=0)
        return {
            "macro_f1": 100
            * f1_score(truth, predicted, labels=sorted(set(truth.tolist())), average="macro", zero_division=0),
            "n": len(truth),
            "per_class": {distinct(classnames, c): round(100 * recall[c], 4) for c in labels if c in truth},
        }

    def write_confusion_matrix(self, folder: str | Path, n_classes: int) -> None:
        """Write ``cmat.pt`` into a run's folder: shares of each class's images, (C, C), rows true, columns predicted.

        A class without images has a row of zeros. Real Dassl's evaluator leaves such rows out, so that rows and labels
        part ways; its file is replaced.
        """
        import torch

        truth, predicted = torch.cat(self._labels), torch.cat(self._predicted)
        counts = torch.bincount(n_classes * truth + predicted, minlength=n_classes**2).view(n_classes, n_classes)
        Path(folder).mkdir(parents=True, exist_ok=True)
        with atomic_path(Path(folder, CONFUSION)) as temporary:
            torch.save(counts / counts.sum(dim=1, keepdim=True).clamp(min=1).double(), temporary)

    def write(self, folder: str | Path, root: str) -> None:
        """Write ``predictions.csv`` into a run's folder, one row an image, whole or not at all.

        Args:
            folder: Output folder of the run.
            root: Folder of all data sets, to which the images' paths are made relative; others stay absolute.
        """
        if not self.paths:  # a host's loader that does not return them
            return
        import torch

        root = os.path.join(os.path.abspath(os.path.expanduser(os.path.expandvars(root))), "")
        rows = zip(
            self.paths,
            torch.cat(self._labels).tolist(),
            torch.cat(self._predicted).tolist(),
            torch.cat(self._confidence).tolist(),
        )
        Path(folder).mkdir(parents=True, exist_ok=True)
        with (
            atomic_path(Path(folder, FILE)) as temporary,
            open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,  # names are bytes
        ):
            writer = csv.writer(file, lineterminator="\n")
            quoting = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)  # the other leaves "\r" bare
            writer.writerow(HEADER)
            for image, label, predicted, confidence in rows:
                image = os.path.abspath(image)
                image = image[len(root) :] if image.startswith(root) else image
                row = (_as_cell(Path(image).as_posix()), label, predicted, f"{confidence:.6f}")
                (quoting if "\r" in image else writer).writerow(row)


def _as_cell(path: str) -> str:
    """Return a path as a cell that spreadsheets take for text: one that looks like a formula begins with "./"."""
    return f"./{path}" if path.startswith(FORMULA) else path


class Prediction(NamedTuple):
    """One row of ``predictions.csv``.

    Attributes:
        path: Image, relative to the data root, or absolute.
        label: True class, counted from 0 in the record's ``classnames``.
        prediction: Predicted class, counted the same way.
        confidence: Probability of the predicted class, 0 to 1.
    """

    path: str
    label: int
    prediction: int
    confidence: float


def read_predictions(folder: str | Path, n_classes: int) -> list[Prediction]:
    """Read a run's ``predictions.csv``; empty where there is none.

    Args:
        folder: Output folder of the run.
        n_classes: Number of classes in the run's record.

    Raises:
        ValueError: The file is damaged.
    """
    path = Path(folder, FILE)
    if not path.is_file():
        return []
    try:
        with open(path, newline="", encoding="utf-8", errors="backslashreplace") as lines:  # an image's name is bytes
            rows = [
                Prediction(row["path"], int(row["label"]), int(row["prediction"]), float(row["confidence"]))
                for row in csv.DictReader(lines)
            ]
    except (KeyError, TypeError, ValueError, OSError, csv.Error) as error:
        raise ValueError(f"damaged ({type(error).__name__}: {error}): {path}") from None
    if any(not 0 <= index < n_classes for row in rows for index in (row.label, row.prediction)):
        raise ValueError(f"damaged (a class beyond the {n_classes} of result.json): {path}")
    return rows


def distinct(classnames: Sequence[str], label: int) -> str:
    """Name a class; with its label where several share the name, as ImageNet's two missiles do."""
    name = classnames[label]
    return name if list(classnames).count(name) == 1 else f"{name} ({label})"
