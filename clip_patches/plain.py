"""The two functions of ``encoders.py`` once more, slow and obvious: every token in every layer, all 77 positions, stock
blocks.

The reference that the tests compare with and the benchmark measures against. Nothing else uses it.
"""

from __future__ import annotations

from typing import Optional, Sequence

import torch
from torch import Tensor, nn

from .encoders import Sentences


def encode_image(
    clip: nn.Module, images: Tensor, prompts: Sequence[Tensor] = (), mask: Optional[Tensor] = None
) -> Tensor:
    """See :func:`encoders.encode_image`."""
    visual = clip.visual
    x = visual.conv1(images.type(clip.dtype)).flatten(2).transpose(1, 2)
    cls = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
    x = torch.cat([cls, x], dim=1) + visual.positional_embedding.to(x.dtype)
    slot = x.shape[1]
    if len(prompts):
        x = _insert(x, prompts[0], slot)
    x = _blocks(visual.transformer.resblocks, visual.ln_pre(x), prompts, slot, mask)
    return visual.ln_post(x[:, 0]) @ visual.proj


def encode_text(
    clip: nn.Module,
    sentences: Sentences,
    prompts: Sequence[Tensor] = (),
    slot: int = 1,
    mask: Optional[Tensor] = None,
    budget_mb: int = 0,
) -> Tensor:
    """See :func:`encoders.encode_text`; ``budget_mb`` is not used."""
    images = [len(p) for p in prompts if p is not None and p.dim() in (3, 4)]
    if images:
        return torch.stack(
            [
                _encode_sentences(clip, sentences, [_of_image(p, i) for p in prompts], slot, mask)
                for i in range(max(images))
            ]
        )
    return _encode_sentences(clip, sentences, prompts, slot, mask)


def _of_image(prompts: Optional[Tensor], i: int) -> Optional[Tensor]:
    """Tokens of one image, (E, D) or (C, E, D)."""
    return prompts if prompts is None or prompts.dim() == 2 else prompts[i % len(prompts)]


def _encode_sentences(clip, sentences, prompts, slot, mask) -> Tensor:
    x, eot, _ = sentences
    x = x.type(clip.dtype)
    if len(prompts):
        x = _insert(x, prompts[0], slot)
        eot = eot + (eot >= slot) * prompts[0].shape[-2]
    padding = clip.token_embedding(
        torch.zeros(len(x), clip.context_length - x.shape[1], dtype=torch.long, device=x.device)
    )
    x = torch.cat([x, padding.type(x.dtype)], dim=1) + clip.positional_embedding.type(x.dtype)  # (C, 77, D)
    if mask is None:
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
    else:  # the padding sees and is seen by nothing but itself
        full = torch.eye(x.shape[1], dtype=torch.bool)
        full[: len(mask), : len(mask)] = mask
        mask = full
    x = clip.ln_final(_blocks(clip.transformer.resblocks, x, prompts, slot, mask)).type(x.dtype)
    return x[torch.arange(len(x)), eot] @ clip.text_projection


def _insert(x: Tensor, tokens: Tensor, slot: int) -> Tensor:
    tokens = tokens.to(x.dtype).expand(len(x), -1, -1)
    return torch.cat([x[:, :slot], tokens, x[:, slot:]], dim=1)


def _blocks(blocks: nn.Module, x: Tensor, prompts: Sequence[Tensor], slot: int, mask: Optional[Tensor]) -> Tensor:
    if mask is not None:
        mask = torch.zeros(mask.shape, dtype=x.dtype, device=x.device).masked_fill(~mask.to(x.device), float("-inf"))
    for layer, block in enumerate(blocks):
        if 0 < layer < len(prompts) and prompts[layer] is not None:
            x = _insert(torch.cat([x[:, :slot], x[:, slot + prompts[layer].shape[-2] :]], dim=1), prompts[layer], slot)
        h = block.ln_1(x).transpose(0, 1)  # (T, N, D), as CLIP's blocks want it
        x = x + block.attn(h, h, h, need_weights=False, attn_mask=mask)[0].transpose(0, 1)
        x = x + block.mlp(block.ln_2(x))
    return x
