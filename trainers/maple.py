"""MaPLe: visual prompts as linear images of the text prompts (Khattak et al., CVPR 2023)."""

from __future__ import annotations

import copy
from typing import List, Tuple

import torch
from torch import Tensor, nn

from ..clip_patches import encoders
from .ivlp import IVLP, check_depth


class CoupledPrompts(nn.Module):
    """Text prompts of every prompted layer, and one linear map a layer to the vision tower.

    Args:
        clip: Stock CLIP with a ViT visual tower.
        ctx: Start of the text prompts of layer 1, (n, D_t).
        depth: Prompted layers of both towers, 1 to the shallower tower's depth; -1 for that.
    """

    def __init__(self, clip: nn.Module, ctx: Tensor, depth: int):
        super().__init__()
        vision_layers = len(clip.visual.transformer.resblocks) if encoders.is_vit(clip) else 0
        depth = check_depth("both", depth, min(vision_layers, len(clip.transformer.resblocks)), 1)
        widths = ctx.shape[1], clip.visual.class_embedding.shape[0]
        self.ctx = nn.Parameter(ctx.detach().float().clone())
        self.proj = nn.Linear(*widths)
        self.compound_prompts_text = nn.ParameterList(0.02 * torch.randn(ctx.shape) for _ in range(depth - 1))
        single = nn.Linear(*widths)
        self.compound_prompt_projections = nn.ModuleList(copy.deepcopy(single) for _ in range(depth - 1))

    def forward(self) -> Tuple[List[Tensor], List[Tensor]]:
        """Return the prompts of the text layers, each (n, D_t), and of the vision layers, each (n, D_v)."""
        text = list(self.compound_prompts_text)
        return (
            [self.ctx, *text],
            [self.proj(self.ctx), *(project(p) for project, p in zip(self.compound_prompt_projections, text))],
        )


class MaPLe(IVLP):
    """Learn coupled deep prompts by cross-entropy; the prompts take the place of the sentence's first words."""

    options = {"N_CTX": 2, "CTX_INIT": "a photo of a", "PREC": "fp16", "PROMPT_DEPTH": 9}
    checkpoint_folder = "MultiModalPromptLearner"
    official_names = ((r"prompt_learner\.(ctx|(proj|compound_prompts_text|compound_prompt_projections)\..+)", r"\1"),)

    def build_learner(self):
        """See :meth:`PromptTrainer.build_learner`."""
        return CoupledPrompts(self.clip, self.write_sentences(self.settings.N_CTX), self.settings.PROMPT_DEPTH)
