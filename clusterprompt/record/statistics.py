"""Mean, spread and harmonic mean over seeds: the numbers that tables print."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit  # Student's t; scipy.stats takes seconds to import

INTERVALS = {
    "std": "± is the standard deviation over seeds (population, ddof 0), as this field prints it.",
    "ci95": (
        "± is half the 95 % confidence interval of the mean over seeds (Student's t with n - 1 degrees of freedom; "
        "sample standard deviation, ddof 1)."
    ),
}


# Accuracy by seed. An average over data sets of different seeds has none of its own: {None: mean of the means}.
BySeed = Mapping[Any, float]


class Summary(NamedTuple):
    """A number of a table, in percent.

    Attributes:
        mean: Mean over seeds.
        spread: See :data:`INTERVALS`; None where a single seed leaves none.
    """

    mean: float
    spread: float | None = None


def spread(values: Iterable[float], interval: str = "std") -> float | None:
    """Return the spread of a mean over seeds; None for fewer than two values.

    Args:
        values: One number a seed.
        interval: A key of :data:`INTERVALS`.
    """
    values = list(values)
    if len(values) < 2:
        return None
    if interval == "std":
        return float(np.std(values))
    return float(stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(len(values)))


def summarise(values: Iterable[float], interval: str = "std") -> Summary:
    """Return mean and spread of one number a seed."""
    values = list(values)
    return Summary(fmean(values), spread(values, interval))


def harmonic_mean(base: float, new: float) -> float:
    """Return the harmonic mean of two accuracies; 0 if both are 0."""
    return 2 * base * new / (base + new) if base + new else 0.0


def base_to_new(base: BySeed, new: BySeed, interval: str = "std") -> dict[str, Summary]:
    """Summarise base-to-new accuracies, as the papers do.

    ``HM`` is the harmonic mean of the mean base and the mean new accuracy; its spread is that of the single seeds' HMs.
    ``mean of HMs`` is the other convention, the mean of the single seeds' HMs.

    Args:
        base: Accuracy on the base classes by seed.
        new: Accuracy on the new classes by seed; the same seeds.
        interval: A key of :data:`INTERVALS`.

    Returns:
        Summaries of ``base``, ``new``, ``HM`` and ``mean of HMs``.
    """
    by_seed = [harmonic_mean(base[seed], new[seed]) for seed in base]
    halves = summarise(base.values(), interval), summarise(new.values(), interval)
    return {
        "base": halves[0],
        "new": halves[1],
        "HM": Summary(harmonic_mean(halves[0].mean, halves[1].mean), spread(by_seed, interval)),
        "mean of HMs": Summary(fmean(by_seed)),
    }
