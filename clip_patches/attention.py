"""Attention masks, and one CLIP block computed only for the tokens whose new state is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .autocast_weights import cast_once
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
    k, v = _project(block, x, "kv")
    return k, v


def queries_keys_values(block: Block, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Project tokens that attend and are attended to; three tensors, each (..., T, D)."""
    q, k, v = _project(block, x, "qkv")
    return q, k, v


def queries(block: Block, x: Tensor) -> Tensor:
    """Project tokens that only attend; (..., T, D)."""
    return _project(block, x, "q")[0]


def _project(block: Block, x: Tensor, names: str) -> Sequence[Tensor]:
    """Return some neighbours of queries, keys and values, "q", "kv" or "qkv", each (..., T, D)."""
    first, width, x = "qkv".index(names), x.shape[-1], block.ln_1(x)
    rows = slice(first * width, (first + len(names)) * width)
    weight = cast_once(block.attn.in_proj_weight)[rows]
    projected = F.linear(x, weight, block.attn.in_proj_bias[rows]).chunk(len(names), dim=-1)
    paths = paths_of(block)
    return [beside(paths, name, x, y) for name, y in zip(names, projected)] if paths else projected


def paths_of(block: Block) -> Mapping[str, Any]:
    """Return the low-rank paths beside a block's projections; see `low_rank.py`. Stock blocks have none."""
    return vars(block.attn).get("paths", {})


def draws(block: Block) -> bool:
    """Tell whether a block drops entries at random, so that equal tokens of two sequences do not stay equal."""
    return any(path.draws for path in paths_of(block).values())


def beside(paths: Mapping[str, Any], name: str, x: Tensor, projected: Tensor) -> Tensor:
    """Add what the path of a projection makes of its input, if there is one."""
    return projected + paths[name](x).to(projected.dtype) if name in paths else projected


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Return what each query takes from the values, (N, Tq, D); arguments as for :func:`finish_block`."""
    q, k, v = (y.unflatten(-1, (heads, -1)).transpose(-3, -2) for y in (q, k, v))  # (N, heads, T, D / heads)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(-3, -2).flatten(-2)


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
    out, projection = attend(q, k, v, block.attn.num_heads, mask), block.attn.out_proj
    x = x + beside(paths_of(block), "o", out, F.linear(out, cast_once(projection.weight), projection.bias))
    return x + feed_forward(block, block.ln_2(x))


def feed_forward(block: Block, x: Tensor) -> Tensor:
    """Return what the MLP of a block makes of its input; (..., D).

    QuickGELU, ``h * sigmoid(1.702 h)``, is ``silu(1.702 h) / 1.702``: one kernel, which keeps one tensor for the
    backward pass where the product keeps two.
    """
    first, second = block.mlp.c_fc, block.mlp.c_proj
    hidden = F.linear(x, cast_once(first.weight), first.bias)
    is_quick = type(block.mlp.gelu).__name__ == "QuickGELU"  # by name: checkouts bring copies of CLIP's class
    hidden = quick_gelu(hidden) if is_quick else block.mlp.gelu(hidden)
    return F.linear(hidden, cast_once(second.weight), second.bias)


def quick_gelu(h: Tensor) -> Tensor:
    """Return QuickGELU of a tensor that nobody else reads: its memory is used."""
    return F.silu(h.mul_(1.702)).mul_(1 / 1.702)
