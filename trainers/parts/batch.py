"""The values that a trainer works on: a batch of training images, a task without images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
    """

    images: Tensor
    labels: Tensor
    views: int
    img0: Tensor | None
    index: Tensor | None


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
