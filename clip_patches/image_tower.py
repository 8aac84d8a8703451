"""The vision tower of a CLIP with inserted tokens; see `encoders.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from .anatomy import is_vit
from .attention import finish_block, keys_values, queries, queries_keys_values
from .blocks import Beside, Prompts, Tower, as_prompts, run_blocks
from .stock import CLIP, VisionTower

Summary = TypeVar("Summary")


def encode_image(
    clip: CLIP,
    images: Tensor,
    prompts: Prompts = (),
    mask: Tensor | None = None,
    *,
    bare: bool = False,
    beside: Beside | None = None,
) -> Tensor:
    """Encode images with prompt tokens appended to the patches.

    Args:
        clip: Stock CLIP; a ResNet visual tower takes no prompts and nothing beside its blocks.
        images: (B, 3, H, W), normalised as CLIP expects them.
        prompts: One entry a layer: a tensor, (E, D) for all images or (B, E, D) for each, a function or None. They get
            no positional embedding; those of layer 1 pass ``ln_pre``.
        mask: (1 + P + E, 1 + P + E) in the order ``[CLS][patches][prompts]``, True where the row may attend to the
            column.
        bare: Prompts of layer 1 do not pass ``ln_pre``; leading entries may be None.
        beside: What is added to each block's output; see :class:`.blocks.Tower`.

    Returns:
        Projected image features, not normalised, (B, d).

    Raises:
        ValueError: Prompts for a ResNet tower, more prompted layers than layers, or tensors that do not fit.
    """
    if not is_vit(clip) and not len(prompts) and beside is None:
        return clip.visual(images.type(clip.dtype))
    x = _run(clip, images, prompts, mask, bare, beside, inserted=False)
    return clip.visual.ln_post(x) @ clip.visual.proj


def encode_image_inserted(
    clip: CLIP,
    images: Tensor,
    prompts: Prompts,
    mask: Tensor | None = None,
    *,
    bare: bool = False,
    beside: Beside | None = None,
) -> tuple[Tensor, Tensor]:
    """Encode images, and return the final states of the inserted tokens as well.

    Args:
        See :func:`encode_image`; at least one layer is prompted.

    Returns:
        Projected image features, not normalised, (B, d), and the inserted tokens after the last layer and ``ln_post``,
        not projected, (B, E, D).

    Raises:
        ValueError: As :func:`encode_image`.
    """
    x = clip.visual.ln_post(_run(clip, images, prompts, mask, bare, beside, inserted=True))
    return x[:, 0] @ clip.visual.proj, x[:, 1:]


def _run(
    clip: CLIP,
    images: Tensor,
    prompts: Prompts,
    mask: Tensor | None,
    bare: bool,
    beside: Beside | None,
    inserted: bool,
) -> Tensor:
    """Run the tower; return CLS after the last layer, with the inserted tokens behind it if they are asked for."""
    visual = clip.visual
    if not is_vit(clip):
        raise ValueError(
            "visual prompts need a ViT visual tower, and this CLIP has a ResNet; use a ViT backbone "
            "(e.g. ViT-B/16) or set the visual prompt depth to 0"
        )
    x = embed_patches(visual, images.type(clip.dtype))
    tower = Tower("visual", visual.transformer.resblocks, beside)
    prompts = as_prompts(prompts, x, tower, bare)
    if len(prompts) and not bare:
        prompts = [visual.ln_pre(prompts[0]), *prompts[1:]]
    read = torch.zeros(x.shape[0], dtype=torch.long, device=x.device)
    return run_blocks(tower, x, prompts, x.shape[1], mask, read, inserted)


def embed_patches(visual: VisionTower, images: Tensor) -> Tensor:
    """Cut images into patches, put CLS in front, add positions; (B, 1 + P, D)."""
    x = visual.conv1(images).flatten(2).transpose(1, 2)  # (B, P, D)
    cls = visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
    return visual.ln_pre(torch.cat([cls, x], dim=1) + visual.positional_embedding.to(x.dtype))


@torch.no_grad()
def encode_image_layers(
    clip: CLIP, images: Tensor, layers: Sequence[int], summarise: Callable[[Tensor], Summary]
) -> tuple[Tensor, list[Summary]]:
    """Encode images with the frozen tower, and summarise the patch tokens of some layers on the way.

    A layer's tokens are dropped as soon as the next layer has read them; only the result of ``summarise`` is kept.

    Args:
        clip: Stock CLIP with a ViT visual tower.
        images: (B, 3, H, W), normalised as CLIP expects them.
        layers: Layers, 1 to L, whose output is summarised; any order, repeats cost nothing.
        summarise: Takes the patch tokens after a layer, (B, P, D), CLS left out.

    Returns:
        Projected image features, not normalised, (B, d), and the summary for each entry of ``layers``.

    Raises:
        ValueError: A ResNet tower, or a layer that it does not have.
    """
    if not is_vit(clip):
        raise ValueError(
            "patch tokens of each layer need a ViT visual tower, and this CLIP has a ResNet; use a ViT backbone "
            "(e.g. ViT-B/16)"
        )
    visual = clip.visual
    blocks = visual.transformer.resblocks
    missing = sorted(set(layers) - set(range(1, len(blocks) + 1)))
    if missing:
        raise ValueError(f"the visual tower has no layer {missing}; it has layers 1 to {len(blocks)}")
    x = embed_patches(visual, images.type(clip.dtype))
    summaries: dict[int, Summary] = {}
    for layer, block in enumerate(blocks, start=1):
        if layer < len(blocks) or layer in layers:
            x = finish_block(block, x, *queries_keys_values(block, x))
        else:
            x = finish_block(block, x[:, :1], queries(block, x[:, :1]), *keys_values(block, x))
        if layer in layers:
            summaries[layer] = summarise(x[:, 1:])
    return visual.ln_post(x[:, 0]) @ visual.proj, [summaries[layer] for layer in layers]


@torch.no_grad()
def vision_attention(clip: CLIP, images: Tensor, prompts: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
    """Return how much each token of the vision tower attends to each other, layer by layer.

    Args:
        clip: Stock CLIP with a ViT visual tower.
        images: (B, 3, H, W), normalised as CLIP expects them.
        prompts: One tensor a prompted layer, (E, D); at least one.
        mask: See :func:`encode_image`.

    Returns:
        Attention weights, mean over images and heads, (L, N, N) with N = 1 + P + E in the order
        ``[CLS][patches][prompts]``; each row sums to 1.
    """
    visual = clip.visual
    x = embed_patches(visual, images.type(clip.dtype))
    own = x.shape[1]  # CLS and patches
    prompts = [p.to(x.dtype) for p in prompts]
    prompts[0] = visual.ln_pre(prompts[0])
    layers = []
    for layer, block in enumerate(visual.transformer.resblocks):
        if layer < len(prompts):
            x = torch.cat([x[:, :own], prompts[layer].expand(len(x), -1, -1)], dim=1)
        q, k, v = queries_keys_values(block, x)
        by_head = [y.float().unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2) for y in (q, k)]
        scores = by_head[0] @ by_head[1].transpose(-1, -2) / by_head[0].shape[-1] ** 0.5  # (B, heads, N, N)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        layers.append(scores.softmax(dim=-1).mean(dim=(0, 1)))
        x = finish_block(block, x, q, k, v, mask)
    return torch.stack(layers)
