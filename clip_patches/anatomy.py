"""The questions that a method may ask of a CLIP: its sizes, its tokenizer, its temperature.

Code outside this package asks here and never reads the parts of a CLIP itself, so that support for another family of
CLIPs means answering these questions (and running its blocks in `encoders.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from . import loading
from .stock import CLIP, VisionTower


@dataclass(frozen=True)
class Anatomy:
    """Sizes of a CLIP. A ResNet visual tower has no layers to prompt: its layers, width and patches are 0.

    Attributes:
        text_layers: Layers of the text tower.
        text_width: Width of the text tower, D_t.
        vision_layers: Layers of the vision tower.
        vision_width: Width of the vision tower, D_v.
        patches: Patches of an image, P.
        joint_width: Width of the joint space, d.
        input_resolution: Height and width of an image in pixels.
        context_length: Most tokens of a text, SOS and EOT included.
    """

    text_layers: int
    text_width: int
    vision_layers: int
    vision_width: int
    patches: int
    joint_width: int
    input_resolution: int
    context_length: int


def anatomy(clip: CLIP) -> Anatomy:
    """Measure a CLIP."""
    vit = is_vit(clip)
    return Anatomy(
        text_layers=len(clip.transformer.resblocks),
        text_width=clip.token_embedding.embedding_dim,
        vision_layers=len(clip.visual.transformer.resblocks) if vit else 0,
        vision_width=clip.visual.class_embedding.shape[0] if vit else 0,
        patches=len(clip.visual.positional_embedding) - 1 if vit else 0,
        joint_width=clip.text_projection.shape[1],
        input_resolution=clip.visual.input_resolution,
        context_length=clip.context_length,
    )


def is_vit(clip: CLIP) -> bool:
    """Tell whether the visual tower is a ViT."""
    return hasattr(clip.visual, "transformer")


def tokenize(clip: CLIP, texts: Iterable[str]) -> Tensor:
    """Tokenise sentences as a CLIP wants them.

    Returns:
        Token ids, padded with 0, (C, context length).

    Raises:
        ValueError: A sentence is longer than CLIP's context.
    """
    return loading.tokenize(texts, clip.context_length)


def token_embeddings(clip: CLIP, tokens: Tensor) -> Tensor:
    """Look up the embeddings of token ids, on CLIP's device; (..., D_t)."""
    return clip.token_embedding(tokens.to(clip.token_embedding.weight.device))


def logit_scale(clip: CLIP) -> Tensor:
    """Return the factor from cosines to logits, fp32."""
    return clip.logit_scale.float().exp()


@torch.no_grad()
def clamp_logit_scale(clip: CLIP, least: float, most: float) -> None:
    """Clamp the factor from cosines to logits in place, for a CLIP that is being trained; ``least`` 0 sets no bound."""
    clip.logit_scale.clamp_(min=math.log(least) if least > 0 else None, max=math.log(most))


def activation(clip: CLIP) -> nn.Module:
    """Return the non-linearity of CLIP's own feed-forward layers."""
    return clip.transformer.resblocks[0].mlp.gelu


def block_norm(clip: CLIP, tower: str, layer: int) -> nn.Module:
    """Return the norm at the input of a block.

    Args:
        clip: Stock CLIP.
        tower: ``visual`` or ``text``.
        layer: 1 to L.
    """
    blocks = (clip.visual if tower == "visual" else clip).transformer.resblocks
    return blocks[layer - 1].ln_1


def vision_projection(clip: CLIP) -> Tensor:
    """Return the projection from a ViT's tokens to the joint space, (D, d)."""
    return clip.visual.proj


def vision_tower(clip: CLIP) -> VisionTower:
    """Return the visual tower as a module, for an exporter that needs to hold its weights."""
    return clip.visual
