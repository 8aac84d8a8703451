"""The prompted forward of both CLIP towers, run from outside over the blocks of an unchanged model.

A deep-prompt method says which tokens go in, into which layers, and who may see whom; these two functions do the rest.
``prompts[0]`` is inserted at the input of layer 1, ``prompts[l]`` overwrites the same slots at the input of layer l +
1, and after ``len(prompts)`` layers the inserted tokens flow on like any other token. ``None`` in the place of a
layer's prompts lets the tokens flow on into that layer. No prompts at all is stock CLIP.

What is left out because it cannot change the result:

* tokens that the next layer overwrites are keys and values only: no query, no attention output, no MLP;
* text after the longest EOT is cut off, since the causal mask hides it from every EOT; classes taken in chunks are
sorted by length; * the last layer computes the row that is read (CLS, EOT) and nothing else;
* the tokens that all classes share (SOS, prompts, common first words) run once, not once per class.
"""

from __future__ import annotations

from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple, TypeVar

import torch
from torch import Tensor, nn

from .attention import causal_mask, finish_block, keys_values, queries, queries_keys_values

# Rough number of floats that one text token of one class costs in a block when no graph is kept: the residual stream,
# its normalised copy, queries, keys, values, and twice the four-fold hidden layer of the MLP, in multiples of the
# width.
FLOATS_PER_TOKEN = 14
Summary = TypeVar("Summary")


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


def embed_tokens(clip: nn.Module, tokens: Tensor, skip: int = 0) -> Sentences:
    """Look up the embeddings of tokenised sentences.

    Args:
        clip: Stock CLIP.
        tokens: Token ids as ``clip.tokenize`` gives them, (C, 77).
        skip: Number of tokens after SOS to leave out, for methods whose prompts replace the first words.
    """
    tokens = tokens.to(clip.token_embedding.weight.device)
    if skip:
        tokens = torch.cat([tokens[:, :1], tokens[:, 1 + skip :]], dim=1)
    eot = tokens.argmax(dim=-1)  # EOT has the highest id
    tokens = tokens[:, : int(eot.max()) + 1]
    differs = (tokens != tokens[:1]).any(dim=0)
    common = int(differs.int().argmax()) if bool(differs.any()) else tokens.shape[1]
    shared = max(1, min(common, int(eot.min())))
    return Sentences(clip.token_embedding(tokens), eot, shared)


def encode_image(
    clip: nn.Module, images: Tensor, prompts: Sequence[Tensor] = (), mask: Optional[Tensor] = None
) -> Tensor:
    """Encode images with prompt tokens appended to the patches.

    Args:
        clip: Stock CLIP with a ViT visual tower; a ResNet tower takes no prompts.
        images: (B, 3, H, W), normalised as CLIP wants them.
        prompts: One tensor a prompted layer, (E, D) for all images or (B, E, D) for each. They get no positional
            embedding; those of layer 1 pass ``ln_pre``.
        mask: (1 + P + E, 1 + P + E) in the order ``[CLS][patches][prompts]``, True where the row may attend to the
            column.

    Returns:
        Projected image features, not normalised, (B, d).

    Raises:
        ValueError: Prompts for a ResNet tower, more prompted layers than layers, or tensors that do not fit.
    """
    visual = clip.visual
    images = images.type(clip.dtype)
    if not is_vit(clip):
        if len(prompts):
            raise ValueError(
                "visual prompts need a ViT visual tower, and this CLIP has a ResNet; use a ViT backbone "
                "(e.g. ViT-B/16) or set the visual prompt depth to 0"
            )
        return visual(images)
    x = embed_patches(visual, images)
    blocks = visual.transformer.resblocks
    prompts = _as_prompts(prompts, x, blocks, "visual")
    if len(prompts):
        prompts = [visual.ln_pre(prompts[0]), *prompts[1:]]
    read = torch.zeros(x.shape[0], dtype=torch.long, device=x.device)
    x = _run_blocks(blocks, x, prompts, x.shape[1], mask, read)
    return visual.ln_post(x) @ visual.proj


@torch.no_grad()
def encode_image_layers(
    clip: nn.Module, images: Tensor, layers: Sequence[int], summarise: Callable[[Tensor], Summary]
) -> Tuple[Tensor, List[Summary]]:
    """Encode images with the frozen tower, and summarise the patch tokens of some layers on the way.

    A layer's tokens are given up as soon as the next layer has read them; what ``summarise`` returns is all that is
    kept.

    Args:
        clip: Stock CLIP with a ViT visual tower.
        images: (B, 3, H, W), normalised as CLIP wants them.
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
    x, summaries = embed_patches(visual, images.type(clip.dtype)), {}
    for layer, block in enumerate(blocks, start=1):
        if layer < len(blocks) or layer in layers:
            x = finish_block(block, x, *queries_keys_values(block, x))
        else:
            x = finish_block(block, x[:, :1], queries(block, x[:, :1]), *keys_values(block, x))
        if layer in layers:
            summaries[layer] = summarise(x[:, 1:])
    return visual.ln_post(x[:, 0]) @ visual.proj, [summaries[layer] for layer in layers]


def encode_text(
    clip: nn.Module,
    sentences: Sentences,
    prompts: Sequence[Tensor] = (),
    slot: int = 1,
    mask: Optional[Tensor] = None,
    budget_mb: int = 256,
) -> Tensor:
    """Encode class sentences with prompt tokens inserted before position ``slot``.

    Args:
        clip: Stock CLIP.
        sentences: From :func:`embed_tokens`, or put together from learned embeddings.
        prompts: One tensor a prompted layer: (E, D) for all images, or (B, E, D) when they depend on the image; or, in
            any of the layers, (B or 1, C, E, D) when they depend on the class.
        slot: Position of the first inserted token; 1 is right after SOS.
        mask: (T + E, T + E), True where the row may attend to the column; default causal.
        budget_mb: Without gradients, classes are taken in chunks whose activations fit about this many MiB.

    Returns:
        Projected text features at EOT, not normalised: (C, d), or (B, C, d) where a layer's prompts have a dimension B.

    Raises:
        ValueError: Longer than CLIP's context after insertion, more prompted layers than layers, or tensors that do not
            fit.
    """
    blocks = clip.transformer.resblocks
    x, eot, shared = sentences
    x = x.type(clip.dtype)
    prompts = _as_prompts(prompts, x, blocks, "text")
    inserted = prompts[0].shape[-2] if len(prompts) else 0
    length = x.shape[1] + inserted
    if length > clip.context_length:
        raise ValueError(
            f"the longest class sentence has {x.shape[1]} tokens with SOS and EOT, and {inserted} more are "
            f"inserted: {length} is above CLIP's context of {clip.context_length}; shorten the class name or "
            "the prompt"
        )
    order = torch.tensor(
        [*range(slot), *range(slot + inserted, length), *range(slot, slot + inserted)], device=x.device
    )
    position = clip.positional_embedding.type(x.dtype)[:length][order]  # words first, inserted tokens last
    x = x + position[: x.shape[1]]
    if len(prompts):
        prompts = [prompts[0] + position[x.shape[1] :], *prompts[1:]]
    mask = causal_mask(length, x.device) if mask is None else mask.to(x.device)
    grouped = any(p is not None and p.dim() > 2 for p in prompts)
    by_class = any(p is None or p.dim() == 4 for p in prompts)  # or tokens that flow on and are overwritten later

    visible = mask[order][:, order]  # rows and columns as [words][inserted]
    words = x.shape[1]
    if (
        by_class
        or shared < slot
        or bool(visible[:shared, shared:words].any())
        or bool(visible[words:, shared:words].any())
    ):
        features = _encode_unshared(blocks, x, prompts, slot, mask, eot)
    else:
        features = _encode_shared(blocks, x, prompts, slot, visible, eot, shared, budget_mb)
    features = clip.ln_final(features).type(x.dtype) @ clip.text_projection
    return features if grouped else features.squeeze(0)


def is_vit(clip: nn.Module) -> bool:
    """Say whether the visual tower is a ViT."""
    return hasattr(clip.visual, "transformer")


def embed_patches(visual: nn.Module, images: Tensor) -> Tensor:
    """Cut images into patches, put CLS in front, add positions; (B, 1 + P, D)."""
    x = visual.conv1(images).flatten(2).transpose(1, 2)  # (B, P, D)
    cls = visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
    return visual.ln_pre(torch.cat([cls, x], dim=1) + visual.positional_embedding.to(x.dtype))


def _as_prompts(prompts: Sequence[Tensor], x: Tensor, blocks: nn.Module, tower: str) -> Sequence[Tensor]:
    if len(prompts) > len(blocks):
        raise ValueError(
            f"{len(prompts)} {tower} layers are to be prompted, but the {tower} tower has {len(blocks)}; "
            f"allowed depths are 0 to {len(blocks)}"
        )
    if len(prompts) and (prompts[0] is None or prompts[-1] is None):
        raise ValueError(
            f"the first and the last of the {len(prompts)} prompted {tower} layers must have prompts, and one of them has None"
        )
    shapes = {tuple(p.shape) for p in prompts if p is not None and p.dim() < 4}
    by_class = {tuple(p.shape) for p in prompts if p is not None and p.dim() > 3}
    fit = len({s[-2:] for s in shapes | by_class}) < 2 and all(s[-1] == x.shape[-1] for s in shapes | by_class)
    if (
        len(shapes) > 1
        or any(len(s) < 2 for s in shapes)
        or not fit
        or any(len(s) > 4 or s[1] != len(x) for s in by_class)
    ):
        raise ValueError(
            f"{tower} prompts must all be (E, {x.shape[-1]}) or all (B, E, {x.shape[-1]})"
            + (f", and those that depend on the class (B, {len(x)}, E, {x.shape[-1]})" if by_class else "")
            + f", got {sorted(shapes | by_class)}"
        )
    return [None if p is None else p.to(x.dtype) for p in prompts]


def _run_blocks(
    blocks: nn.Module, x: Tensor, prompts: Sequence[Tensor], slot: int, mask: Optional[Tensor], read: Tensor
) -> Tensor:
    """Run one sequence per row through a tower and return the states that are read.

    Args:
        blocks: The tower's residual attention blocks.
        x: Input of layer 1 without prompts, (N, T, D).
        prompts: Tokens of each prompted layer, (E, D) or (N, E, D), or None.
        slot: Position of the first inserted token.
        mask: (T + E, T + E) or None.
        read: Position (inserted tokens not counted) of the row to return, (N,).

    Returns:
        (N, D).
    """
    n, t = x.shape[:2]
    e = prompts[0].shape[-2] if len(prompts) else 0
    rows = torch.arange(n, device=x.device)
    inserted = torch.arange(slot, slot + e, device=x.device)
    own = torch.cat([torch.arange(slot, device=x.device), torch.arange(slot + e, t + e, device=x.device)])
    aside = own, torch.cat([own, inserted])  # positions of queries, positions of keys, while the prompts stand aside
    if mask is not None:
        mask = mask.to(x.device)
    extra, position = None, read  # the inserted tokens while they stand aside
    for layer, block in enumerate(blocks, start=1):
        if layer <= len(prompts) and prompts[layer - 1] is not None:
            extra = prompts[layer - 1].expand(n, -1, -1)
        overwritten = layer < len(prompts) and prompts[layer] is not None
        if extra is not None and not overwritten and layer < len(blocks):  # from here on they are ordinary tokens
            x = torch.cat([x[:, :slot], extra, x[:, slot:]], dim=1)
            extra, position = None, read + e * (read >= slot)
        elif extra is None and e and overwritten:  # and here they no longer are
            extra, x = x[:, slot : slot + e], torch.cat([x[:, :slot], x[:, slot + e :]], dim=1)
            position = read
        visible = mask
        if mask is not None and extra is not None:
            visible = mask[aside[0]][:, aside[1]]
        if layer < len(blocks):
            q, k, v = queries_keys_values(block, x)
        else:
            k, v = keys_values(block, x)
            x = x[rows, position].unsqueeze(1)  # (N, 1, D)
            q = queries(block, x)
            if visible is not None:
                visible = visible[position][:, None, None]  # (N, 1, 1, keys)
        if extra is not None:
            k, v = (torch.cat(pair, dim=1) for pair in zip((k, v), keys_values(block, extra)))
        x = finish_block(block, x, q, k, v, visible)
    return x.squeeze(1)


def _encode_unshared(blocks, x, prompts, slot, mask, eot) -> Tensor:
    """Text without a class-independent prefix: every class of every image is a sequence of its own; (B or 1, C, D)."""
    c = x.shape[0]
    b = max((p.shape[0] for p in prompts if p is not None and p.dim() > 2), default=1)
    x = x.expand(b, *x.shape).flatten(0, 1)  # (B C, T, D)
    prompts = [
        p if p is None or p.dim() == 2 else (p if p.dim() == 4 else p.unsqueeze(1)).expand(b, c, -1, -1).flatten(0, 1)
        for p in prompts
    ]
    return _run_blocks(blocks, x, prompts, slot, mask, eot.repeat(b)).unflatten(0, (b, c))


def _encode_shared(blocks, x, prompts, slot, visible, eot, shared, budget_mb) -> Tensor:
    """Text whose first ``shared`` words are the same in all classes; (B or 1, C, D).

    ``visible`` is the mask with rows and columns ordered ``[words][inserted]``.
    """
    words = x.shape[1]
    prompts = [p if p.dim() == 3 else p.unsqueeze(0) for p in prompts]  # (B or 1, E, D)
    prefix = _prefix_keys_values(blocks, x[:1, :shared], prompts, slot, visible, shared, words)
    tails, read = x[:, shared:], eot - shared
    keys = [
        *range(shared),
        *range(words, visible.shape[0]),
        *range(shared, words),
    ]  # [shared words][inserted][own words]
    visible = visible[shared:words][:, keys]
    step = len(tails)
    if not torch.is_grad_enabled():
        floats = len(prefix[0][0]) * visible.shape[1] * x.shape[-1] * FLOATS_PER_TOKEN
        step = max(1, budget_mb * 2**20 // (floats * x.element_size()))
    own = tails.shape[1]
    looks_ahead = bool(visible[:, -own:].triu(1).any())  # else each chunk may end with its own longest EOT
    lengths = torch.full_like(read, own) if looks_ahead else read + 1
    order, chunks = lengths.argsort(stable=True), []
    for rows in order.split(_chunk_sizes(lengths[order], step)):
        length = int(lengths[rows].max())
        chunks.append(
            _run_tails(
                blocks, tails[rows, :length], prefix, visible[:length, : visible.shape[1] - own + length], read[rows]
            )
        )
    return torch.cat(chunks, dim=1)[:, order.argsort()]


def _chunk_sizes(lengths: Tensor, step: int) -> List[int]:
    """Cut classes into chunks of at most ``step``; all that fit one chunk are cut in two where that saves a fifth of
    the tokens.
    """
    count = len(lengths)
    if step < count:
        return [min(step, count - start) for start in range(0, count, step)]
    saved = torch.arange(1, count + 1, device=lengths.device) * (lengths[-1] - lengths)
    cut = int(saved.argmax()) + 1
    return [cut, count - cut] if int(saved[cut - 1]) * 5 > count * int(lengths[-1]) else [count]


def _prefix_keys_values(blocks, x, prompts, slot, visible, shared, words) -> Sequence[Tuple[Tensor, Tensor]]:
    """Run the class-independent tokens once; keys and values of each layer, ordered ``[shared words][inserted]``."""
    out = []
    e = prompts[0].shape[1] if len(prompts) else 0
    if e:
        x = x.expand(len(prompts[0]), -1, -1)
    index = torch.tensor([*range(shared), *range(words, words + e)], device=x.device)
    visible = visible[index][:, index]
    for layer, block in enumerate(blocks, start=1):
        extra = prompts[layer - 1] if layer <= len(prompts) else None
        if extra is not None and layer == len(prompts) and layer < len(blocks):
            x, extra = torch.cat([x, extra], dim=1), None  # from here on they are ordinary tokens
        if layer < len(blocks):
            q, k, v = queries_keys_values(block, x)
        else:
            k, v = keys_values(block, x)
        if extra is not None:
            k, v = (torch.cat(pair, dim=1) for pair in zip((k, v), keys_values(block, extra)))
        out.append((k, v))
        if layer < len(blocks):
            x = finish_block(block, x, q, k, v, visible[: x.shape[1]])
    return out


def _run_tails(blocks, x, prefix, visible, read) -> Tensor:
    """Run the class tokens against the keys and values of the shared ones.

    Args:
        blocks: The text tower's residual attention blocks.
        x: Class tokens at the input of layer 1, (C, T, D).
        prefix: Keys and values of the shared tokens for each layer, (B or 1, S, D).
        visible: (T, S + T), True where a class token may attend.
        read: Position of EOT among the class tokens, (C,).

    Returns:
        States at EOT after the last layer, (B or 1, C, D).
    """
    c, b = len(x), len(prefix[0][0])
    rows = torch.arange(c, device=x.device)
    x = x.unsqueeze(0)  # (1, C, T, D): what the first layer projects does not depend on the image yet
    for layer, (block, shared) in enumerate(zip(blocks, prefix), start=1):
        if layer < len(blocks):
            q, k, v = queries_keys_values(block, x)
        else:
            k, v = keys_values(block, x)
            x = x[:, rows, read].unsqueeze(2)  # (B, C, 1, D)
            q = queries(block, x)
            visible = visible[read][:, None, None]  # (C, 1, 1, S + T)
            visible = visible.repeat(b, 1, 1, 1)
        k, v = (
            torch.cat([s.unsqueeze(1).expand(-1, c, -1, -1), own.expand(b, -1, -1, -1)], dim=2)
            for s, own in zip(shared, (k, v))
        )
        x, q, k, v = (y.expand(b, -1, -1, -1).flatten(0, 1) for y in (x, q, k, v))  # (B C, tokens, D)
        x = finish_block(block, x, q, k, v, visible).unflatten(0, (b, c))
    return x.squeeze(2)
