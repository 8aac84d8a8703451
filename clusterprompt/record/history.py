"""What became of each epoch of training, for ``result.json``."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional

from .result import RunRecord


class Step(NamedTuple):
    """One step of optimisation: its loss, the terms of the loss, and the batch's accuracy in percent, where there is
    one.
    """

    loss: float
    terms: Dict[str, float]
    accuracy: Optional[float]


def epoch_entry(epoch: int, lr: float, steps: List[Step], seconds: float) -> dict:
    """Return the means over an epoch's steps.

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


def earlier_history(folder: str, epochs: int) -> List[dict]:
    """Return the history of the first ``epochs`` epochs of an interrupted run, as far as its record tells it."""
    record = RunRecord.find(folder)
    return [entry for entry in record.history if entry["epoch"] <= epochs] if record else []


def _mean(values) -> float:
    values = list(values)
    return round(sum(values) / len(values), 6)
