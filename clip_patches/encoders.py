"""The prompted forward of both CLIP towers, run from outside over the blocks of an unchanged model.

A deep-prompt method chooses the tokens to insert, their layers, and which token may attend to which; the functions here
do the rest. ``prompts[0]`` is inserted at the input of layer 1, ``prompts[l]`` overwrites the same slots at the input
of layer l + 1, and after ``len(prompts)`` layers the inserted tokens are ordinary tokens. A layer whose entry is
``None`` takes the inserted tokens as the layer before left them. No prompts at all is stock CLIP.

Work is left out where it cannot change the result:

* Tokens that the next layer overwrites are keys and values only: no query, no attention output, no MLP.
* Text after the longest EOT is cut off, since the causal mask hides it from every EOT. Classes that are taken in chunks
  are sorted by length.
* The last layer computes only the row that is read (CLS, EOT).
* The tokens that all classes share (SOS, prompts, common first words) run once, not once per class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from .anatomy import is_vit, token_embeddings
from .attention import causal_mask, draws, finish_block, keys_values, queries, queries_keys_values
from .stock import CLIP, Block, VisionTower

# Rough number of floats that one text token of one class takes in a block when no graph is kept, in multiples of the
# width: residual stream, normalised copy, queries, keys, values, and twice the four-fold hidden layer of the MLP.
FLOATS_PER_TOKEN = 14
Prompts = Sequence["Tensor | None"]
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


def encode_image(clip: CLIP, images: Tensor, prompts: Prompts = (), mask: Tensor | None = None) -> Tensor:
    """Encode images with prompt tokens appended to the patches.

    Args:
        clip: Stock CLIP with a ViT visual tower; a ResNet tower takes no prompts.
        images: (B, 3, H, W), normalised as CLIP expects them.
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
    x = _embed_patches(visual, images)
    blocks = visual.transformer.resblocks
    prompts = _as_prompts(prompts, x, blocks, "visual")
    if len(prompts):
        prompts = [visual.ln_pre(prompts[0]), *prompts[1:]]
    read = torch.zeros(x.shape[0], dtype=torch.long, device=x.device)
    x = _run_blocks(blocks, x, prompts, x.shape[1], mask, read)
    return visual.ln_post(x) @ visual.proj


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
    x = _embed_patches(visual, images.type(clip.dtype))
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
    x = _embed_patches(visual, images.type(clip.dtype))
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


def encode_text(clip: CLIP, sentences: Sentences, prompts: Prompts = (), budget_mb: int = 256) -> Tensor:
    """Encode class sentences with prompt tokens inserted right after SOS.

    Args:
        clip: Stock CLIP.
        sentences: From :func:`embed_tokens`, or put together from learned embeddings.
        prompts: One tensor a prompted layer: (E, D) for all images, or (B, E, D) when they depend on the image; or, in
            any of the layers, (B or 1, C, E, D) when they depend on the class.
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
    layers = _as_prompts(prompts, x, blocks, "text")
    inserted = layers[0].shape[-2] if layers else 0
    words = x.shape[1]
    length = words + inserted
    if length > clip.context_length:
        raise ValueError(
            f"the longest class sentence has {words} tokens with SOS and EOT, and {inserted} more are "
            f"inserted: {length} is above CLIP's context of {clip.context_length}; shorten the class name or "
            "the prompt"
        )
    order = torch.tensor([0, *range(1 + inserted, length), *range(1, 1 + inserted)], device=x.device)
    position = clip.positional_embedding.type(x.dtype)[:length][order]  # words first, inserted tokens last
    x = x + position[:words]
    if layers:
        layers[0] = layers[0] + position[words:]
    mask = causal_mask(length, x.device)

    grouped = any(p is not None and p.dim() > 2 for p in layers)
    # No prefix is shared with prompts of classes, tokens that are overwritten after a layer without prompts, or blocks
    # that drop other entries in each class.
    if any(p is None or p.dim() == 4 for p in layers) or any(map(draws, blocks)):
        features = _encode_unshared(blocks, x, layers, mask, eot)
    else:
        visible = mask[order][:, order]  # rows and columns as [words][inserted]
        features = _encode_shared(blocks, x, layers, visible, eot, shared, budget_mb)
    features = clip.ln_final(features).type(x.dtype) @ clip.text_projection
    return features if grouped else features.squeeze(0)


def _embed_patches(visual: VisionTower, images: Tensor) -> Tensor:
    """Cut images into patches, put CLS in front, add positions; (B, 1 + P, D)."""
    x = visual.conv1(images).flatten(2).transpose(1, 2)  # (B, P, D)
    cls = visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
    return visual.ln_pre(torch.cat([cls, x], dim=1) + visual.positional_embedding.to(x.dtype))


def _as_prompts(prompts: Prompts, x: Tensor, blocks: Sequence[Block], tower: str) -> list:
    """Check prompts against a tower, and cast them to the dtype of its tokens.

    Args:
        prompts: See :func:`encode_image` and :func:`encode_text`.
        x: Tokens of the tower without prompts, (N, T, D).
        blocks: The tower's blocks.
        tower: Name of the tower, for errors.

    Returns:
        One entry a prompted layer; the first and the last are tensors.
    """
    if len(prompts) > len(blocks):
        raise ValueError(
            f"{len(prompts)} {tower} layers are to be prompted, but the {tower} tower has {len(blocks)}; "
            f"allowed depths are 0 to {len(blocks)}"
        )
    if len(prompts) and (prompts[0] is None or prompts[-1] is None):
        raise ValueError(
            f"the first and the last of the {len(prompts)} prompted {tower} layers must have prompts, "
            "and one of them has None"
        )
    width = x.shape[-1]  # but not len(x) before it is needed: an exporter would fix the number of images
    shapes = {tuple(p.shape) for p in prompts if p is not None and p.dim() < 4}
    by_class = {tuple(p.shape) for p in prompts if p is not None and p.dim() > 3}
    every = shapes | by_class
    fit = (
        len(shapes) <= 1
        and all(len(shape) >= 2 for shape in shapes)
        and all(len(shape) == 4 and shape[1] == len(x) for shape in by_class)
        and len({shape[-2:] for shape in every}) <= 1
        and all(shape[-1] == width for shape in every)
    )
    if not fit:
        also = f", and those that depend on the class (B, {len(x)}, E, {width})" if by_class else ""
        raise ValueError(f"{tower} prompts must all be (E, {width}) or all (B, E, {width}){also}, got {sorted(every)}")
    return [None if p is None else p.to(x.dtype) for p in prompts]


def _run_blocks(
    blocks: Sequence[Block], x: Tensor, prompts: Prompts, slot: int, mask: Tensor | None, read: Tensor
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
    e = next((p.shape[-2] for p in prompts if p is not None), 0)
    rows = torch.arange(n, device=x.device)
    inserted = torch.arange(slot, slot + e, device=x.device)
    own = torch.cat([torch.arange(slot, device=x.device), torch.arange(slot + e, t + e, device=x.device)])
    # While the prompts are keys and values only: positions of the queries, and of the keys.
    aside = own, torch.cat([own, inserted])
    if mask is not None:
        mask = mask.to(x.device)
    extra: Tensor | None = None  # the inserted tokens while they are keys and values only
    position = read
    for layer, block in enumerate(blocks, start=1):
        given = prompts[layer - 1] if layer <= len(prompts) else None
        if given is not None:
            extra = given.expand(n, -1, -1)
        overwritten = layer < len(prompts) and prompts[layer] is not None
        if extra is not None and not overwritten and layer < len(blocks):
            # From here on they are ordinary tokens.
            x = torch.cat([x[:, :slot], extra, x[:, slot:]], dim=1)
            extra, position = None, read + e * (read >= slot)
        elif extra is None and e and overwritten:
            # And here they no longer are.
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


def _encode_unshared(blocks: Sequence[Block], x: Tensor, prompts: Prompts, mask: Tensor, eot: Tensor) -> Tensor:
    """Encode every class of every image as a sequence of its own; (B or 1, C, D).

    Args:
        blocks: The text tower's blocks.
        x: Words with positions, (C, T, D).
        prompts: Prompts of each layer.
        mask: (T + E, T + E), in the order of the sequence.
        eot: Position of EOT among the words, (C,).
    """
    c = x.shape[0]
    b = max((p.shape[0] for p in prompts if p is not None and p.dim() > 2), default=1)

    def of_sequences(p: Tensor | None) -> Tensor | None:
        """Repeat the prompts of a layer for all sequences, (B C, E, D); those for all stay (E, D)."""
        if p is None or p.dim() == 2:
            return p
        by_class = p if p.dim() == 4 else p.unsqueeze(1)
        return by_class.expand(b, c, -1, -1).flatten(0, 1)

    sequences = x.expand(b, *x.shape).flatten(0, 1)  # (B C, T, D)
    return _run_blocks(blocks, sequences, [of_sequences(p) for p in prompts], 1, mask, eot.repeat(b)).unflatten(
        0, (b, c)
    )


def _encode_shared(
    blocks: Sequence[Block],
    x: Tensor,
    prompts: Sequence[Tensor],
    visible: Tensor,
    eot: Tensor,
    shared: int,
    budget_mb: int,
) -> Tensor:
    """Encode text whose first ``shared`` words are the same in all classes; (B or 1, C, D).

    Args:
        blocks: The text tower's blocks.
        x: Words with positions, (C, T, D).
        prompts: Prompts of each layer, (E, D) or (B, E, D).
        visible: The causal mask with rows and columns ordered ``[words][inserted]``, (T + E, T + E).
        eot: Position of EOT among the words, (C,).
        shared: Number of words that all classes share; at least 1.
        budget_mb: See :func:`encode_text`.
    """
    words = x.shape[1]
    prompts = [p if p.dim() == 3 else p.unsqueeze(0) for p in prompts]  # (B or 1, E, D)
    prefix = _prefix_keys_values(blocks, x[:1, :shared], prompts, visible, words)
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
    for rows in order.split(_chunk_sizes(lengths[order], step)):
        length = int(lengths[rows].max())
        chunks.append(_run_tails(blocks, tails[rows, :length], prefix, visible[:length, : before + length], read[rows]))
    return torch.cat(chunks, dim=1)[:, order.argsort()]


def _chunk_sizes(lengths: Tensor, step: int) -> list[int]:
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
    blocks: Sequence[Block], x: Tensor, prompts: Sequence[Tensor], visible: Tensor, words: int
) -> list[tuple[Tensor, Tensor]]:
    """Run the class-independent tokens once.

    Args:
        blocks: The text tower's blocks.
        x: The shared words with positions, (1, S, D).
        prompts: Prompts of each layer, (B or 1, E, D).
        visible: The causal mask with rows and columns ordered ``[words][inserted]``.
        words: Number of all words, T.

    Returns:
        Keys and values of each layer, (B or 1, S + E, D), ordered ``[shared words][inserted]``.
    """
    shared, out = x.shape[1], []
    e = prompts[0].shape[1] if len(prompts) else 0
    if e:
        x = x.expand(len(prompts[0]), -1, -1)
    index = torch.tensor([*range(shared), *range(words, words + e)], device=x.device)
    visible = visible[index][:, index]
    for layer, block in enumerate(blocks, start=1):
        extra = prompts[layer - 1] if layer <= len(prompts) else None
        if extra is not None and layer == len(prompts) and layer < len(blocks):
            # From here on they are ordinary tokens.
            x, extra = torch.cat([x, extra], dim=1), None
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


def _run_tails(
    blocks: Sequence[Block], x: Tensor, prefix: Sequence[tuple[Tensor, Tensor]], visible: Tensor, read: Tensor
) -> Tensor:
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
    x = x.unsqueeze(0)  # (1, C, T, D): the first layer's projections do not depend on the image yet
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
