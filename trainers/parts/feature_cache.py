"""Frozen features that are the same in every epoch, computed once per training image, or once per view of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import ranks


class FeatureCache:
    """Keep one feature vector per training image, in fp32, on the device that computed it.

    Args:
        size: Number of training images.
    """

    def __init__(self, size: int):
        self.size = size
        self.known = torch.zeros(size, dtype=torch.bool)
        self.features: Tensor | None = None  # (size, d), filled as images come by
        self._shared = torch.zeros(size, dtype=torch.bool)

    def get_or_compute(self, index: Tensor | None, compute: Callable[[Tensor | slice], Tensor]) -> Tensor:
        """Return the features of a batch, from the cache where present.

        Args:
            index: Positions of the images in the training list, (B,); None computes without keeping.
            compute: Takes a boolean choice of rows of the batch, or a slice for all, and returns their features.

        Returns:
            (B, d).
        """
        if index is None:
            return compute(slice(None))
        index = index.cpu()
        new = ~self.known[index]
        features = self.features
        if features is None or bool(new.any()):
            computed = compute(new)
            if features is None:
                features = self.features = computed.new_empty(self.size, computed.shape[1])
            features[index[new]] = computed
            self.known[index[new]] = True
        return features[index]

    def share(self) -> None:
        """Give the features that this process has computed to the others, and take theirs."""
        if ranks.count() == 1 or self.features is None:
            return
        rows = (self.known & ~self._shared).nonzero().flatten().to(self.features.device)
        everyones, features = ranks.gather(rows), ranks.gather(self.features[rows])
        self.features[everyones] = features
        self.known[everyones.cpu()] = True
        self._shared = self.known.clone()

    def state_dict(self) -> dict:
        """Return the kept features, so that a resumed run uses the same bits."""
        return {"known": self.known, "features": self.features}

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`."""
        self.known, self.features = state["known"], state["features"]
        self._shared = self.known.clone()


class ViewCache:
    """Keep the results of a frozen pass over a few augmented views of every training image; epochs take turns.

    Args:
        images: Number of training images.
        views: Views kept of each, V.
        shapes: Shapes of the tensors that the pass returns for one image.
        limit_mb: Most memory that the cache may take, MiB.

    Raises:
        ValueError: The cache would take more.
    """

    def __init__(self, images: int, views: int, shapes: Sequence[Sequence[int]], limit_mb: int):
        self.views = views
        self.shapes = [torch.Size(shape) for shape in shapes]
        need = images * views * sum(shape.numel() for shape in self.shapes) * 4 / 2**20
        if need > limit_mb:
            raise ValueError(
                f"keeping {views} views of {images} images takes {need:.0f} MiB of memory, above the limit of "
                f"{limit_mb}; keep fewer views (CACHE_VIEWS) or raise the limit (CACHE_MB)"
            )
        self._flat = FeatureCache(images * views)

    def get_or_compute(
        self, epoch: int, index: Tensor, images: Tensor, compute: Callable[[Tensor], Sequence[Tensor]]
    ) -> list[Tensor]:
        """Return the frozen pass over a batch's views, from the cache where present.

        Args:
            epoch: Chooses the view.
            index: Positions of the images in the training list, (B,).
            images: The batch, view-major, (views * B, 3, H, W); only views that are not known are computed.
            compute: The frozen pass: images to tensors of the known shapes.
        """
        per_image = len(images) // len(index)
        view = (epoch * per_image + torch.arange(per_image)).repeat_interleave(len(index)) % self.views
        rows = index.cpu().repeat(per_image) * self.views + view

        def compute_flat(new: Tensor | slice) -> Tensor:
            return torch.cat([part.flatten(1) for part in compute(images[new])], dim=1)

        flat = self._flat.get_or_compute(rows, compute_flat)
        parts = flat.split([shape.numel() for shape in self.shapes], dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, self.shapes)]

    def share(self) -> None:
        """See :meth:`FeatureCache.share`."""
        self._flat.share()

    def state_dict(self) -> dict:
        """Return the kept features, so that a resumed run uses the same bits."""
        return self._flat.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`."""
        self._flat.load_state_dict(state)
