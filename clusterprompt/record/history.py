"""Training history, one entry an epoch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Step(NamedTuple):
    """One step of optimisation.

    Attributes:
        loss: Its loss.
        terms: The terms of the loss by name.
        accuracy: Of the batch, in percent; None where the method computes none.
    """

    loss: float
    terms: dict[str, float]
    accuracy: float | None


def epoch_entry(epoch: int, lr: float, steps: list[Step], seconds: float) -> dict:
    """Average the steps of an epoch.

    Args:
        epoch: Counted from 1.
        lr: Learning rate of its steps.
        steps: All of them, in order.
        seconds: Wall-clock time of the epoch, without validation and checkpoint.
    """
    accuracies = [step.accuracy for step in steps if step.accuracy is not None]
    return {
        "epoch": epoch,
        "lr": lr,
        "loss": _mean(step.loss for step in steps),
        "losses": {name: _mean(step.terms[name] for step in steps) for name in steps[-1].terms},
        "accuracy": _mean(accuracies) if accuracies else None,
        "seconds": round(seconds, 2),
    }


def _mean(numbers: Iterable[float]) -> float:
    values = list(numbers)
    return round(sum(values) / len(values), 6)
