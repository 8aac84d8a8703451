"""Facts about the runs of a row besides accuracies: what they cost, and what a method says of itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

from .notes import grouped
from .run import Run

Number = int | float


class Fact(NamedTuple):
    """One fact.

    Attributes:
        field: Name in files.
        of: From the runs of a row to the number; None where it is not known.
        percent: The number is a share, to be shown in percent.
    """

    field: str
    of: Callable[[Sequence[Run]], Number | None]
    percent: bool = False


def parameters(runs: Sequence[Run]) -> int | None:
    """Return the number of learned parameters; the largest, where it depends on the data set."""
    known = [run.record.learned_parameters for run in runs if run.record.learned_parameters >= 0]
    return max(known, default=None)


def seconds(runs: Sequence[Run]) -> float | None:
    """Return the seconds of training and tests, a mean over seeds.

    All runs of a model count together: both halves, or the source and its targets.
    """
    models = grouped(runs, lambda run: (run.source_key, run.method.shots, run.seed)).values()
    return fmean(sum(sum(run.record.seconds.values()) for run in model) for model in models) if models else None


def seconds_per_epoch(runs: Sequence[Run]) -> float | None:
    """Return the seconds of an epoch, a mean over the training runs."""
    return _mean([run.record.seconds_per_epoch for run in runs if run.is_training])


def peak_memory_mb(runs: Sequence[Run]) -> float | None:
    """Return the most memory in use in any run, MiB."""
    return max((run.record.peak_memory_mb for run in runs), default=None)


def used(runs: Sequence[Run]) -> float | None:
    """Return the share of all pools' prompts chosen in the last epoch, a mean over the training runs; 0 to 1."""
    return _mean([sum(usage["used"]) / (len(usage["used"]) * usage["pool_size"]) for usage in _retrieval(runs)])


def top_share(runs: Sequence[Run]) -> float | None:
    """Return the share of the most used prompt of the layer where it is largest; 0 to 1."""
    return _mean([max(usage["top_share"]) for usage in _retrieval(runs)])


# By the heading in tables.
FACTS = {
    "parameters": Fact("parameters", parameters),
    "seconds": Fact("seconds", seconds),
    "s/epoch": Fact("seconds_per_epoch", seconds_per_epoch),
    "peak MB": Fact("peak_memory_mb", peak_memory_mb),
    "prompts used": Fact("used", used, percent=True),
    "top share": Fact("top share", top_share, percent=True),
}


def _retrieval(runs: Sequence[Run]) -> list[dict]:
    """Return what training runs recorded of their prompt pools."""
    found = [run.record.extra.get("retrieval") for run in runs if run.is_training]
    usages = [each.get("train") for each in found if isinstance(each, dict)]
    return [usage for usage in usages if isinstance(usage, dict) and _is_usage(usage)]


def _is_usage(usage: dict) -> bool:
    """Tell whether the use of a prompt pool is complete: shares and counts, a number a layer."""
    lists = [usage.get("used"), usage.get("top_share")]
    numbers = [number for each in lists if isinstance(each, list) for number in [*each, usage.get("pool_size")]]
    return (
        all(isinstance(each, list) and each for each in lists)
        and all(isinstance(number, (int, float)) and 0 <= number < 1e15 for number in numbers)
        and usage["pool_size"] > 0
    )


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
