"""Run a tower's blocks over sequences into which tokens are inserted; `encoders.py` says what can be inserted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from .attention import finish_block, keys_values, queries, queries_keys_values
from .stock import Block

Change: TypeAlias = Callable[[Tensor], Tensor]
Prompts: TypeAlias = Sequence["Tensor | Change | None"]
Beside: TypeAlias = Callable[[str, int, Tensor], "Tensor | None"]


class Tower(NamedTuple):
    """A tower as it is run.

    Attributes:
        name: ``visual`` or ``text``.
        blocks: Its residual attention blocks.
        beside: From the tower's name, a layer (1 to L) and tokens at its input, (..., D), to what is added to the
            block's output for them; None for nothing. It looks at each token alone.
    """

    name: str
    blocks: Sequence[Block]
    beside: Beside | None = None

    def finish(self, layer: int, x: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the new states of the querying tokens; see :func:`.attention.finish_block`."""
        out = finish_block(self.blocks[layer - 1], x, q, k, v, mask)
        added = self.beside(self.name, layer, x) if self.beside else None
        return out if added is None else out + added.to(out.dtype)


class Slots:
    """The inserted tokens while a tower runs: not there yet, among the others, or set aside as keys and values only.

    They are set aside where no later layer reads their new states.

    Args:
        prompts: What each layer inserts, from :func:`as_prompts`.
        slot: Position of the first inserted token.
        last: Layer at whose input they stay aside; 0 for none.

    Attributes:
        count: Number of inserted tokens, E.
        aside: Their states while they are set aside, (N, E, D), or (1, E, D) where all sequences have the same.
        inside: Whether they are among the others.
    """

    def __init__(self, prompts: Prompts, slot: int, last: int):
        self.prompts, self.slot, self.last = prompts, slot, last
        self.count = next((p.shape[-2] for p in prompts if isinstance(p, Tensor)), 0)
        self.aside: Tensor | None = None
        self.inside = False

    def enter(self, layer: int, x: Tensor) -> Tensor:
        """Give the inserted tokens their states at the input of a layer.

        Args:
            layer: 1 to L, each in turn.
            x: The sequence, (N, T, D) or, with the tokens inside, (N, T + E, D).

        Returns:
            The sequence, with the tokens or without them.
        """
        given, slot, end = self._given(layer), self.slot, self.slot + self.count
        if isinstance(given, Tensor):
            self.aside = given if given.dim() == 3 else given.unsqueeze(0)
        elif given is not None:
            x = torch.cat([x[:, :slot], given(x[:, slot:end]).to(x.dtype), x[:, end:]], dim=1)
        overwritten = isinstance(self._given(layer + 1), Tensor)
        if self.aside is not None and not overwritten and layer != self.last:
            # From here on they are ordinary tokens.
            x = torch.cat([x[:, :slot], self.aside.expand(x.shape[0], -1, -1), x[:, slot:]], dim=1)
            self.aside, self.inside = None, True
        elif self.inside and overwritten:
            # And here they no longer are.
            self.aside, x = x[:, slot:end], torch.cat([x[:, :slot], x[:, end:]], dim=1)
            self.inside = False
        return x

    def with_aside(self, block: Block, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Put the keys and values of the tokens set aside, if there are any, behind those of a sequence, (N, T, D)."""
        if self.aside is None:
            return k, v
        more_k, more_v = (y.expand(k.shape[0], -1, -1) for y in keys_values(block, self.aside))
        return torch.cat([k, more_k], dim=1), torch.cat([v, more_v], dim=1)

    def _given(self, layer: int) -> Tensor | Change | None:
        """Return what is given to the slots at the input of a layer."""
        return self.prompts[layer - 1] if layer <= len(self.prompts) else None


def as_prompts(prompts: Prompts, x: Tensor, tower: Tower, bare: bool = False) -> list[Tensor | Change | None]:
    """Check prompts against a tower, and cast them to the dtype of its tokens.

    Args:
        prompts: See `encoders.py`.
        x: Tokens of the tower without prompts, (N, T, D).
        tower: The tower.
        bare: The prompts may enter at a later layer than the first.

    Returns:
        One entry a prompted layer; the last is given, and the first that is is a tensor.

    Raises:
        ValueError: More prompted layers than layers, or tensors that do not fit.
    """
    name, layers = tower.name, len(tower.blocks)
    if len(prompts) > layers:
        raise ValueError(
            f"{len(prompts)} {name} layers are to be prompted, but the {name} tower has {layers}; "
            f"allowed depths are 0 to {layers}"
        )
    if len(prompts) and ((prompts[0] is None and not bare) or prompts[-1] is None):
        raise ValueError(
            f"the first and the last of the {len(prompts)} prompted {name} layers must have prompts, "
            "and one of them has None"
        )
    if not isinstance(next((p for p in prompts if p is not None), x), Tensor):
        raise ValueError(f"the first {name} prompts must be a tensor: there are no states yet that a function changes")
    width = x.shape[-1]  # but not len(x) before it is needed: an exporter would fix the number of images
    tensors = [p for p in prompts if isinstance(p, Tensor)]
    shapes = {tuple(p.shape) for p in tensors if p.dim() < 4}
    by_class = {tuple(p.shape) for p in tensors if p.dim() > 3}
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
        raise ValueError(f"{name} prompts must all be (E, {width}) or all (B, E, {width}){also}, got {sorted(every)}")
    return [p.to(x.dtype) if isinstance(p, Tensor) else p for p in prompts]


def run_blocks(
    tower: Tower, x: Tensor, prompts: Prompts, slot: int, mask: Tensor | None, read: Tensor, inserted: bool = False
) -> Tensor:
    """Run one sequence per row through a tower and return the states that are read.

    Args:
        tower: The tower.
        x: Input of layer 1 without prompts, (N, T, D).
        prompts: Tokens of each prompted layer, (E, D) or (N, E, D), a function of their states, or None.
        slot: Position of the first inserted token.
        mask: (T + E, T + E) or None.
        read: Position (inserted tokens not counted) of the row to return, (N,).
        inserted: Also return the inserted tokens' states.

    Returns:
        (N, D), or with the inserted tokens behind it (N, 1 + E, D).
    """
    n, t = x.shape[:2]
    slots = Slots(prompts, slot, last=0 if inserted else len(tower.blocks))
    e = slots.count
    rows = torch.arange(n, device=x.device)
    own = torch.cat([torch.arange(slot, device=x.device), torch.arange(slot + e, t + e, device=x.device)])
    theirs = torch.arange(slot, slot + e, device=x.device)
    # While the inserted tokens are keys and values only: positions of the queries, and of the keys.
    aside = own, torch.cat([own, theirs])
    if mask is not None:
        mask = mask.to(x.device)
    for layer, block in enumerate(tower.blocks, start=1):
        x = slots.enter(layer, x)
        visible = mask
        if mask is not None and slots.aside is not None:
            visible = mask[aside[0]][:, aside[1]]
        elif mask is not None and not slots.inside:
            visible = mask[own][:, own]
        if layer < len(tower.blocks):
            q, k, v = queries_keys_values(block, x)
        else:
            k, v = keys_values(block, x)
            position = read + e * (read >= slot) if slots.inside else read
            if inserted:
                every = torch.cat([position[:, None], theirs.expand(n, -1)], dim=1)  # (N, 1 + E)
                x = x[rows[:, None], every]
                visible = visible if visible is None else visible[every].unsqueeze(1)
            else:
                x = x[rows, position].unsqueeze(1)  # (N, 1, D)
                visible = visible if visible is None else visible[position][:, None, None]  # (N, 1, 1, keys)
            q = queries(block, x)
        x = tower.finish(layer, x, q, *slots.with_aside(block, k, v), visible)
    return x if inserted else x.squeeze(1)
