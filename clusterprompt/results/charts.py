"""Charts of results, each a small SVG with a caption: one axis system a chart, so that a page can set them side by side
or one below another.
"""

import io
import textwrap
from statistics import fmean
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from .formats import header
from .runs import METHODS, TRANSFER, key

WIDTH = 4.8  # inches; with these font sizes legible at the width of a phone
STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "results",
    "text.parse_math": False,
    "figure.facecolor": "white",
    "legend.frameon": False,
    "legend.fontsize": 9,
}
COLOURS = (
    "#555555",
    "#1f77b4",
    "#17a2c4",
    "#2ca02c",
    "#8a9a00",
    "#bcaa22",
    "#8c564b",
    "#9467bd",
    "#e377c2",
    "#ff7f0e",
    "#d62728",
    "#0b2f6b",
)
MARKERS = "os^DvP*Xp<>h"
CLASSES = 24  # classes that a chart of changes shows, at most


class Chart(NamedTuple):
    """A picture with what is to be said about it.

    Attributes:
        name: For files: letters, digits, underscores.
    """

    name: str
    title: str
    caption: str
    svg: str


def save(figure, name: str, title: str, caption: str) -> Chart:
    """Turn a figure into a chart; the same figure gives the same bytes."""
    out = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :].replace(
        "'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif"
    )  # matplotlib's own font, and what is as wide
    return Chart("".join(c if c.isalnum() else "_" for c in name).lower(), title, caption, svg)


def axes(height: float):
    """Return a new figure of the usual width, and its axes."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def labels_of(table) -> dict:
    """Return the name of each row: the trainer, and what else tells it from other rows."""
    names = table.labels()
    return {
        row.method: " ".join(
            [row.method.trainer, *(f"[{getattr(row.method, name)}]" for name in names if getattr(row.method, name))]
        )
        for row in table.rows
    }


def look(methods: list) -> dict:
    """Return colour and marker of methods: the same for a method in every chart, others' for what has no own or comes
    twice.
    """
    free, found = [i for i, name in enumerate(METHODS) if name not in {method.trainer for method in methods}], {}
    for method in methods:
        own = METHODS.index(method.trainer) if method.trainer in METHODS else None
        taken = {i for i in found.values()}
        if own is None or own in taken:
            own = free.pop(0) if free else len(found) % len(METHODS)
        found[method] = own
    return {method: (COLOURS[i], MARKERS[i]) for method, i in found.items()}


def legend(figure, count: int, longest: int):
    """Put a legend below the axes, in as many columns as have room."""
    figure.legend(loc="outside lower center", ncol=max(1, min(4, count, 52 // (longest + 5))))


def scatter(table) -> Chart:
    """Draw base against new, over lines of equal harmonic mean."""
    names, looks = labels_of(table), look([row.method for row in table.rows])
    cells = [(row.cells["base"], row.cells["new"]) for row in table.rows]
    reach = [
        [cell.mean + side * (cell.spread or 0) for pair in cells for cell in (pair[axis],) for side in (-1, 1)]
        for axis in (0, 1)
    ]
    pad = max(1.0, 0.12 * max(max(values) - min(values) for values in reach))
    (left, right), (low, high) = ((max(0, min(values) - pad), min(100.5, max(values) + pad)) for values in reach)
    with matplotlib.rc_context(STYLE):
        figure, axis = axes(4.3 + 0.19 * -(-len(cells) // 3))
        x, y = np.meshgrid(np.linspace(max(left, 0.1), right, 200), np.linspace(max(low, 0.1), high, 200))
        lines = axis.contour(x, y, 2 * x * y / (x + y), levels=8, colors="#9a9a9a", linewidths=0.8, linestyles="dashed")
        axis.clabel(lines, fmt=lambda value: f"HM {value:g}", fontsize=8)
        for row, (base, new) in zip(table.rows, cells):
            colour, marker = looks[row.method]
            axis.errorbar(
                base.mean,
                new.mean,
                xerr=base.spread,
                yerr=new.spread,
                color=colour,
                marker=marker,
                markersize=8,
                markeredgecolor="white",
                markeredgewidth=0.8,
                elinewidth=1,
                capsize=2,
                linestyle="",
                label=names[row.method],
            )
        axis.grid(False)
        axis.set(
            xlim=(left, right),
            ylim=(low, high),
            xlabel="accuracy on base classes, %",
            ylabel="accuracy on new classes, %",
        )
        legend(figure, len(cells), max(map(len, names.values())))
    top = max(table.rows, key=lambda row: row.cells["HM"].mean)
    caption = (
        f"Accuracy on the classes trained on (further right is better) and on new ones (further up is better), {spread_words(table)}. Along a dashed "
        f"line the harmonic mean is the same. Highest: {names[top.method]}, HM {top.cells['HM'].mean:.2f}."
    )
    return save(figure, f"{table.protocol}_{table.data}_scatter", "Base against new", caption)


def spread_words(table) -> str:
    """Say what the bars of a chart are."""
    some = any(cell.spread is not None for row in table.rows for cell in row.cells.values())
    return "means over seeds with their ± as bars" if some else "of one seed"


def bars(table, column: str) -> Chart:
    """Draw one column of a table as bars, with published values as diamonds."""
    rows = [row for row in table.rows if column in row.cells]
    names, looks = labels_of(table), look([row.method for row in table.rows])
    with matplotlib.rc_context(STYLE):
        figure, axis = axes(0.9 + 0.3 * len(rows) + 0.25)
        for place, row in enumerate(rows):
            cell = row.cells[column]
            axis.barh(
                place,
                cell.mean,
                xerr=cell.spread or None,
                color=looks[row.method][0],
                height=0.7,
                error_kw={"elinewidth": 1.2, "capsize": 2.5},
            )
            end = cell.mean + (cell.spread or 0)
            if cell.published is not None:
                axis.plot(cell.published, place, "D", color="white", markeredgecolor="black", markersize=6, zorder=5)
                end = max(end, cell.published + 1)
            axis.annotate(f"{cell.mean:.2f}", (end, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
        axis.set_yticks(range(len(rows)), [names[row.method] for row in rows])
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.set_xlim(
            0, 1.16 * max(max(c.mean + (c.spread or 0), c.published or 0) for row in rows for c in [row.cells[column]])
        )
        axis.set_xlabel("harmonic mean, %" if column == "HM" else "accuracy, %")
    caption = f"{'Harmonic mean of base and new accuracy' if column == 'HM' else 'Accuracy on average over the targets'}: {spread_words(table)}."
    if any(row.cells[column].published is not None for row in rows):
        caption += " A diamond is the published value."
    title = "Harmonic mean" if column == "HM" else "Average over targets"
    return save(figure, f"{table.protocol}_{table.data}_{column}", title, caption)


def targets(table) -> Chart:
    """Draw each method's accuracy on the source and each target."""
    names, looks = labels_of(table), look([row.method for row in table.rows])
    columns = [column for column in table.columns if column != "average"]
    with matplotlib.rc_context(STYLE):
        figure, axis = axes(0.5 * len(columns) + 1.3 + 0.19 * -(-len(names) // 3))
        for row in table.rows:
            shown = [(place, row.cells[column].mean) for place, column in enumerate(columns) if column in row.cells]
            colour, marker = looks[row.method]
            axis.plot(
                [mean for _, mean in shown],
                [place for place, _ in shown],
                marker=marker,
                color=colour,
                linestyle="",
                markersize=7,
                markeredgecolor="white",
                markeredgewidth=0.6,
                label=names[row.method],
                alpha=0.9,
            )
        axis.set_yticks(
            range(len(columns)), [header(table, column) + " (source)" * (column == table.data) for column in columns]
        )
        axis.invert_yaxis()
        axis.margins(y=0.08)
        axis.set_xlabel("accuracy, %")
        legend(figure, len(names), max(map(len, names.values())))
    return save(
        figure,
        f"{table.protocol}_{table.data}_targets",
        "Source and targets",
        "Mean accuracy over seeds of each method on the source and on each target; further right is better.",
    )


def shots(table) -> Chart:
    """Draw accuracy by number of shots."""
    names, looks = labels_of(table), look([row.method for row in table.rows])
    numbers = [int(column.split()[0]) for column in table.columns]
    with matplotlib.rc_context(STYLE):
        figure, axis = axes(3.7 + 0.19 * -(-len(names) // 3))
        for row in table.rows:
            colour, marker = looks[row.method]
            points = [
                (number, row.cells[column]) for number, column in zip(numbers, table.columns) if column in row.cells
            ]
            if [number for number, _ in points] == [0]:
                axis.axhline(points[0][1].mean, color=colour, linestyle="--", label=f"{names[row.method]}, no training")
                continue
            axis.errorbar(
                [number for number, _ in points],
                [cell.mean for _, cell in points],
                yerr=[cell.spread or 0 for _, cell in points],
                color=colour,
                marker=marker,
                markersize=6,
                capsize=2,
                elinewidth=1,
                linewidth=1.4,
                label=names[row.method],
            )
        if any(numbers):
            axis.set_xscale("log", base=2)
            axis.set_xticks([number for number in numbers if number], [str(number) for number in numbers if number])
            axis.minorticks_off()
        axis.set(xlabel="training images a class", ylabel="accuracy, %")
        legend(figure, len(names), max(map(len, names.values())) + 3)
    return save(
        figure,
        f"few_shot_{table.data}_shots",
        "Accuracy by shots",
        f"Accuracy on all classes by training images a class (axis by doublings): {spread_words(table)}.",
    )


# ---------------------------------------------------------- learning curves


def histories(table) -> dict:
    """Return {method: {seed: history}} of the training runs behind a table; of few-shot runs those with most shots."""
    most = max((run.method.shots for run in table.runs), default=0)
    found = {}
    for run in table.runs:
        trained = (
            run.part != "new"
            and key(run.dataset) == key(run.source)
            and (table.protocol != "few_shot" or run.method.shots == most)
        )
        history = [
            entry
            for entry in run.result.get("history") or []
            if isinstance(entry, dict) and isinstance(entry.get("epoch"), int)
        ]
        if trained and history:
            found.setdefault(run.method, {})[run.seed] = history
    return found


def means(by_seed: dict, name: str, inside: str = "") -> tuple:
    """Return epochs, and mean, lowest and highest over seeds of a value of the entries (or of a dict inside them) where
    it is a number.
    """
    epochs = {}
    for history in by_seed.values():
        for entry in history:
            values = (entry.get(inside) or {}) if inside else entry
            number = values.get(name) if isinstance(values, dict) else None
            if isinstance(number, (int, float)) and np.isfinite(number):
                epochs.setdefault(entry["epoch"], []).append(number)
    at = sorted(epochs)
    return at, [fmean(epochs[e]) for e in at], [min(epochs[e]) for e in at], [max(epochs[e]) for e in at]


def epochs_below(axis, epochs: list):
    """Mark whole epochs only."""
    if len(set(epochs)) == 1:
        axis.set_xticks(epochs[:1])
    else:
        axis.xaxis.get_major_locator().set_params(integer=True)


def names_for(table, methods) -> dict:
    """Return the names of methods as a table has them, also where its rows are of several numbers of shots."""
    names = labels_of(table)
    return {method: names.get(method) or names.get(method._replace(shots=0)) or method.trainer for method in methods}


def curves(table) -> list:
    """Draw accuracy and loss of training by epoch, and the terms of the loss of each method that has several."""
    found = histories(table)
    names, looks = names_for(table, found), look(list(found))
    charts = []
    for field, title, axis_label in (
        ("accuracy", "Accuracy in training", "accuracy of training batches, %"),
        ("loss", "Loss in training", "loss"),
    ):
        drawn = {method: means(by_seed, field) for method, by_seed in found.items()}
        drawn = {method: points for method, points in drawn.items() if points[0]}
        if not drawn:
            continue
        with matplotlib.rc_context(STYLE):
            figure, axis = axes(3.5 + 0.19 * -(-len(drawn) // 3))
            for method, (epochs, middle, low, high) in drawn.items():
                colour, marker = looks[method]
                axis.plot(
                    epochs,
                    middle,
                    color=colour,
                    marker=marker if len(epochs) < 16 else "",
                    markersize=5,
                    linewidth=1.4,
                    label=names[method],
                )
                axis.fill_between(epochs, low, high, color=colour, alpha=0.1, linewidth=0)
            axis.set(xlabel="epoch", ylabel=axis_label)
            lowest, highest = (pick(pick(points[i]) for points in drawn.values()) for pick, i in ((min, 2), (max, 3)))
            if field == "loss" and 0 < 4 * lowest < highest:
                axis.set_yscale("log")
                axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.yaxis.set_major_formatter("{x:g}")
                axis.yaxis.set_minor_formatter(NullFormatter())
            epochs_below(axis, [epoch for points in drawn.values() for epoch in points[0]])
            legend(figure, len(drawn), max(map(len, names.values())))
        what = (
            "Share of training images classified rightly"
            if field == "accuracy"
            else "Loss, all terms together, which differ between methods,"
        )
        caption = f"{what} by epoch (with the augmentations of training), mean over seeds; the shade reaches from the lowest to the highest seed."
        charts.append(save(figure, f"{table.protocol}_{table.data}_{field}", title, caption))
    for method, by_seed in found.items():
        terms = sorted(
            {
                term
                for history in by_seed.values()
                for entry in history
                if isinstance(entry.get("losses"), dict)
                for term in entry["losses"]
            }
        )
        if len(terms) > 1:
            charts.append(terms_chart(table, method, names[method], by_seed, terms))
    return charts


def terms_chart(table, method, name: str, by_seed: dict, terms: list) -> Chart:
    """Draw the terms of a method's loss."""
    with matplotlib.rc_context(STYLE):
        figure, axis = axes(3.4)
        for number, term in enumerate(terms):
            epochs, middle, low, high = means(by_seed, term, "losses")
            colour = COLOURS[(3 * number + 1) % len(COLOURS)]
            axis.plot(
                epochs,
                middle,
                color=colour,
                marker=MARKERS[number % len(MARKERS)] if len(epochs) < 16 else "",
                markersize=5,
                label=term,
            )
            axis.fill_between(epochs, low, high, color=colour, alpha=0.12, linewidth=0)
        axis.set(xlabel="epoch", ylabel="term of the loss")
        epochs_below(axis, epochs)
        legend(figure, len(terms), max(map(len, terms)))
    caption = f"{name}: what its loss is the sum of, by epoch, mean over seeds; the shade reaches from the lowest to the highest seed."
    return save(figure, f"{table.protocol}_{table.data}_{name}_terms", f"Terms of the loss: {name}", caption)


# ------------------------------------------------------------------ classes


def changes(table, runs: list, name: str, part: str, zero_shot: dict):
    """Draw how a method changes the accuracy of classes against zero-shot CLIP; None where no class is comparable.

    Args:
        runs: The method's runs of one half of the classes (or all), one a seed.
        zero_shot: Accuracy by class.
    """
    by_class = {}
    for run in runs:
        for label, value in (run.result.get("per_class") or {}).items():
            if label in zero_shot and isinstance(value, (int, float)):
                by_class.setdefault(label, []).append(value - zero_shot[label])
    change = sorted(((fmean(values), label) for label, values in by_class.items()), reverse=True)
    if not change:
        return None
    shown = change if len(change) <= CLASSES else change[: CLASSES // 2] + change[-CLASSES // 2 :]
    with matplotlib.rc_context(STYLE):
        figure, axis = axes(0.8 + 0.23 * len(shown))
        for place, (value, _) in enumerate(shown):
            axis.barh(place, value, color="#2a7f3f" if value >= 0 else "#c0392b", height=0.72)
            axis.annotate(
                f"{value:+.1f}",
                (value, place),
                (4 if value >= 0 else -4, 0),
                textcoords="offset points",
                va="center",
                ha="left" if value >= 0 else "right",
                fontsize=8,
            )
        if len(shown) < len(change):
            axis.axhline(CLASSES // 2 - 0.5, color="#555555", linestyle=":", linewidth=1)
        axis.set_yticks(
            range(len(shown)),
            [textwrap.shorten(label.replace("_", " "), 30, placeholder=" ...") for _, label in shown],
            fontsize=9,
        )
        axis.axvline(0, color="black", linewidth=0.8)
        axis.invert_yaxis()
        axis.margins(x=0.16, y=0.01)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel("change of accuracy, percentage points")
    up, down = sum(value > 0 for value, _ in change), sum(value < 0 for value, _ in change)
    more = (
        f" Shown are the {CLASSES // 2} that gain most and the {CLASSES // 2} that gain least or lose."
        if len(shown) < len(change)
        else ""
    )
    caption = (
        f"Accuracy of each class, {name} minus zero-shot CLIP, mean over seeds: {up} of {len(change)} classes gain, {down} lose; "
        f"on average {fmean(value for value, _ in change):+.1f}.{more}"
    )
    return save(
        figure,
        f"{table.protocol}_{table.data}_{name}_{part}_changes",
        f"{name} against zero-shot, {part} classes",
        caption,
    )


def confusion(table, name: str, part: str, classnames: list, counts, worst: list):
    """Draw what the images of the worst classes were taken for, as shares of each class."""
    often = [int(c) for row in worst for c in np.argsort(-counts[row], kind="stable")[:3] if counts[row, c]]
    columns = list(dict.fromkeys([*worst, *often]))[:9]
    total = counts[worst].sum(axis=1, keepdims=True)
    shares = 100 * counts[worst] / np.maximum(total, 1)
    values = np.column_stack([shares[:, columns], 100 - shares[:, columns].sum(axis=1)])
    short = [textwrap.shorten(classnames[c].replace("_", " "), 24, placeholder=" ...") for c in columns] + ["any other"]
    with matplotlib.rc_context(STYLE):
        figure, axis = axes(2.0 + 0.42 * len(worst))
        axis.imshow(values, cmap="Blues", vmin=0, vmax=100, aspect="auto")
        for r in range(len(worst)):
            for c in range(values.shape[1]):
                if round(values[r, c]):
                    axis.text(
                        c,
                        r,
                        f"{values[r, c]:.0f}",
                        ha="center",
                        va="center",
                        fontsize=9,
                        color="white" if values[r, c] > 55 else "black",
                    )
            axis.add_patch(Rectangle((r - 0.5, r - 0.5), 1, 1, fill=False, edgecolor="#d62728", linewidth=1.5))
        axis.set_xticks(range(len(short)), short, rotation=50, ha="right", rotation_mode="anchor", fontsize=8.5)
        axis.set_yticks(
            range(len(worst)),
            [textwrap.shorten(classnames[c].replace("_", " "), 24, placeholder=" ...") for c in worst],
            fontsize=9,
        )
        axis.grid(False)
        axis.set_ylabel("class")
        axis.set_xlabel("taken for")
    return save(
        figure,
        f"{table.protocol}_{table.data}_{name}_{part}_confusion",
        f"Worst classes of {name}, {part} classes",
        "Of 100 test images of each of the worst classes (rows), how many were taken for what (columns), all seeds together. "
        "Red frames: right answers.",
    )


def main_charts(table) -> list:
    """Draw what a table says."""
    if not table.rows:
        return []
    if table.protocol == "base2new":
        return [scatter(table), bars(table, "HM")]
    if table.protocol in TRANSFER:
        average = [bars(table, "average")] if any("average" in row.cells for row in table.rows) else []
        return [targets(table), *average]
    return [shots(table)]
