"""IVLP: independent deep prompts in both towers (the baseline of MaPLe, CVPR 2023, and PromptSRC, ICCV 2023)."""

from __future__ import annotations

from typing import List, Tuple

import torch
from torch import Tensor, nn

from ..clip_patches import encoders
from ..clip_patches.class_texts import fill
from ..clip_patches.loading import tokenize
from .base import PromptTrainer, unit


class DeepPrompts(nn.Module):
    """Prompt tokens of every prompted layer of both towers, independent of each other.

    Args:
        clip: Stock CLIP; gives widths and depths.
        ctx: Start of the text prompts of layer 1, (n, D).
        n_vision: Vision prompts a layer.
        depth_text: Prompted text layers, 1 to L; -1 for all.
        depth_vision: Prompted vision layers, 0 to L; -1 for all.

    Raises:
        ValueError: A depth outside what the towers have, or vision prompts for a ResNet.
    """

    def __init__(self, clip: nn.Module, ctx: Tensor, n_vision: int, depth_text: int, depth_vision: int):
        super().__init__()
        depth_text = check_depth("text", depth_text, len(clip.transformer.resblocks), 1)
        vit = encoders.is_vit(clip)
        depth_vision = check_depth("vision", depth_vision, len(clip.visual.transformer.resblocks) if vit else 0, 0)
        width = clip.visual.class_embedding.shape[0] if vit else 0
        self.ctx = nn.Parameter(ctx.detach().float().clone())
        self.deep_text = nn.ParameterList(0.02 * torch.randn(ctx.shape) for _ in range(depth_text - 1))
        self.deep_vision = nn.ParameterList(0.02 * torch.randn(n_vision, width) for _ in range(depth_vision))

    def forward(self) -> Tuple[List[Tensor], List[Tensor]]:
        """Return the prompts of the text layers, each (n, D_t), and of the vision layers, each (n_vision, D_v)."""
        return [self.ctx, *self.deep_text], list(self.deep_vision)


def check_depth(tower: str, depth: int, layers: int, least: int) -> int:
    """Return the number of prompted layers, -1 meaning all; raise ``ValueError`` outside [least, layers]."""
    if depth == -1:
        return layers
    if not least <= depth <= layers:
        why = (
            "a ResNet visual tower takes no prompts"
            if layers == 0
            else f"the backbone's {tower} tower has {layers} layers"
        )
        raise ValueError(
            f"prompt depth {depth} ({tower}) is not possible: {why}; allowed are {least} to {layers}, or -1 for all"
        )
    return depth


def context_from_words(clip: nn.Module, words: str, n_ctx: int) -> Tensor:
    """Return the token embeddings at positions 1..n_ctx of a tokenised text, (n_ctx, D).

    Past the last word these are EOT's and the padding's embeddings, as in the official code.
    """
    return clip.token_embedding(tokenize([words])[:, 1 : 1 + n_ctx].to(clip.token_embedding.weight.device))[0]


class IVLP(PromptTrainer):
    """Learn deep prompts in both towers by cross-entropy alone."""

    options = {
        "N_CTX_VISION": 2,
        "N_CTX_TEXT": 2,
        "CTX_INIT": "a photo of a",
        "PREC": "fp16",
        "PROMPT_DEPTH_VISION": 9,
        "PROMPT_DEPTH_TEXT": 9,
    }
    checkpoint_folder = "VLPromptLearner"
    official_names = (
        (r"prompt_learner\.ctx", "ctx"),
        (r"image_encoder\.VPT", "deep_vision.0"),
        (r"image_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow", r"deep_vision.\1"),
        *((rf"text_encoder\.transformer\.resblocks\.{i}\.VPT_shallow", f"deep_text.{i - 1}") for i in range(1, 64)),
    )

    def build_learner(self):
        """See :meth:`PromptTrainer.build_learner`."""
        s = self.settings
        ctx = self.write_sentences(s.N_CTX_TEXT)
        return DeepPrompts(self.clip, ctx, s.N_CTX_VISION, s.PROMPT_DEPTH_TEXT, s.PROMPT_DEPTH_VISION)

    def write_sentences(self, n_ctx: int) -> Tensor:
        """Write the class sentences without their first ``n_ctx`` words, whose place the prompts take.

        Returns:
            Start of the prompts of layer 1: those words' embeddings, or noise where CTX_INIT has too few; (n_ctx, D).
        """
        words = self.settings.CTX_INIT
        if words and n_ctx <= 4:
            ctx = context_from_words(self.clip, words, n_ctx)
        else:
            words, ctx = " ".join(["X"] * n_ctx), 0.02 * torch.randn(n_ctx, self.clip.token_embedding.embedding_dim)
        self.sentences = encoders.embed_tokens(self.clip, tokenize(fill(words + " {}.", self.classnames)), skip=n_ctx)
        return ctx

    def text_features(self):
        """See :meth:`PromptTrainer.text_features`."""
        return unit(encoders.encode_text(self.clip, self.sentences, self.learner()[0]))

    def image_features(self, images):
        """See :meth:`PromptTrainer.image_features`."""
        return unit(encoders.encode_image(self.clip, images, self.learner()[1]))
