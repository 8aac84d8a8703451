"""Text whose first words are the same in all classes: those, and the inserted tokens, run once.

The words of each class run against their keys and values. Tokens are ordered ``[words][inserted]`` here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .attention import keys_values, queries, queries_keys_values
from .blocks import Prompts, Slots, Tower

# Rough number of floats that one text token of one class takes in a block when no graph is kept, in multiples of the
# width: residual stream, normalised copy, queries, keys, values, and twice the four-fold hidden layer of the MLP.
FLOATS_PER_TOKEN = 14


def encode_shared(
    tower: Tower,
    x: Tensor,
    prompts: Prompts,
    visible: Tensor,
    eot: Tensor,
    shared: int,
    budget_mb: int,
) -> Tensor:
    """Encode text whose first ``shared`` words are the same in all classes; (B or 1, C, D).

    Args:
        tower: The text tower.
        x: Words with positions, (C, T, D).
        prompts: Prompts of each layer: (E, D) or (B, E, D), a function of their states, or None.
        visible: The causal mask with rows and columns ordered ``[words][inserted]``, (T + E, T + E).
        eot: Position of EOT among the words, (C,).
        shared: Number of words that all classes share; at least 1.
        budget_mb: See :func:`.text_tower.encode_text`.
    """
    words = x.shape[1]
    prompts = [p.unsqueeze(0) if isinstance(p, Tensor) and p.dim() == 2 else p for p in prompts]  # (B or 1, E, D)
    prefix = _prefix_keys_values(tower, x[:1, :shared], prompts, visible, words)
    tails, read = x[:, shared:], eot - shared
    # Columns ordered [shared words][inserted][own words], as the keys will be.
    keys = [*range(shared), *range(words, visible.shape[0]), *range(shared, words)]
    visible = visible[shared:words][:, keys]
    step = len(tails)
    if not torch.is_grad_enabled():
        floats = len(prefix[0][0]) * visible.shape[1] * x.shape[-1] * FLOATS_PER_TOKEN
        step = max(1, budget_mb * 2**20 // (floats * x.element_size()))
    before = visible.shape[1] - tails.shape[1]  # shared keys
    lengths = read + 1  # the mask is causal, so each chunk may end with its own longest EOT
    order, chunks = lengths.argsort(stable=True), []
    for rows in order.split(chunk_sizes(lengths[order], step)):
        length = int(lengths[rows].max())
        chunks.append(_run_tails(tower, tails[rows, :length], prefix, visible[:length, : before + length], read[rows]))
    return torch.cat(chunks, dim=1)[:, order.argsort()]


def chunk_sizes(lengths: Tensor, step: int) -> list[int]:
    """Cut classes into chunks of at most ``step``.

    Classes that would all fit one chunk are cut in two where that saves a fifth of the tokens.

    Args:
        lengths: Tokens of each class, ascending, (C,).
        step: Most classes in a chunk.
    """
    count = len(lengths)
    if step < count:
        return [min(step, count - start) for start in range(0, count, step)]
    # Tokens of padding that are saved by a cut after each class.
    saved = torch.arange(1, count + 1, device=lengths.device) * (lengths[-1] - lengths)
    cut = int(saved.argmax()) + 1
    return [cut, count - cut] if int(saved[cut - 1]) * 5 > count * int(lengths[-1]) else [count]


def _prefix_keys_values(
    tower: Tower, x: Tensor, prompts: Prompts, visible: Tensor, words: int
) -> list[tuple[Tensor, Tensor]]:
    """Run the class-independent tokens once.

    Args:
        tower: The text tower.
        x: The shared words with positions, (1, S, D).
        prompts: Prompts of each layer: (B or 1, E, D), a function of their states, or None.
        visible: The causal mask with rows and columns ordered ``[words][inserted]``.
        words: Number of all words, T.

    Returns:
        Keys and values of each layer, (B or 1, S + E, D), ordered ``[shared words][inserted]``; (B or 1, S, D) where
        the tokens are not there yet.
    """
    shared, layers, out = x.shape[1], len(tower.blocks), []
    slots = Slots(prompts, shared, last=layers)
    if slots.count:
        x = x.expand(max(len(p) for p in prompts if isinstance(p, Tensor)), -1, -1)
    index = torch.tensor([*range(shared), *range(words, words + slots.count)], device=x.device)
    visible = visible[index][:, index]
    for layer, block in enumerate(tower.blocks, start=1):
        x = slots.enter(layer, x)
        if layer < layers:
            q, k, v = queries_keys_values(block, x)
        else:
            k, v = keys_values(block, x)
        k, v = slots.with_aside(block, k, v)
        out.append((k, v))
        if layer < layers:
            x = tower.finish(layer, x, q, k, v, visible[: x.shape[1], : k.shape[1]])
    return out


def _run_tails(
    tower: Tower, x: Tensor, prefix: Sequence[tuple[Tensor, Tensor]], visible: Tensor, read: Tensor
) -> Tensor:
    """Run the class tokens against the keys and values of the shared ones.

    Args:
        tower: The text tower.
        x: Class tokens at the input of layer 1, (C, T, D).
        prefix: Keys and values of the shared tokens for each layer, (B or 1, S, D); fewer in the layers before the
            inserted tokens.
        visible: (T, S + T), True where a class token may attend.
        read: Position of EOT among the class tokens, (C,).

    Returns:
        States at EOT after the last layer, (B or 1, C, D).
    """
    c, b, full = len(x), len(prefix[0][0]), prefix[-1][0].shape[1]
    rows = torch.arange(c, device=x.device)
    x = x.unsqueeze(0)  # (1, C, T, D): the first layer's projections do not depend on the image yet
    for layer, (block, shared) in enumerate(zip(tower.blocks, prefix), start=1):
        there = shared[0].shape[1]
        seen = visible if there == full else torch.cat([visible[:, :there], visible[:, full:]], dim=1)
        if layer < len(tower.blocks):
            q, k, v = queries_keys_values(block, x)
        else:
            k, v = keys_values(block, x)
            x = x[:, rows, read].unsqueeze(2)  # (B, C, 1, D)
            q = queries(block, x)
            seen = seen[read][:, None, None]  # (C, 1, 1, S + T)
            seen = seen.repeat(b, 1, 1, 1)
        k, v = (
            torch.cat([s.unsqueeze(1).expand(-1, c, -1, -1), own.expand(b, -1, -1, -1)], dim=2)
            for s, own in zip(shared, (k, v))
        )
        x, q, k, v = (y.expand(b, -1, -1, -1).flatten(0, 1) for y in (x, q, k, v))  # (B C, tokens, D)
        x = tower.finish(layer, x, q, k, v, seen).unflatten(0, (b, c))
    return x.squeeze(2)
