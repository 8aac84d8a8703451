"""MaPLe: visual prompts as linear images of the text prompts (Khattak et al., CVPR 2023)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..clip_patches.anatomy import anatomy
from ..clip_patches.stock import CLIP
from .ivlp import IVLP
from .parts.prompts import check_depth


class CoupledPrompts(nn.Module):
    """Text prompts of every prompted layer, and one linear map a layer to the vision tower.

    Args:
        clip: Stock CLIP with a ViT visual tower.
        ctx: Start of the text prompts of layer 1, (n, D_t).
        depth: Prompted layers of both towers, 1 to the shallower tower's depth; -1 for that.
    """

    def __init__(self, clip: CLIP, ctx: Tensor, depth: int):
        super().__init__()
        sizes = anatomy(clip)
        depth = check_depth("both", depth, min(sizes.vision_layers, sizes.text_layers), 1)
        widths = ctx.shape[1], sizes.vision_width
        self.ctx = nn.Parameter(ctx.detach().float().clone())
        self.proj = nn.Linear(*widths)
        self.compound_prompts_text = nn.ParameterList(0.02 * torch.randn(ctx.shape) for _ in range(depth - 1))
        single = nn.Linear(*widths)
        self.compound_prompt_projections = nn.ModuleList(copy.deepcopy(single) for _ in range(depth - 1))

    def forward(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the prompts of the text layers, each (n, D_t), and of the vision layers, each (n, D_v)."""
        deep = list(self.compound_prompts_text)
        text = [self.ctx, *deep]
        vision = [self.proj(self.ctx), *(project(p) for project, p in zip(self.compound_prompt_projections, deep))]
        return text, vision


class MaPLe(IVLP):
    """Learn coupled deep prompts by cross-entropy; the prompts replace the sentence's first words."""

    options = {"N_CTX": 2, "CTX_INIT": "a photo of a", "PREC": "fp16", "PROMPT_DEPTH": 9}
    checkpoint_folder = "MultiModalPromptLearner"
    official_names = ((r"prompt_learner\.(ctx|(proj|compound_prompts_text|compound_prompt_projections)\..+)", r"\1"),)

    def build_learner(self) -> CoupledPrompts:
        """Write the class sentences; start the prompts of layer 1 from the words that they replace."""
        return CoupledPrompts(self.clip, self.write_sentences(self.settings.N_CTX), self.settings.PROMPT_DEPTH)
