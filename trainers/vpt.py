"""VPT: deep visual prompts alone (the baseline of MaPLe, CVPR 2023, after Jia et al., ECCV 2022)."""

from __future__ import annotations

from torch import Tensor

from ..allowed import Whole
from ..clip_patches import encoders
from ..clip_patches.class_texts import class_anchors, fill
from .base import PromptTrainer, unit
from .ivlp import IVLP
from .parts.options import LAYERS
from .parts.prompts import VisionPrompts, context_words


class VPT(PromptTrainer):
    """Learn visual prompts by cross-entropy against frozen class texts."""

    options = {"N_CTX_VISION": 8, "CTX_INIT": "a photo of a", "PREC": "fp16", "PROMPT_DEPTH_VISION": 12}
    allowed = {"PROMPT_DEPTH_VISION": Whole("prompted layers of the vision tower; -1: all", 1, LAYERS, (-1,))}
    official_names = IVLP.official_names[1:3]  # the vision tower's

    def build_learner(self) -> VisionPrompts:
        """Compute the frozen class texts; build the prompts."""
        s = self.settings
        sentences = fill(f"{context_words(s.CTX_INIT)} {{}}.".strip(), self.classnames)
        self.text_anchors = class_anchors(self.clip, [[sentence] for sentence in sentences])
        return VisionPrompts(self.clip, s.N_CTX_VISION, s.PROMPT_DEPTH_VISION)

    def text_features(self) -> Tensor:
        """Return the frozen class texts, (C, d)."""
        return self.text_anchors

    def image_features(self, images: Tensor) -> Tensor:
        """Return the features of the prompted images, normalised, (B, d)."""
        return unit(encoders.encode_image(self.clip, images, list(self.learner.deep_vision)))
