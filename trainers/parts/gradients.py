"""The gradients of one batch: taken in parts where memory is short, and over all processes that train together.

The objective is a mean over images, so the gradient of a batch is the sum of the gradients of its parts, each weighted
by its share of the images. The class texts are computed once: the parts add up the gradient by the text features, and
one backward pass takes that sum through the text tower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ...clip_patches.loading import autocast
from ...record.measure import free_memory_mb
from . import ranks
from .batch import Batch

if TYPE_CHECKING:
    from ..base import PromptTrainer

# Rough number of floats that one token takes in a block while its graph is kept, in multiples of the width.
FLOATS_WITH_GRAPH = 22
SHARE_OF_FREE_MEMORY = 0.5


class Totals(NamedTuple):
    """What a step says of its whole batch.

    Attributes:
        terms: The weighted terms of the objective by name.
        accuracy: In percent; None if the method computes none.
    """

    terms: dict[str, float]
    accuracy: float | None

    @property
    def loss(self) -> float:
        """The objective."""
        return sum(self.terms.values())


def backpropagate(trainer: PromptTrainer, batch: Batch) -> Totals:
    """Add the gradients of a batch's losses to the learner's, which are zero.

    The gradients of the terms that ``trainer.guides`` names are kept apart, in ``trainer.guide_gradients``.

    Args:
        trainer: Its TRAIN.MICRO_BATCH says how many views are taken at a time.
        batch: The whole batch, the same in all processes; each process takes its share of the images.

    Returns:
        Totals over all parts and processes. Where one is not finite, the gradients are of no use.
    """
    own = batch.take(ranks.share(batch.count))
    parts = own.split(views_at_once(trainer, own))
    weights = list(trainer.learner.parameters())
    with ranks.own_randomness(trainer.epoch * trainer.num_batches + trainer.batch_idx):
        with autocast(trainer.precision, trainer.device):
            parts = trainer.prepare_parts(parts)
            text = None if len(parts) == 1 or trainer.text_needs_image else trainer.text_features()
        leaf = None if text is None else text.detach().requires_grad_(text.requires_grad)
        sums = _Sums(trainer, [*weights, *([] if leaf is None else [leaf])])
        with nullcontext() if leaf is None else trainer.fixed_classes(leaf):
            for part in parts:
                sums.add(part, len(part.labels) / len(batch.labels))
        if text is not None and leaf is not None:
            sums.through(text, leaf, weights)
    ranks.add_gradients(weights)
    trainer.guide_gradients = {name: ranks.add(sums.guides[name][: len(weights)]) for name in trainer.guides}
    return sums.totals()


class _Sums:
    """Gradients, terms and accuracy, added up over parts.

    Attributes:
        guides: For each name in ``trainer.guides`` the gradients by the targets.
    """

    def __init__(self, trainer: PromptTrainer, targets: Sequence[Tensor]):
        self.trainer = trainer
        self.targets = targets
        self.guides = {name: [torch.zeros_like(target) for target in targets] for name in trainer.guides}
        self.terms: dict[str, float] = {}
        self.accuracy: float | None = None

    def add(self, part: Batch, portion: float) -> None:
        """Backpropagate a part's losses, times its portion of the whole batch."""
        trainer = self.trainer
        trainer.batch_accuracy = None
        with autocast(trainer.precision, trainer.device):
            losses = trainer.losses(part)
        for name in trainer.guides:
            self._guide(name, losses.pop(name) * portion, self.targets)
        values = {name: term.item() * portion for name, term in losses.items()}
        loss = torch.as_tensor(sum(losses.values())) * portion
        if loss.requires_grad and all(map(math.isfinite, values.values())):
            trainer.scaled(loss).backward()
        for name, value in values.items():
            self.terms[name] = self.terms.get(name, 0.0) + value
        if trainer.batch_accuracy is not None:
            self.accuracy = (self.accuracy or 0.0) + trainer.batch_accuracy * portion

    def through(self, text: Tensor, leaf: Tensor, weights: Sequence[Tensor]) -> None:
        """Take the gradients by the class texts through the text tower.

        Args:
            text: The class texts, with their graph.
            leaf: The same without it; holds the gradient that the parts have added up.
            weights: The learner's.
        """
        if not text.requires_grad:
            return
        for name in self.trainer.guides:
            gradient = self.guides[name][-1]
            found = torch.autograd.grad(text, weights, gradient, retain_graph=True, allow_unused=True)
            self._add(name, found)
        if leaf.grad is not None:
            text.backward(leaf.grad)

    def _guide(self, name: str, term: Tensor, targets: Sequence[Tensor]) -> None:
        self._add(name, torch.autograd.grad(self.trainer.scaled(term), targets, retain_graph=True, allow_unused=True))

    def _add(self, name: str, found: Sequence[Tensor | None]) -> None:
        for total, gradient in zip(self.guides[name], found):
            if gradient is not None:
                total += gradient

    def totals(self) -> Totals:
        """Return terms and accuracy over all processes."""
        names = list(self.terms)
        *values, accuracy = ranks.total([*self.terms.values(), self.accuracy or 0.0])
        return Totals(dict(zip(names, values)), None if self.accuracy is None else accuracy)


def views_at_once(trainer: PromptTrainer, batch: Batch) -> int:
    """Return how many views of images are taken at a time, as TRAIN.MICRO_BATCH says; 0 for all.

    ``auto`` takes as many as fit into half of the memory that is free at the first step.
    """
    asked = trainer.cfg.TRAIN.get("MICRO_BATCH") or 0  # the key that a host's config lacks
    if asked != "auto":
        return int(asked)
    if trainer.auto_micro_batch is None:
        sizes = trainer.anatomy
        size = 2 if trainer.precision != "fp32" else 4
        need = (sizes.patches + 16) * sizes.vision_width * sizes.vision_layers
        if trainer.text_needs_image:
            need += len(trainer.classnames) * 32 * sizes.text_width * sizes.text_layers
        free = free_memory_mb(trainer.device) * 2**20 * SHARE_OF_FREE_MEMORY
        trainer.auto_micro_batch = max(batch.views, int(free / (need * FLOATS_WITH_GRAPH * size)))
    return trainer.auto_micro_batch
