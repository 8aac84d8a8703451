"""Running averages of a learner's weights over epochs (TAC, PromptSRC)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """Weighted sum of a learner's parameters over epochs, in fp32.

    Buffers are left alone: they are fixed by the task, not learned.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.total = 0.0

    @torch.no_grad()
    def add(self, learner: nn.Module, weight: float) -> None:
        """Add the learner's current parameters with ``weight``."""
        for name, p in learner.named_parameters():
            previous = self.sums.get(name)
            self.sums[name] = p * weight if previous is None else previous.to(p.device) + p * weight
        self.total += weight

    @torch.no_grad()
    def load_into(self, learner: nn.Module) -> None:
        """Replace the learner's parameters by their average.

        Raises:
            RuntimeError: The weights added so far do not sum to 1.
        """
        if abs(self.total - 1) > 1e-4:
            raise RuntimeError(
                f"the weights of the averaged epochs sum to {self.total:.4f} instead of 1: an epoch is missing "
                "from the average"
            )
        for name, p in learner.named_parameters():
            p.copy_(self.sums[name])

    def state_dict(self) -> dict:
        """Return the state for a resumed run."""
        return {"sums": self.sums, "total": self.total}

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`."""
        self.sums, self.total = dict(state["sums"]), float(state["total"])
