"""The text tower of a CLIP with inserted tokens; see `encoders.py`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .anatomy import token_embeddings
from .attention import causal_mask, draws
from .blocks import Beside, Change, Prompts, Tower, as_prompts, run_blocks
from .shared_prefix import encode_shared
from .stock import CLIP


class Sentences(NamedTuple):
    """Class sentences as token embeddings, before the positional embedding.

    Attributes:
        embeddings: (C, T, D), cut after the longest EOT.
        eot: Position of the EOT token in each sentence, (C,).
        shared: Number of leading positions that are equal in all sentences; at least 1 (SOS).
    """

    embeddings: Tensor
    eot: Tensor
    shared: int


def embed_tokens(clip: CLIP, tokens: Tensor, skip: int = 0) -> Sentences:
    """Look up the embeddings of tokenised sentences.

    Args:
        clip: Stock CLIP.
        tokens: Token ids as `anatomy.tokenize` returns them, (C, 77).
        skip: Number of tokens after SOS to leave out, for methods whose prompts replace the first words.
    """
    if skip:
        tokens = torch.cat([tokens[:, :1], tokens[:, 1 + skip :]], dim=1)
    eot = tokens.argmax(dim=-1)  # EOT has the highest id
    tokens = tokens[:, : int(eot.max()) + 1]
    differs = (tokens != tokens[:1]).any(dim=0)
    common = int(differs.int().argmax()) if bool(differs.any()) else tokens.shape[1]
    shared = max(1, min(common, int(eot.min())))
    embeddings = token_embeddings(clip, tokens)
    return Sentences(embeddings, eot.to(embeddings.device), shared)


def encode_text(
    clip: CLIP,
    sentences: Sentences,
    prompts: Prompts = (),
    budget_mb: int = 256,
    *,
    bare: bool = False,
    beside: Beside | None = None,
) -> Tensor:
    """Encode class sentences with prompt tokens inserted right after SOS.

    Args:
        clip: Stock CLIP.
        sentences: From :func:`embed_tokens`, or put together from learned embeddings.
        prompts: One entry a layer: a tensor, (E, D) for all images, or (B, E, D) when they depend on the image; or, in
            any of the layers, (B or 1, C, E, D) when they depend on the class; a function; or None.
        budget_mb: Without gradients, classes are taken in chunks whose activations fit about this many MiB.
        bare: The prompts get no positional embedding, and the words keep theirs, so that the sequence may be longer
            than CLIP's context; leading entries may be None.
        beside: What is added to each block's output; see :class:`.blocks.Tower`.

    Returns:
        Projected text features at EOT, not normalised: (C, d), or (B, C, d) where a layer's prompts have a dimension B.

    Raises:
        ValueError: Longer than CLIP's context after insertion, more prompted layers than layers, or tensors that do not
            fit.
    """
    x, eot, shared = sentences
    x = x.type(clip.dtype)
    tower = Tower("text", clip.transformer.resblocks, beside)
    layers = as_prompts(prompts, x, tower, bare)
    tensors = [p for p in layers if isinstance(p, Tensor)]
    inserted = tensors[0].shape[-2] if tensors else 0
    words = x.shape[1]
    length = words + inserted
    if length > clip.context_length and not bare:
        raise ValueError(
            f"the longest class sentence has {words} tokens with SOS and EOT, and {inserted} more are "
            f"inserted: {length} is above CLIP's context of {clip.context_length}; shorten the class name or "
            "the prompt"
        )
    order = torch.tensor([0, *range(1 + inserted, length), *range(1, 1 + inserted)], device=x.device)
    position = clip.positional_embedding.type(x.dtype)
    if bare:
        x = x + position[:words]
    else:
        position = position[:length][order]  # words first, inserted tokens last
        x = x + position[:words]
        if tensors:
            layers[0] = tensors[0] + position[words:]
    mask = causal_mask(length, x.device)

    grouped = any(p.dim() > 2 for p in tensors)
    # With prompts of classes, or dropout of each class's own, no prefix is shared.
    if any(p.dim() == 4 for p in tensors) or any(map(draws, tower.blocks)):
        features = _encode_unshared(tower, x, layers, mask, eot)
    else:
        visible = mask[order][:, order]  # rows and columns as [words][inserted]
        features = encode_shared(tower, x, layers, visible, eot, shared, budget_mb)
    features = clip.ln_final(features).type(x.dtype) @ clip.text_projection
    return features if grouped else features.squeeze(0)


def _encode_unshared(tower: Tower, x: Tensor, prompts: Prompts, mask: Tensor, eot: Tensor) -> Tensor:
    """Encode every class of every image as a sequence of its own; (B or 1, C, D).

    Args:
        tower: The text tower.
        x: Words with positions, (C, T, D).
        prompts: Prompts of each layer.
        mask: (T + E, T + E), in the order of the sequence.
        eot: Position of EOT among the words, (C,).
    """
    c = x.shape[0]
    b = max((p.shape[0] for p in prompts if isinstance(p, Tensor) and p.dim() > 2), default=1)

    def of_sequences(p: Tensor | Change | None) -> Tensor | Change | None:
        """Repeat the prompts of a layer for all sequences, (B C, E, D); those for all stay (E, D)."""
        if not isinstance(p, Tensor) or p.dim() == 2:
            return p
        by_class = p if p.dim() == 4 else p.unsqueeze(1)
        return by_class.expand(b, c, -1, -1).flatten(0, 1)

    sequences = x.expand(b, *x.shape).flatten(0, 1)  # (B C, T, D)
    return run_blocks(tower, sequences, [of_sequences(p) for p in prompts], 1, mask, eot.repeat(b)).unflatten(0, (b, c))
