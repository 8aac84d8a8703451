"""OpenAI's CLIP as types: the modules of ``clip.model`` under their names, for annotations only.

`loading.py` builds the models; nothing instantiates these classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MLP(nn.Sequential):
    """The feed-forward part of a block."""

    c_fc: nn.Linear
    gelu: nn.Module
    c_proj: nn.Linear


class Block(nn.Module):
    """A residual attention block."""

    attn: nn.MultiheadAttention
    mlp: MLP
    ln_1: nn.LayerNorm
    ln_2: nn.LayerNorm


class Transformer(nn.Module):
    """The blocks of a tower, in order."""

    resblocks: Sequence[Block]


class VisionTower(nn.Module):
    """A ViT; of these, a ResNet tower has ``input_resolution`` alone."""

    input_resolution: int
    conv1: nn.Conv2d
    class_embedding: Tensor
    positional_embedding: Tensor
    ln_pre: nn.LayerNorm
    transformer: Transformer
    ln_post: nn.LayerNorm
    proj: Tensor


class CLIP(nn.Module):
    """The two towers and what joins them."""

    visual: VisionTower
    context_length: int
    token_embedding: nn.Embedding
    positional_embedding: Tensor
    transformer: Transformer
    ln_final: nn.LayerNorm
    text_projection: Tensor
    logit_scale: Tensor
    dtype: torch.dtype
