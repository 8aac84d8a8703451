"""Charts of a method's classes: which gain and lose, and what the worst ones are taken for."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
from matplotlib.patches import Rectangle

from .drawing import Chart, axes, name_of, save, styled
from .run import Run
from .tables import Table

CLASSES = 24  # classes that a chart of changes shows, at most
COLUMNS = 9  # classes that a confusion matrix shows as columns, at most


def changes(table: Table, runs: Sequence[Run], name: str, part: str, zero_shot: Mapping[str, float]) -> Chart | None:
    """Draw how a method changes the accuracy of classes against zero-shot CLIP; None where no class is comparable.

    Args:
        table: The method's table.
        runs: The method's runs of one half of the classes (or all), one a seed.
        name: The method, as the table calls it.
        part: "base", "new" or "all".
        zero_shot: Accuracy by class.
    """
    by_class = defaultdict(list)
    for run in runs:
        for label, value in (run.record.per_class or {}).items():
            if label in zero_shot and isinstance(value, (int, float)):
                by_class[label].append(value - zero_shot[label])
    change = sorted(((fmean(values), label) for label, values in by_class.items()), reverse=True)
    if not change:
        return None
    some = len(change) > CLASSES
    shown = [*change[: CLASSES // 2], *change[-CLASSES // 2 :]] if some else change
    with styled():
        figure, axis = axes(0.8 + 0.23 * len(shown))
        for place, (value, _) in enumerate(shown):
            gains = value >= 0
            axis.barh(place, value, color="#2a7f3f" if gains else "#c0392b", height=0.72)
            axis.annotate(
                f"{value:+.1f}",
                (value, place),
                (4 if gains else -4, 0),
                textcoords="offset points",
                va="center",
                ha="left" if gains else "right",
                fontsize=8,
            )
        if some:
            axis.axhline(CLASSES // 2 - 0.5, color="#555555", linestyle=":", linewidth=1)
        axis.set_yticks(range(len(shown)), [_short(label, 30) for _, label in shown], fontsize=9)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.invert_yaxis()
        axis.margins(x=0.16, y=0.01)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel("change of accuracy, percentage points")
    values = [value for value, _ in change]
    up, down = sum(value > 0 for value in values), sum(value < 0 for value in values)
    caption = (
        f"Accuracy of each class, {name} minus zero-shot CLIP, mean over seeds: {up} of {len(change)} classes gain, "
        f"{down} lose; on average {fmean(values):+.1f}."
    )
    if some:
        caption += f" Shown are the {CLASSES // 2} that gain most and the {CLASSES // 2} that gain least or lose."
    return save(figure, name_of(table, name, part, "changes"), f"{name} against zero-shot, {part} classes", caption)


def confusion(
    table: Table, name: str, part: str, classnames: Sequence[str], counts: np.ndarray, worst: Sequence[int]
) -> Chart:
    """Draw what the images of the worst classes were taken for, as shares of each class.

    Args:
        table: The method's table.
        name: The method, as the table calls it.
        part: "base", "new" or "all".
        classnames: In order of the labels.
        counts: Number of images by true and predicted class, (C, C).
        worst: Labels of the classes to show.
    """
    worst = list(worst)
    often = [int(c) for row in worst for c in np.argsort(-counts[row], kind="stable")[:3] if counts[row, c]]
    columns = list(dict.fromkeys([*worst, *often]))[:COLUMNS]
    shares = 100 * counts[worst] / np.maximum(counts[worst].sum(axis=1, keepdims=True), 1)
    values = np.column_stack([shares[:, columns], 100 - shares[:, columns].sum(axis=1)])
    with styled():
        figure, axis = axes(2.0 + 0.42 * len(worst))
        axis.imshow(values, cmap="Blues", vmin=0, vmax=100, aspect="auto")
        for (r, c), value in np.ndenumerate(values):
            if round(value):
                colour = "white" if value > 55 else "black"
                axis.text(c, r, f"{value:.0f}", ha="center", va="center", fontsize=9, color=colour)
        for r in range(len(worst)):
            axis.add_patch(Rectangle((r - 0.5, r - 0.5), 1, 1, fill=False, edgecolor="#d62728", linewidth=1.5))
        labels = [*(_short(classnames[c], 24) for c in columns), "any other"]
        axis.set_xticks(range(len(labels)), labels, rotation=50, ha="right", rotation_mode="anchor", fontsize=8.5)
        axis.set_yticks(range(len(worst)), [_short(classnames[c], 24) for c in worst], fontsize=9)
        axis.grid(False)
        axis.set(ylabel="class", xlabel="taken for")
    caption = (
        "Of 100 test images of each of the worst classes (rows), how many were taken for what (columns), all seeds "
        "together. Red frames: right answers."
    )
    return save(figure, name_of(table, name, part, "confusion"), f"Worst classes of {name}, {part} classes", caption)


def _short(name: str, letters: int) -> str:
    """Shorten the name of a class for an axis."""
    return textwrap.shorten(name.replace("_", " "), letters, placeholder=" ...")
