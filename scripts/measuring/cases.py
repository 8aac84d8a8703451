"""What is measured: one training step, and the test of a few images."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from unittest import mock

import torch


class Step:
    """One training step without the optimiser's update, so that both paths see the same weights."""

    def __init__(self, trainer, args, batch):
        size = trainer.anatomy.input_resolution
        torch.manual_seed(1)
        self.trainer, self.images, self.micro_batch = trainer, batch * args.views, args.micro_batch
        trainer.cfg.defrost()
        self.start = copy.deepcopy(trainer.learner.state_dict())
        views = [torch.randn(batch, 3, size, size) for _ in range(args.views)]
        self.batch = {
            "img": views if args.views > 1 else views[0],
            "label": torch.arange(batch) % len(trainer.classnames),
            "img0": torch.randn(batch, 3, size, size),
            "index": torch.arange(batch),
        }

    def __call__(self, keep: bool):
        """Return loss and gradients; ``keep`` lets the trainer use what it keeps between steps."""
        batch = dict(self.batch) if keep else {k: v for k, v in self.batch.items() if k != "index"}
        self.trainer.cfg.TRAIN.MICRO_BATCH = self.micro_batch if keep else None
        self.trainer.set_model_mode("train")
        self.trainer.learner.load_state_dict(self.start)  # a step may write into the learner
        torch.manual_seed(2)  # the same dropout on both paths
        random.seed(2)
        with mock.patch.multiple(self.trainer, model_update=mock.DEFAULT, update_lr=mock.DEFAULT):
            loss = self.trainer.forward_backward(batch)["loss"]
        return torch.tensor(loss), torch.cat(
            [p.grad.flatten().cpu() for p in self.trainer.learner.parameters() if p.grad is not None]
        )

    def difference(self, fast: Sequence, slow: Sequence) -> float:
        """Largest relative difference of loss and gradients."""
        return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(fast, slow))


class Test:
    """The evaluation of a small test set in one batch, the classes' text features included."""

    def __init__(self, trainer, args):
        size = trainer.anatomy.input_resolution
        torch.manual_seed(3)
        self.trainer, self.images = trainer, args.test_images
        self.inputs = torch.randn(args.test_images, 3, size, size).to(args.device)

    @torch.no_grad()
    def __call__(self, keep: bool):
        """Return the logits."""
        self.trainer.set_model_mode("eval")
        with self.trainer.fixed_classes():
            return (self.trainer.model_inference(self.inputs),)

    def difference(self, fast: Sequence, slow: Sequence) -> float:
        """Largest absolute difference of logits."""
        return float((fast[0] - slow[0]).abs().max())
