"""Frozen features that are the same in every epoch, computed once per training image, or once per view of it."""

from __future__ import annotations

from typing import Callable, Optional, Sequence, Tuple

import torch
from torch import Tensor


class FeatureCache:
    """Keep one feature vector per training image, in fp32 where the features were computed.

    Args:
        size: Number of training images.
    """

    def __init__(self, size: int):
        self.size = size
        self.known = torch.zeros(size, dtype=torch.bool)
        self.features: Optional[Tensor] = None  # (size, d), filled as images come by

    def __call__(self, index: Optional[Tensor], compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the features of a batch.

        Args:
            index: Places of the images in the training list, (B,); None computes without keeping.
            compute: Takes a boolean choice of rows of the batch, or a slice for all, and returns their features.

        Returns:
            (B, d).
        """
        if index is None:
            return compute(slice(None))
        index = index.cpu()
        new = ~self.known[index]
        if bool(new.any()):
            features = compute(new)
            if self.features is None:
                self.features = features.new_empty(self.size, features.shape[1])
            self.features[index[new]] = features
            self.known[index[new]] = True
        return self.features[index]

    def state_dict(self) -> dict:
        """Return what is kept, so that a resumed run goes on with the same bits."""
        return {"known": self.known, "features": self.features}

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`."""
        self.known, self.features = state["known"], state["features"]


class ViewCache(FeatureCache):
    """Keep what a frozen pass says of a few augmented views of every training image; epochs take turns with them.

    Args:
        images: Number of training images.
        views: Views kept of each, V.
        shapes: Shapes of the tensors that the pass gives for one image.
        limit_mb: Most memory that this may come to, MiB.

    Raises:
        ValueError: It would take more.
    """

    def __init__(self, images: int, views: int, shapes: Sequence[Tuple[int, ...]], limit_mb: int):
        super().__init__(images * views)
        self.views, self.shapes = views, [torch.Size(shape) for shape in shapes]
        need = images * views * sum(shape.numel() for shape in self.shapes) * 4 / 2**20
        if need > limit_mb:
            raise ValueError(
                f"keeping {views} views of {images} images takes {need:.0f} MiB of memory, above the limit of {limit_mb}; "
                "keep fewer views (CACHE_VIEWS) or raise the limit (CACHE_MB)"
            )

    def look(
        self, epoch: int, index: Tensor, images: Tensor, compute: Callable[[Tensor], Sequence[Tensor]]
    ) -> Sequence[Tensor]:
        """Return what ``compute`` gives for a batch's images, or what it gave for the views in whose place they come.

        Args:
            epoch: Chooses the view.
            index: Places of the images in the training list, (B,).
            images: The batch, view-major, (views * B, 3, H, W); only what is not known is computed.
            compute: The frozen pass: images to tensors of the known shapes.
        """
        per_image = len(images) // len(index)
        view = (epoch * per_image + torch.arange(per_image)).repeat_interleave(len(index)) % self.views
        rows = index.cpu().repeat(per_image) * self.views + view
        flat = self(rows, lambda new: torch.cat([part.flatten(1) for part in compute(images[new])], dim=1))
        parts = flat.split([shape.numel() for shape in self.shapes], dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, self.shapes)]
