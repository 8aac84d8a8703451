"""`encode_image` and `encode_text` of `encoders.py`, slow and obvious: every token in every layer, all 77 positions.

The reference for the tests and the benchmark. Nothing else uses it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .encoders import Prompts, Sentences
from .stock import CLIP, Block


def encode_image(clip: CLIP, images: Tensor, prompts: Prompts = (), mask: Tensor | None = None) -> Tensor:
    """Encode images; see :func:`encoders.encode_image`."""
    visual = clip.visual
    x = visual.conv1(images.type(clip.dtype)).flatten(2).transpose(1, 2)
    cls = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
    x = torch.cat([cls, x], dim=1) + visual.positional_embedding.to(x.dtype)
    slot = x.shape[1]
    if prompts and prompts[0] is not None:
        x = _insert(x, prompts[0], slot)
    x = _blocks(visual.transformer.resblocks, visual.ln_pre(x), prompts, slot, mask)
    return visual.ln_post(x[:, 0]) @ visual.proj


def encode_text(clip: CLIP, sentences: Sentences, prompts: Prompts = (), budget_mb: int = 0) -> Tensor:
    """Encode class sentences; see :func:`encoders.encode_text`. ``budget_mb`` is not used."""
    images = [len(p) for p in prompts if p is not None and p.dim() in (3, 4)]
    if not images:
        return _encode_sentences(clip, sentences, prompts)
    by_image = [_encode_sentences(clip, sentences, [_of_image(p, i) for p in prompts]) for i in range(max(images))]
    return torch.stack(by_image)


def _of_image(prompts: Tensor | None, i: int) -> Tensor | None:
    """Return the tokens of one image, (E, D) or (C, E, D)."""
    return prompts if prompts is None or prompts.dim() == 2 else prompts[i % len(prompts)]


def _encode_sentences(clip: CLIP, sentences: Sentences, prompts: Prompts) -> Tensor:
    x, eot, _ = sentences
    x = x.type(clip.dtype)
    if prompts and prompts[0] is not None:
        x = _insert(x, prompts[0], 1)
        eot = eot + prompts[0].shape[-2]
    n_padding = clip.context_length - x.shape[1]
    padding = clip.token_embedding(torch.zeros(len(x), n_padding, dtype=torch.long, device=x.device))
    x = torch.cat([x, padding.type(x.dtype)], dim=1) + clip.positional_embedding.type(x.dtype)  # (C, 77, D)
    mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
    x = clip.ln_final(_blocks(clip.transformer.resblocks, x, prompts, 1, mask)).type(x.dtype)
    return x[torch.arange(len(x)), eot] @ clip.text_projection


def _insert(x: Tensor, tokens: Tensor, slot: int) -> Tensor:
    tokens = tokens.to(x.dtype).expand(len(x), -1, -1)
    return torch.cat([x[:, :slot], tokens, x[:, slot:]], dim=1)


def _blocks(blocks: Sequence[Block], x: Tensor, prompts: Prompts, slot: int, mask: Tensor | None) -> Tensor:
    if mask is not None:
        mask = torch.zeros(mask.shape, dtype=x.dtype, device=x.device).masked_fill(~mask.to(x.device), float("-inf"))
    for layer, block in enumerate(blocks):
        tokens = prompts[layer] if 0 < layer < len(prompts) else None
        if tokens is not None:
            x = _insert(torch.cat([x[:, :slot], x[:, slot + tokens.shape[-2] :]], dim=1), tokens, slot)
        h = block.ln_1(x).transpose(0, 1)  # (T, N, D), as CLIP's blocks expect it
        x = x + block.attn(h, h, h, need_weights=False, attn_mask=mask)[0].transpose(0, 1)
        x = x + block.mlp(block.ln_2(x))
    return x
