"""Charts of a table's numbers. A protocol lists those of its tables by the names of these functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .drawing import Chart, axes, legend, legend_height, looks_of, name_of, save, spread_words, styled
from .formats import header
from .tables import Table


def main_charts(table: Table) -> list[Chart]:
    """Draw the charts of a table that its protocol lists."""
    if not table.rows:
        return []
    draw: list[Callable[[Table], Chart | None]] = [globals()[name] for name in table.protocol.charts]
    return [chart for chart in (function(table) for function in draw) if chart is not None]


def scatter(table: Table) -> Chart:
    """Draw base against new, over lines of equal harmonic mean."""
    names, looks = table.names(), looks_of([row.method for row in table.rows])
    cells = [(row.cells["base"], row.cells["new"]) for row in table.rows]
    ends = [[cell.mean + side * (cell.spread or 0) for cell in column for side in (-1, 1)] for column in zip(*cells)]
    pad = max(1.0, 0.12 * max(max(values) - min(values) for values in ends))
    (left, right), (low, high) = ((max(0, min(values) - pad), min(100.5, max(values) + pad)) for values in ends)
    with styled():
        figure, axis = axes(4.3 + legend_height(len(cells)))
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
        axis.set(xlim=(left, right), ylim=(low, high))
        axis.set(xlabel="accuracy on base classes, %", ylabel="accuracy on new classes, %")
        legend(figure, len(cells), max(map(len, names.values())))
    top = max(table.rows, key=lambda row: row.cells["HM"].mean)
    caption = (
        "Accuracy on the classes trained on (further right is better) and on new ones (further up is better), "
        f"{spread_words(table)}. Along a dashed line the harmonic mean is the same. Highest: {names[top.method]}, "
        f"HM {top.cells['HM'].mean:.2f}."
    )
    return save(figure, name_of(table, "scatter"), "Base against new", caption)


def bars(table: Table) -> Chart | None:
    """Draw the protocol's headline, or the last column, as bars, with published values as diamonds."""
    column = table.protocol.headline or table.columns[-1]
    rows = [row for row in table.rows if column in row.cells]
    if not rows:
        return None
    names, looks = table.names(), looks_of([row.method for row in table.rows])
    derived = next((each for each in table.derived if each.name == column), None)
    title = (derived and derived.title) or header(table, column)
    meaning = (derived and derived.meaning) or f"accuracy, {header(table, column)}"
    with styled():
        figure, axis = axes(0.9 + 0.3 * len(rows) + 0.25)
        furthest = 0.0
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
            furthest = max(furthest, end, cell.published or 0)
            if cell.published is not None:
                axis.plot(cell.published, place, "D", color="white", markeredgecolor="black", markersize=6, zorder=5)
                end = max(end, cell.published + 1)
            axis.annotate(f"{cell.mean:.2f}", (end, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
        axis.set_yticks(range(len(rows)), [names[row.method] for row in rows])
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.set_xlim(0, 1.16 * furthest)
        axis.set_xlabel(f"{title.lower() if derived else 'accuracy'}, %")
    caption = f"{meaning[0].upper()}{meaning[1:]}: {spread_words(table)}."
    if any(row.cells[column].published is not None for row in rows):
        caption += " A diamond is the published value."
    return save(figure, name_of(table, column), title, caption)


def targets(table: Table) -> Chart:
    """Draw each method's accuracy on the source and each target."""
    names, looks = table.names(), looks_of([row.method for row in table.rows])
    derived = {each.name for each in table.derived}
    columns = [column for column in table.columns if column not in derived]
    with styled():
        figure, axis = axes(0.5 * len(columns) + 1.3 + legend_height(len(names)))
        for row in table.rows:
            shown = [(row.cells[column].mean, place) for place, column in enumerate(columns) if column in row.cells]
            colour, marker = looks[row.method]
            axis.plot(
                *zip(*shown),
                marker=marker,
                color=colour,
                linestyle="",
                markersize=7,
                markeredgecolor="white",
                markeredgewidth=0.6,
                label=names[row.method],
                alpha=0.9,
            )
        labels = [header(table, column) + " (source)" * (column == table.data) for column in columns]
        axis.set_yticks(range(len(columns)), labels)
        axis.invert_yaxis()
        axis.margins(y=0.08)
        axis.set_xlabel("accuracy, %")
        legend(figure, len(names), max(map(len, names.values())))
    caption = "Mean accuracy over seeds of each method on the source and on each target; further right is better."
    return save(figure, name_of(table, "targets"), "Source and targets", caption)


def shots(table: Table) -> Chart:
    """Draw accuracy by number of shots."""
    names, looks = table.names(), looks_of([row.method for row in table.rows])
    numbers = {column: int(column.split()[0]) for column in table.columns}
    with styled():
        figure, axis = axes(3.7 + legend_height(len(names)))
        for row in table.rows:
            colour, marker = looks[row.method]
            points = [(numbers[column], row.cells[column]) for column in table.columns if column in row.cells]
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
        trained = [number for number in numbers.values() if number]
        if trained:
            axis.set_xscale("log", base=2)
            axis.set_xticks(trained, list(map(str, trained)))
            axis.minorticks_off()
        axis.set(xlabel="training images a class", ylabel="accuracy, %")
        legend(figure, len(names), max(map(len, names.values())) + 3)
    caption = f"Accuracy on all classes by training images a class (axis by doublings): {spread_words(table)}."
    return save(figure, name_of(table, "shots"), "Accuracy by shots", caption)
