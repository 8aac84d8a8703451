"""ZeroshotCLIP: CLIP with the data set's hand-written prompt (Radford et al., ICML 2021)."""

from __future__ import annotations

from torch import Tensor

from ..clip_patches.class_texts import class_anchors, fill
from .base import PromptTrainer


class ZeroshotCLIP(PromptTrainer):
    """Classify by the cosine between image and prompted class name; nothing is learned."""

    options = {"PREC": "fp32"}

    def build_learner(self) -> None:
        """Compute the frozen class texts; there is nothing to learn."""
        sentences = fill(self.template, self.classnames)
        self.text_anchors = class_anchors(self.clip, [[sentence] for sentence in sentences])

    def text_features(self) -> Tensor:
        """Return the frozen class texts, (C, d)."""
        return self.text_anchors
