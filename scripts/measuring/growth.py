"""How the cost of a step grows with classes, views, layers and images, on the fast path and the plain one."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cases import Step
from .made_up import build
from .paths import measured
from .shares import shares

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES: Mapping[str, Sequence[int]] = {
    "classes": (50, 100, 200, 1000, 4000),
    "views": (1, 2, 4, 8),
    "layers": (3, 6, 12),
    "images": (1, 4, 16),
}
PLACES = ("vision", "text", "outside")
PLAIN_CLASSES = 2  # multiples of --plain-chunk up to which the plain path runs
COSTS = {"cpu": "CPU seconds of a step", "mb": "MiB above the model"}
COLOURS = {"fast": "#1f77b4", "plain": "#d62728"}


def grow(args: argparse.Namespace, axis: str) -> Iterator[dict[str, Any]]:
    """Measure a step at each size of one axis, everything else as the command line has it.

    Yields:
        Rows with the size, the CPU seconds and MiB of both paths (no plain ones above a limit, and none of its memory
        where it runs in chunks), and the shares of the fast path's time by place.
    """
    for size in AXES[axis]:
        own = copy.copy(args)
        classes, batch = args.classes[0], args.batch[0]
        if axis == "classes":
            classes = size
        elif axis == "images":
            batch = size
        else:
            setattr(own, axis, size)
        trainer = build(own, classes, batch)
        run = Step(trainer, own, batch)
        places, _ = shares(run)
        fast = measured(run, "fast", own)
        row = {"axis": axis, "size": size, "fast cpu": round(fast.cpu, 2), "fast mb": round(fast.mb)}
        if not args.fast_only and classes <= PLAIN_CLASSES * args.plain_chunk:
            chunky = classes > args.plain_chunk
            slow = measured(run, "plain", own, chunky)
            row |= {"plain cpu": round(slow.cpu, 2), "plain mb": None if chunky else round(slow.mb)}
        yield {**row, **{place: round(places[place], 3) for place in PLACES}}


def draw(rows: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """Draw seconds and memory against each axis, log-log, and write the picture."""
    import matplotlib

    from clusterprompt.results.drawing import STYLE

    with matplotlib.rc_context(STYLE):
        figure = _figure(rows, title)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _figure(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, NullLocator, StrMethodFormatter

    axes = list(dict.fromkeys(row["axis"] for row in rows))
    figure = Figure(figsize=(2.6 * len(axes) + 0.6, 5), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(2, len(axes), squeeze=False, sharex="col", sharey="row")
    for column, axis in enumerate(axes):
        own = [row for row in rows if row["axis"] == axis]
        for place, (cost, label) in zip(grid[:, column], COSTS.items()):
            for name, colour in COLOURS.items():
                points = [(row["size"], row[f"{name} {cost}"]) for row in own if row.get(f"{name} {cost}")]
                if points:
                    place.loglog(*zip(*points), marker="o", markersize=4, color=colour, label=name)
            place.set_ylabel(label if column == 0 else "")
        sizes = [row["size"] for row in own]
        bottom = grid[1, column]
        bottom.set_xlabel(axis)
        bottom.xaxis.set_minor_locator(NullLocator())
        bottom.set_xticks(sizes, [str(size) for size in sizes], rotation=45 if len(sizes) > 5 else 0)
    for place in grid[:, 0]:
        place.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        place.yaxis.set_minor_formatter(NullFormatter())
    grid[0, 0].legend()
    return figure
