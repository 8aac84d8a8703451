"""VPT: deep visual prompts alone (the baseline of MaPLe, CVPR 2023, after Jia et al., ECCV 2022)."""

from __future__ import annotations

import torch
from torch import nn

from ..clip_patches import encoders
from ..clip_patches.class_texts import class_anchors, fill
from .base import PromptTrainer, unit
from .ivlp import IVLP, check_depth


class VisionPrompts(nn.Module):
    """Prompt tokens of every prompted vision layer, each (n, D_v)."""

    def __init__(self, clip: nn.Module, n: int, depth: int):
        super().__init__()
        depth = check_depth("vision", depth, len(clip.visual.transformer.resblocks) if encoders.is_vit(clip) else 0, 1)
        self.deep_vision = nn.ParameterList(
            0.02 * torch.randn(n, clip.visual.class_embedding.shape[0]) for _ in range(depth)
        )


class VPT(PromptTrainer):
    """Learn visual prompts by cross-entropy against frozen class texts."""

    options = {"N_CTX_VISION": 8, "CTX_INIT": "a photo of a", "PREC": "fp16", "PROMPT_DEPTH_VISION": 12}
    official_names = IVLP.official_names[1:3]  # the vision tower's

    def build_learner(self):
        """Keep the frozen class texts."""
        s = self.settings
        self.text_anchors = class_anchors(
            self.clip, [[t] for t in fill(f"{s.CTX_INIT} {{}}.".strip(), self.classnames)]
        )
        return VisionPrompts(self.clip, s.N_CTX_VISION, s.PROMPT_DEPTH_VISION)

    def text_features(self):
        """See :meth:`PromptTrainer.text_features`."""
        return self.text_anchors

    def image_features(self, images):
        """See :meth:`PromptTrainer.image_features`."""
        return unit(encoders.encode_image(self.clip, images, list(self.learner.deep_vision)))
