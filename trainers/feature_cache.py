"""Frozen features that are the same in every epoch, computed once per training image."""
from __future__ import annotations

from typing import Callable, Optional

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
