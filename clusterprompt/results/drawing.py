"""Shared by all charts: size, style, colours of methods, legends, and the SVG itself.

A chart has one axis system, so that a page can set charts side by side or one below another.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .run import METHODS, Method
from .tables import Table

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
# In the order of METHODS: no two alike, and those of like colours have unlike markers.
COLOURS = (
    "#555555",
    "#1f77b4",
    "#17a2c4",
    "#a6a6a6",
    "#2ca02c",
    "#8a9a00",
    "#bcaa22",
    "#8c564b",
    "#9467bd",
    "#e377c2",
    "#7fb8e0",
    "#63d0c0",
    "#ff7f0e",
    "#8fd18a",
    "#5b3a8c",
    "#c7a0e8",
    "#d9b38c",
    "#7a1f1f",
    "#d62728",
    "#0b2f6b",
    "#a3195b",
    "#00695c",
    "#f4b942",
    "#f28e9b",
)
MARKERS = "os^dDvP*Xp8H<h^sDo>hPX*v"


class Chart(NamedTuple):
    """A picture with a title and a caption.

    Attributes:
        name: For files: letters, digits, underscores.
        title: Heading.
        caption: Full sentences.
        svg: The picture.
    """

    name: str
    title: str
    caption: str
    svg: str


def styled() -> AbstractContextManager[None]:
    """Return the context in which charts are drawn and saved."""
    return matplotlib.rc_context(STYLE)


def save(figure: Figure, name: str, title: str, caption: str) -> Chart:
    """Turn a figure into a chart; the same figure gives the same bytes."""
    out = io.StringIO()
    with styled():
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = svg.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")  # matplotlib's own font, and one as wide
    return Chart("".join(c if c.isalnum() else "_" for c in name).lower(), title, caption, svg)


def name_of(table: Table, *words: str) -> str:
    """Return the name of a chart of a table."""
    return "_".join((table.protocol.name, table.data, *words))


def axes(height: float) -> tuple[Figure, Axes]:
    """Return a new figure of the usual width, and its axes.

    Args:
        height: Inches.
    """
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def looks_of(methods: Sequence[Method]) -> dict[Method, tuple[str, str]]:
    """Return colour and marker of methods.

    A method has the same ones in every chart. Unknown methods, and further rows of a method, get those of methods that
    are not shown.
    """
    trainers = {method.trainer for method in methods}
    free = [place for place, name in enumerate(METHODS) if name not in trainers]
    found: dict[Method, int] = {}
    for method in methods:
        place = METHODS.index(method.trainer) if method.trainer in METHODS else None
        if place is None or place in found.values():
            place = free.pop(0) if free else len(found) % len(METHODS)
        found[method] = place
    return {method: (COLOURS[place], MARKERS[place]) for method, place in found.items()}


def legend(figure: Figure, count: int, longest: int) -> None:
    """Add a legend below the axes, in as many columns as have room.

    Args:
        figure: Figure with labelled lines.
        count: Number of entries.
        longest: Letters of the longest one.
    """
    figure.legend(loc="outside lower center", ncol=max(1, min(4, count, 52 // (longest + 5))))


def legend_height(count: int) -> float:
    """Return the height that a legend needs, in inches."""
    return 0.19 * -(-count // 3)


def spread_words(table: Table) -> str:
    """Describe the bars of a chart."""
    some = any(cell.spread is not None for row in table.rows for cell in row.cells.values())
    return "means over seeds with their ± as bars" if some else "of one seed"
