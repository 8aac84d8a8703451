"""Learned prompts that several methods share, and how they start."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...clip_patches.anatomy import anatomy, token_embeddings, tokenize
from ...clip_patches.class_texts import fill, readable
from ...clip_patches.encoders import Sentences, embed_tokens
from ...clip_patches.stock import CLIP

logger = logging.getLogger(__name__)


def context_words(ctx_init: str | bool | None) -> str:
    """Return the words that a context starts from, with single spaces; empty for a start from noise.

    Args:
        ctx_init: The option CTX_INIT. True is "a photo of a", as KgCoOp's configs have it.
    """
    return "a photo of a" if ctx_init is True else " ".join(readable(ctx_init or "").split())


def count_tokens(clip: CLIP, words: str) -> int:
    """Return the number of tokens of a text, without SOS and EOT; a word may be several."""
    return int(tokenize(clip, [words]).argmax()) - 1  # EOT has the highest id


def context_from_words(clip: CLIP, words: str, n_ctx: int | None = None) -> Tensor:
    """Return the token embeddings at positions 1..n_ctx of a tokenised text, (n_ctx, D_t).

    Past the last word these are the embeddings of EOT and of the padding, as in the official code.

    Args:
        clip: Stock CLIP.
        words: The text.
        n_ctx: Default: all tokens of the text.
    """
    n_ctx = count_tokens(clip, words) if n_ctx is None else n_ctx
    return token_embeddings(clip, tokenize(clip, [words])[:, 1 : 1 + n_ctx])[0]


def prompted_sentences(
    clip: CLIP, ctx_init: str | bool | None, n_ctx: int, classnames: Sequence[str]
) -> tuple[Sentences, Tensor]:
    """Write class sentences without their first ``n_ctx`` tokens, which prompts replace.

    Args:
        clip: Stock CLIP.
        ctx_init: The option CTX_INIT.
        n_ctx: Prompts.
        classnames: Classes in order.

    Returns:
        The sentences, and the start of the prompts of layer 1: those tokens' embeddings, or noise where CTX_INIT has
        too few or ``n_ctx`` is above 4, as in the official code; (n_ctx, D).
    """
    words = context_words(ctx_init)
    if words and n_ctx <= min(4, count_tokens(clip, words)):
        ctx = context_from_words(clip, words, n_ctx)
    else:
        if words:
            logger.info("%d prompts start from noise: CTX_INIT %r is not for as many", n_ctx, words)
        words = " ".join(["X"] * n_ctx)
        ctx = 0.02 * torch.randn(n_ctx, anatomy(clip).text_width)
    return embed_tokens(clip, tokenize(clip, fill(words + " {}.", classnames)), skip=n_ctx), ctx


def check_depth(tower: str, depth: int, layers: int, least: int) -> int:
    """Return the number of prompted layers.

    Args:
        tower: Name of the tower, for the error.
        depth: Depth asked for; -1 for all layers.
        layers: Layers of the tower; 0 for a ResNet.
        least: Smallest depth allowed.

    Raises:
        ValueError: A depth outside ``least`` to ``layers``.
    """
    if depth == -1 and layers:
        return layers
    if not least <= depth <= layers:
        why = (
            "a ResNet visual tower takes no prompts"
            if layers == 0
            else f"the backbone's {tower} tower has {layers} layers"
        )
        allowed = f"{least} to {layers}, or -1 for all" if layers else "0 in this tower: use a ViT backbone, or that"
        raise ValueError(f"prompt depth {depth} ({tower}) is not possible: {why}; allowed are {allowed}")
    return depth


class Context(nn.Module):
    """A context of class sentences: (n, D_t) for all classes, or (C, n, D_t) for each."""

    def __init__(self, ctx: Tensor):
        super().__init__()
        self.ctx = nn.Parameter(ctx.detach().float().clone())


class VisionPrompts(nn.Module):
    """Prompt tokens of every prompted vision layer, each (n, D_v).

    Args:
        clip: Stock CLIP with a ViT visual tower.
        n: Prompts a layer.
        depth: Prompted vision layers, 1 to L; -1 for all.

    Raises:
        ValueError: A depth that the tower does not have, or a ResNet.
    """

    def __init__(self, clip: CLIP, n: int, depth: int):
        super().__init__()
        sizes = anatomy(clip)
        depth = check_depth("vision", depth, sizes.vision_layers, 1)
        self.deep_vision = nn.ParameterList(0.02 * torch.randn(n, sizes.vision_width) for _ in range(depth))


class DeepPrompts(nn.Module):
    """Prompt tokens of every prompted layer of both towers, independent of each other.

    Args:
        clip: Stock CLIP.
        ctx: Start of the text prompts of layer 1, (n, D_t).
        n_vision: Vision prompts a layer.
        depth_text: Prompted text layers, 1 to L; -1 for all.
        depth_vision: Prompted vision layers, 0 to L; -1 for all.

    Raises:
        ValueError: A depth that a tower does not have, or vision prompts for a ResNet.
    """

    def __init__(self, clip: CLIP, ctx: Tensor, n_vision: int, depth_text: int, depth_vision: int):
        super().__init__()
        sizes = anatomy(clip)
        depth_text = check_depth("text", depth_text, sizes.text_layers, 1)
        depth_vision = check_depth("vision", depth_vision, sizes.vision_layers, 0)
        self.ctx = nn.Parameter(ctx.detach().float().clone())
        self.deep_text = nn.ParameterList(0.02 * torch.randn(ctx.shape) for _ in range(depth_text - 1))
        self.deep_vision = nn.ParameterList(
            0.02 * torch.randn(n_vision, sizes.vision_width) for _ in range(depth_vision)
        )

    def forward(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the prompts of the text layers, each (n, D_t), and of the vision layers, each (n_vision, D_v)."""
        return [self.ctx, *self.deep_text], list(self.deep_vision)
