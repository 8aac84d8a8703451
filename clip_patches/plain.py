"""`encode_image` and `encode_text` of `encoders.py`, slow and obvious: every token in every layer, all 77 positions.

The reference for the tests and the benchmark. Nothing else uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .encoders import Beside, Prompts, Sentences
from .stock import CLIP, Block


def encode_image(
    clip: CLIP,
    images: Tensor,
    prompts: Prompts = (),
    mask: Tensor | None = None,
    **hooks: Any,
) -> Tensor:
    """Encode images; see :func:`encoders.encode_image`."""
    return _vision(clip, images, prompts, mask, **hooks)[:, 0] @ clip.visual.proj


def encode_image_inserted(
    clip: CLIP,
    images: Tensor,
    prompts: Prompts,
    mask: Tensor | None = None,
    **hooks: Any,
) -> tuple[Tensor, Tensor]:
    """Encode images, and return the inserted tokens; see :func:`encoders.encode_image_inserted`."""
    x = _vision(clip, images, prompts, mask, **hooks)
    return x[:, 0] @ clip.visual.proj, x[:, len(clip.visual.positional_embedding) :]


def _vision(
    clip: CLIP,
    images: Tensor,
    prompts: Prompts,
    mask: Tensor | None,
    bare: bool = False,
    beside: Beside | None = None,
) -> Tensor:
    """Return all tokens after the last layer and ``ln_post``."""
    visual = clip.visual
    x = visual.conv1(images.type(clip.dtype)).flatten(2).transpose(1, 2)
    cls = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
    x = torch.cat([cls, x], dim=1) + visual.positional_embedding.to(x.dtype)
    slot, there = x.shape[1], 0
    if prompts and not bare:
        x, there = _insert(x, prompts[0], slot), _count(prompts)
        prompts = [None, *prompts[1:]]
    blocks = visual.transformer.resblocks
    return visual.ln_post(_blocks("visual", blocks, visual.ln_pre(x), prompts, slot, mask, beside, there))


def encode_text(
    clip: CLIP,
    sentences: Sentences,
    prompts: Prompts = (),
    budget_mb: int = 0,
    **hooks: Any,
) -> Tensor:
    """Encode class sentences; see :func:`encoders.encode_text`. ``budget_mb`` is not used."""
    images = [len(p) for p in prompts if isinstance(p, Tensor) and p.dim() in (3, 4)]
    if not images:
        return _encode_sentences(clip, sentences, prompts, **hooks)
    return torch.stack(
        [_encode_sentences(clip, sentences, [_of_image(p, i) for p in prompts], **hooks) for i in range(max(images))]
    )


def _of_image(prompts, i: int):
    """Return the tokens of one image, (E, D) or (C, E, D)."""
    return prompts[i % len(prompts)] if isinstance(prompts, Tensor) and prompts.dim() > 2 else prompts


def _encode_sentences(
    clip: CLIP, sentences: Sentences, prompts: Prompts, bare: bool = False, beside: Beside | None = None
) -> Tensor:
    x, eot, _ = sentences
    x = x.type(clip.dtype)
    inserted = _count(prompts)
    if prompts and not bare:
        x = _insert(x, prompts[0], 1)
        prompts = [None, *prompts[1:]]
    n_padding = clip.context_length - x.shape[1]
    padding = clip.token_embedding(torch.zeros(len(x), n_padding, dtype=torch.long, device=x.device))
    x = torch.cat([x, padding.type(x.dtype)], dim=1) + clip.positional_embedding.type(x.dtype)  # (C, 77, D)
    length = clip.context_length + inserted * bare
    mask = torch.ones(length, length, dtype=torch.bool).tril()
    there = 0 if bare else inserted
    x = _blocks("text", clip.transformer.resblocks, x, prompts, 1, mask, beside, there)
    x = clip.ln_final(x).type(x.dtype)
    return x[torch.arange(len(x)), eot + inserted] @ clip.text_projection


def _count(prompts: Prompts) -> int:
    """Return the number of inserted tokens."""
    return next((p.shape[-2] for p in prompts if isinstance(p, Tensor)), 0)


def _insert(x: Tensor, tokens, slot: int) -> Tensor:
    tokens = tokens.to(x.dtype).expand(len(x), -1, -1)
    return torch.cat([x[:, :slot], tokens, x[:, slot:]], dim=1)


def _blocks(
    name: str,
    blocks: Sequence[Block],
    x: Tensor,
    prompts: Prompts,
    slot: int,
    mask: Tensor | None,
    beside: Beside | None,
    there: int,
) -> Tensor:
    """Run all tokens through all layers; ``there`` inserted tokens are among them from the start."""
    for layer, block in enumerate(blocks, start=1):
        given = prompts[layer - 1] if layer <= len(prompts) else None
        if given is not None:
            tokens = given if isinstance(given, Tensor) else given(x[:, slot : slot + there])
            x = _insert(torch.cat([x[:, :slot], x[:, slot + there :]], dim=1), tokens, slot)
            there = tokens.shape[-2]
        visible = None
        if mask is not None:
            absent = len(mask) - x.shape[1]
            rows = [i for i in range(len(mask)) if not slot <= i < slot + absent]
            seen = mask.to(x.device)[rows][:, rows]
            visible = torch.zeros(seen.shape, dtype=x.dtype, device=x.device).masked_fill(~seen, float("-inf"))
        h = block.ln_1(x).transpose(0, 1)  # (T, N, D), as CLIP's blocks expect it
        out = x + block.attn(h, h, h, need_weights=False, attn_mask=visible)[0].transpose(0, 1)
        out = out + block.mlp(block.ln_2(out))
        added = beside(name, layer, x) if beside else None
        x = out if added is None else out + added
    return x
