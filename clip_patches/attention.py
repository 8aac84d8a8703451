"""Attention masks, and one CLIP block computed only for the tokens whose new state is needed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .stock import Block


def causal_mask(length: int, device: torch.device | None = None) -> Tensor:
    """Build the mask of a text tower.

    Returns:
        (length, length), True where the row's token may attend to the column's.
    """
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def precontext_mask(n_patches: int, n_centers: int, n_prompts: int, device: torch.device | None = None) -> Tensor:
    """Build TAC's vision mask: patches do not attend to the task-aware pre-context.

    The tokens are ordered ``[CLS][patches][pre-context][prompts]``. CLS, the pre-context and the prompts see everything
    (TAC, CVPR 2025, section on masked attention).

    Returns:
        (N, N) with N = 1 + n_patches + n_centers + n_prompts, True where the row's token may attend to the column's.
    """
    n = 1 + n_patches + n_centers + n_prompts
    mask = torch.ones(n, n, dtype=torch.bool, device=device)
    mask[1 : 1 + n_patches, 1 + n_patches : 1 + n_patches + n_centers] = False
    return mask


def keys_values(block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    """Project tokens that are only attended to.

    Args:
        block: One of CLIP's residual attention blocks.
        x: Token states at the block's input, (..., T, D).

    Returns:
        Keys and values, each (..., T, D).
    """
    width = x.shape[-1]
    weight, bias = block.attn.in_proj_weight[width:], block.attn.in_proj_bias[width:]
    k, v = F.linear(block.ln_1(x), weight, bias).chunk(2, dim=-1)
    return k, v


def queries_keys_values(block: Block, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Project tokens that attend and are attended to; three tensors, each (..., T, D)."""
    q, k, v = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
    return q, k, v


def queries(block: Block, x: Tensor) -> Tensor:
    """Project tokens that only attend; (..., T, D)."""
    width = x.shape[-1]
    return F.linear(block.ln_1(x), block.attn.in_proj_weight[:width], block.attn.in_proj_bias[:width])


def finish_block(block: Block, x: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attend, then add attention and MLP to the residual stream.

    Args:
        block: One of CLIP's residual attention blocks.
        x: States of the querying tokens, (N, Tq, D).
        q: Their queries, (N, Tq, D).
        k: Keys, (N, Tk, D).
        v: Values, (N, Tk, D).
        mask: True where a query may see a key, broadcastable to (N, heads, Tq, Tk); None lets all see all.

    Returns:
        The new states of the querying tokens, (N, Tq, D).
    """
    heads = block.attn.num_heads
    q, k, v = (y.unflatten(-1, (heads, -1)).transpose(-3, -2) for y in (q, k, v))  # (N, heads, T, D / heads)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    x = x + F.linear(out.transpose(-3, -2).flatten(-2), block.attn.out_proj.weight, block.attn.out_proj.bias)
    return x + block.mlp(block.ln_2(x))
