"""Results in log files, of this project or of the CoOp family."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Sequence

from ..record.statistics import spread, summarise

# Dassl prints the first, the parsers of MaPLe, PromptSRC and KgCoOp wait for the second.
TRAINED = ("Finish training", "Finished training")
TESTED = ("=> result",)


def read_log(path: str | Path, keyword: str, signals: Sequence[str]) -> float | None:
    """Return the last value of ``keyword`` after a line that equals one of ``signals``; None if there is none."""
    pattern = re.compile(rf"\* {re.escape(keyword)}: ([\d.eE+-]+)%")
    started, value = False, None
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        started = started or line.strip() in signals
        match = pattern.search(line)
        if started and match:
            value = float(match.group(1))
    return value


def print_runs(folder: Path, keyword: str, signals: Sequence[str]) -> float | None:
    """Print the runs below ``folder`` and their mean; return the mean, None if no run is complete."""
    print(f"Runs in {folder}")
    values = []
    for log in sorted(folder.glob("*/log.txt")):
        value = read_log(log, keyword, signals)
        print(f"  {log.parent.name}: " + ("not finished, left out" if value is None else f"{keyword} {value:.2f}%"))
        if value is not None:
            values.append(value)
    if not values:
        return None
    mean, std = summarise(values)
    print(f"* {keyword}: {mean:.2f}% +- {std or 0:.2f}%  ({len(values)} runs{_interval(mean, values)})")
    return mean


def _interval(mean: float, values: Sequence[float]) -> str:
    """Describe the 95 % interval of the mean; nothing for a single value."""
    half = spread(values, "ci95")
    return "" if half is None else f", 95 % interval {mean - half:.2f} to {mean + half:.2f}"
