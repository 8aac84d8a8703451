"""Low-rank paths beside the attention projections of a CLIP that itself stays as it is.

A path adds ``scale * B A drop(x)`` to a projection of x. :func:`with_paths` shows a CLIP with such paths to the
functions of `encoders.py` and `plain.py`; nothing of the CLIP is changed or copied. Where dropout is off,
:func:`merged` shows it with ``W + scale * B A`` in place of W, which costs what stock CLIP costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .anatomy import is_vit
from .attention import attend, beside
from .stock import CLIP, Block

PROJECTIONS = ("q", "k", "v", "o")  # queries, keys, values, and the output of the attention


class LowRankPath(nn.Module):
    """The path beside one projection; its start, B = 0, changes nothing.

    Args:
        width: Width of the tower, D.
        rank: Rows of A, r.
        scale: Factor on the path.
        dropout: Share of the entries of x that are dropped in training.
        passes_gradient: Whether the input gets the gradient of the path, as it does in the true derivative.
    """

    def __init__(self, width: int, rank: int, scale: float, dropout: float, passes_gradient: bool = True):
        super().__init__()
        self.A = nn.Parameter(torch.empty(rank, width))
        self.B = nn.Parameter(torch.zeros(width, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.scale, self.dropout, self.passes_gradient = scale, dropout, passes_gradient

    @property
    def draws(self) -> bool:
        """Whether the path drops other entries each time it is taken."""
        return self.training and self.dropout > 0

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to the projection of x, (..., D)."""
        x = F.dropout(x if self.passes_gradient else x.detach(), self.dropout, self.training)
        return self.scale * F.linear(F.linear(x.to(self.A.dtype), self.A), self.B)

    def delta(self) -> Tensor:
        """Return what is added to the weight of the projection, (D, D), fp32."""
        return self.scale * self.B.float() @ self.A.float()


class LowRankPaths(nn.ModuleDict):
    """The paths of some layers of a tower: ``paths["0"]["q"]`` is beside the queries of the first layer.

    Args:
        width: Width of the tower, D.
        layers: Layers with paths, counted from 0.
        projections: Those that have one, of :data:`PROJECTIONS`.
        rank, scale, dropout, passes_gradient: See :class:`LowRankPath`.
    """

    def __init__(self, width: int, layers: Iterable[int], projections: Iterable[str], *args: Any, **kwargs: Any):
        wanted = [name for name in PROJECTIONS if name in set(projections)]
        super().__init__(
            {
                str(layer): nn.ModuleDict({name: LowRankPath(width, *args, **kwargs) for name in wanted})
                for layer in layers
            }
        )


class _With:
    """An object with some of its attributes replaced; the object itself stays as it is."""

    def __init__(self, base: object, **replaced: object):
        self._base = base
        vars(self).update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base, name)


class _Attention(_With):
    """An attention with paths, called as the blocks of CLIP call theirs; every path in the order q, k, v, o."""

    def __call__(self, x: Tensor, *_: Tensor, attn_mask: Tensor | None = None, need_weights: bool = False) -> Any:
        """Attend over x, (T, N, D), a position first."""
        x = x.contiguous()  # dropout is drawn in the order of the memory
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            beside(self.paths, name, x, F.linear(x, weight, bias)).transpose(0, 1)
            for name, weight, bias in zip(PROJECTIONS, weights, biases)
        )
        out = attend(q, k, v, self.num_heads, attn_mask).transpose(0, 1).contiguous()
        return beside(self.paths, "o", out, F.linear(out, self.out_proj.weight, self.out_proj.bias)), None


def with_paths(clip: CLIP, text: Mapping[str, Any], vision: Mapping[str, Any]) -> CLIP:
    """Show a CLIP with the paths of its towers.

    Args:
        clip: Stock CLIP.
        text: Paths of the text tower, see :class:`LowRankPaths`; empty for none.
        vision: Paths of the vision tower, a ViT.
    """

    def show(block: Block, paths: Mapping[str, LowRankPath]) -> object:
        return _With(block, attn=_Attention(block.attn, paths=paths))

    return _show(clip, text, vision, show)


@torch.no_grad()
def merged(clip: CLIP, text: Mapping[str, Any], vision: Mapping[str, Any]) -> CLIP:
    """Show a CLIP with the paths added to copies of its weights, as they are now; arguments as for `with_paths`."""

    def show(block: Block, paths: Mapping[str, LowRankPath]) -> object:
        attn = block.attn
        rows = attn.in_proj_weight.detach().float().clone()
        for part, name in zip(rows.chunk(3), PROJECTIONS):
            if name in paths:
                part += paths[name].delta()
        out = attn.out_proj.weight.detach()
        if "o" in paths:
            out = (out.float() + paths["o"].delta()).to(out.dtype)
        projection = SimpleNamespace(weight=out, bias=attn.out_proj.bias)
        weight = rows.to(attn.in_proj_weight.dtype)
        return _With(block, attn=_Attention(attn, in_proj_weight=weight, out_proj=projection, paths={}))

    return _show(clip, text, vision, show)


def _show(clip: CLIP, text: Mapping[str, Any], vision: Mapping[str, Any], show: Any) -> CLIP:
    """Return a CLIP whose blocks with paths are what ``show`` makes of them."""

    def blocks(tower: Any, paths: Mapping[str, Any]) -> Sequence[Any]:
        return [show(block, paths[str(i)]) if str(i) in paths else block for i, block in enumerate(tower.resblocks)]

    visual: Any = clip.visual
    if is_vit(clip) and vision:
        visual = _With(visual, transformer=_With(visual.transformer, resblocks=blocks(visual.transformer, vision)))
    transformer = _With(clip.transformer, resblocks=blocks(clip.transformer, text))
    return cast(CLIP, _With(clip, transformer=transformer, visual=visual))
