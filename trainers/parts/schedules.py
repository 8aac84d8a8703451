"""Schedules of the learning rate that advance with every step of optimisation."""

from __future__ import annotations

import math

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class StepCosine(LRScheduler):
    """Lower the rate along half a cosine, step by step; after the last one it is 0, so that more change nothing.

    Args:
        optimizer: Its own rates are the first ones.
        steps: Steps of the training.
        least: What the cosine ends at.
    """

    def __init__(self, optimizer: Optimizer, steps: int, least: float = 0.0):
        self.steps, self.least = steps, least
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return the rate of each parameter group for the step that comes next."""
        if self.last_epoch >= self.steps:
            return [0.0 for _ in self.base_lrs]
        share = (1 + math.cos(math.pi * self.last_epoch / self.steps)) / 2
        return [self.least + (float(lr) - self.least) * share for lr in self.base_lrs]
