"""Learning curves of the training runs behind a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from .drawing import COLOURS, MARKERS, Chart, axes, legend, legend_height, looks_of, name_of, save, styled
from .run import Method
from .tables import Table

# Curves of every method: field of the history, title of the chart, label of its axis, start of its caption.
FIELDS = (
    (
        "accuracy",
        "Accuracy in training",
        "accuracy of training batches, %",
        "Share of training images classified rightly",
    ),
    ("loss", "Loss in training", "loss", "Loss, all terms together, which differ between methods,"),
)
SHADE = "mean over seeds; the shade reaches from the lowest to the highest seed"
History = Sequence[dict]


class Curve(NamedTuple):
    """A number by epoch: mean, lowest and highest over seeds."""

    epochs: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]


def curves(table: Table) -> list[Chart]:
    """Draw accuracy and loss of training by epoch, and the terms of the loss of each method that has several."""
    found = histories(table)
    names = _names(table, found)
    charts = []
    for field, title, label, what in FIELDS:
        drawn = {method: curve_of(by_seed.values(), field) for method, by_seed in found.items()}
        drawn = {method: curve for method, curve in drawn.items() if curve.epochs}
        if drawn:
            caption = f"{what} by epoch (with the augmentations of training), {SHADE}."
            charts.append(_curves_chart(table, field, title, label, caption, drawn, names))
    for method, by_seed in found.items():
        entries = [entry for history in by_seed.values() for entry in history]
        terms = sorted({term for entry in entries if isinstance(entry.get("losses"), dict) for term in entry["losses"]})
        if len(terms) > 1:
            charts.append(_terms_chart(table, names[method], list(by_seed.values()), terms))
    return charts


def histories(table: Table) -> dict[Method, dict[int, History]]:
    """Return {method: {seed: history}} of the training runs; of several numbers of shots, those with most."""
    most = max((run.method.shots for run in table.runs), default=0)
    found: dict[Method, dict[int, History]] = {}
    for run in table.runs:
        counts = not table.protocol.shots_are_columns or run.method.shots == most
        if run.is_training and counts and run.record.history:
            found.setdefault(run.method, {})[run.seed] = run.record.history
    return found


def curve_of(by_seed: Iterable[History], name: str, inside: str = "") -> Curve:
    """Average a number over seeds, epoch by epoch.

    Args:
        by_seed: One history a seed.
        name: Field of the entries; entries where it is no finite number do not count.
        inside: Dict in the entries that has the field; empty for the entries themselves.
    """
    epochs: dict[int, list[float]] = {}
    for history in by_seed:
        for entry in history:
            values = (entry.get(inside) or {}) if inside else entry
            number = values.get(name) if isinstance(values, dict) else None
            if isinstance(number, (int, float)) and math.isfinite(number):
                epochs.setdefault(entry["epoch"], []).append(number)
    at = sorted(epochs)
    return Curve(at, [fmean(epochs[e]) for e in at], [min(epochs[e]) for e in at], [max(epochs[e]) for e in at])


def _curves_chart(
    table: Table,
    field: str,
    title: str,
    label: str,
    caption: str,
    drawn: dict[Method, Curve],
    names: dict[Method, str],
) -> Chart:
    """Draw one field of the history, a curve a method."""
    looks = looks_of(list(names))
    with styled():
        figure, axis = axes(3.5 + legend_height(len(drawn)))
        for method, curve in drawn.items():
            colour, marker = looks[method]
            _draw(axis, curve, colour, marker, names[method], linewidth=1.4, shade=0.1)
        axis.set(xlabel="epoch", ylabel=label)
        lowest = min(min(curve.low) for curve in drawn.values())
        highest = max(max(curve.high) for curve in drawn.values())
        if field == "loss" and 0 < 4 * lowest < highest:
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
        _whole_epochs(axis, [epoch for curve in drawn.values() for epoch in curve.epochs])
        legend(figure, len(drawn), max(map(len, names.values())))
    return save(figure, name_of(table, field), title, caption)


def _terms_chart(table: Table, name: str, by_seed: list[History], terms: list[str]) -> Chart:
    """Draw the terms of a method's loss."""
    with styled():
        figure, axis = axes(3.4)
        epochs: list[int] = []
        for number, term in enumerate(terms):
            curve = curve_of(by_seed, term, "losses")
            epochs += curve.epochs
            colour, marker = COLOURS[(3 * number + 1) % len(COLOURS)], MARKERS[number % len(MARKERS)]
            _draw(axis, curve, colour, marker, term, linewidth=1.5, shade=0.12)
        axis.set(xlabel="epoch", ylabel="term of the loss")
        _whole_epochs(axis, epochs)
        legend(figure, len(terms), max(map(len, terms)))
    caption = f"{name}: what its loss is the sum of, by epoch, {SHADE}."
    return save(figure, name_of(table, name, "terms"), f"Terms of the loss: {name}", caption)


def _draw(axis: Axes, curve: Curve, colour: str, marker: str, label: str, *, linewidth: float, shade: float) -> None:
    """Draw a curve and the shade from its lowest to its highest seed."""
    marker = marker if len(curve.epochs) < 16 else ""
    axis.plot(curve.epochs, curve.mean, color=colour, marker=marker, markersize=5, linewidth=linewidth, label=label)
    axis.fill_between(curve.epochs, curve.low, curve.high, color=colour, alpha=shade, linewidth=0)


def _whole_epochs(axis: Axes, epochs: list[int]) -> None:
    """Mark whole epochs only."""
    if len(set(epochs)) == 1:
        axis.set_xticks(epochs[:1])
    else:
        axis.locator_params(axis="x", integer=True)


def _names(table: Table, methods: Iterable[Method]) -> dict[Method, str]:
    """Return the names of methods as a table has them, also where its rows are of several numbers of shots."""
    names = table.names()
    return {method: names.get(method) or names.get(method._replace(shots=0)) or method.trainer for method in methods}
