"""Results in log files, of this project or of the CoOp family."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

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


def print_folder(folder: Path, keyword: str, *, test_log: bool, multi_exp: bool) -> None:
    """Print the runs of a folder of seeds, or of several such folders and their average.

    Args:
        folder: Folder of seeds, or of folders of seeds.
        keyword: Number to look for: "accuracy", "error", "macro_f1", ...
        test_log: The logs are of evaluations, without training.
        multi_exp: ``folder`` holds several folders of seeds.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: No complete run is found.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    groups = sorted(entry for entry in folder.iterdir() if entry.is_dir()) if multi_exp else [folder]
    means = [print_runs(group, keyword, TESTED if test_log else TRAINED) for group in groups]
    found = [mean for mean in means if mean is not None]
    if not found:
        hint = "" if test_log else "; for evaluations add --test-log"
        raise ValueError(f"no finished run with '* {keyword}: ...%' below {folder}{hint}")
    if multi_exp:
        print(f"Average of {len(found)} experiments: {fmean(found):.2f}%")


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
