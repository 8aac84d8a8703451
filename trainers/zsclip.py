"""ZeroshotCLIP: CLIP with the data set's hand-written prompt (Radford et al., ICML 2021)."""

from __future__ import annotations

from ..clip_patches.class_texts import class_anchors, fill
from .base import PromptTrainer


class ZeroshotCLIP(PromptTrainer):
    """Classify by the cosine between image and prompted class name; nothing is learned."""

    options = {"PREC": "fp32"}

    def build_learner(self):
        """Keep the class features; there is nothing to learn."""
        self.anchors = class_anchors(self.clip, [[s] for s in fill(self.template, self.classnames)])

    def text_features(self):
        """See :meth:`PromptTrainer.text_features`."""
        return self.anchors
