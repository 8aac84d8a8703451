"""The values that a trainer works on: a batch of training images, a task without images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """A training batch on the device.

    Attributes:
        images: Views of the images, view-major (all first views, then all second ones), (views * B, 3, H, W).
        labels: Their labels, (views * B,).
        views: Random augmentations per image (DATALOADER.K_TRANSFORMS).
        img0: The images without augmentation, (B, 3, H, W); None unless DATALOADER.RETURN_IMG0.
        index: Their positions in the training list, (B,); None where the loader does not return them.
        prepared: What the method's ``prepare_parts`` has found out about the whole batch, for this part of it.
    """

    images: Tensor
    labels: Tensor
    views: int
    img0: Tensor | None
    index: Tensor | None
    prepared: Any = None

    @property
    def count(self) -> int:
        """Number of images, B; views of the same image count once."""
        return len(self.labels) // self.views

    def take(self, rows: slice) -> Batch:
        """Return the batch of some of the images, with all their views."""
        if rows == slice(0, self.count):
            return self
        return replace(
            self,
            images=self.images.unflatten(0, (self.views, -1))[:, rows].flatten(0, 1),
            labels=self.labels.unflatten(0, (self.views, -1))[:, rows].flatten(),
            img0=None if self.img0 is None else self.img0[rows],
            index=None if self.index is None else self.index[rows],
        )

    def split(self, views: int) -> list[Batch]:
        """Cut the batch into parts of at most ``views`` views, but at least one image; 0 leaves it whole."""
        step = max(1, views // self.views) if views else self.count
        return [self.take(slice(start, min(start + step, self.count))) for start in range(0, self.count, step)]


class Task(NamedTuple):
    """Class names and template: enough to build a model without a data set.

    Attributes:
        classnames: In order of the labels.
        template: The hand-written prompt, with ``{}`` for the class name.
        train_x: The training images: none.
    """

    classnames: Sequence[str]
    template: str
    train_x: Sequence = ()
