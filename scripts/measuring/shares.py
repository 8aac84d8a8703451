"""Shares of the time of a step or a test: where it is spent (towers, the rest) and on what kind of work.

Torch's profiler gives each operation's own time. An operation of the forward pass belongs to the tower inside whose
function it runs, one of the backward pass to the tower of the operation that it differentiates.
"""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from torch.profiler import ProfilerActivity, profile, record_function

from clusterprompt.clip_patches import encoders

from .cases import Step, Test
from .clocks import CPU, timed

STEP = "whole step"
TOWERS = {
    "vision": ("encode_image", "encode_image_inserted", "encode_image_layers"),
    "text": ("encode_text",),
}
KINDS = {  # the first that is found in an operation's name, or in the name of one that it runs in
    "attention": r"scaled_dot_product|softmax|bmm",
    "linear": r"^aten::(addmm|mm|addmv|mv|dot)$|convolution",
    "memory": r"^aten::(copy_|cat|fill_|zero_|index|index_put|_index_put_impl_|index_select|embedding|select_backward"
    r"|slice_backward|clone|repeat|contiguous|empty|zeros|resize|malloc|narrow|_to_copy|constant_pad_nd|flip|gather"
    r"|scatter|new_|ones|full)",
    "elementwise": r"layer_norm|mul|add|sub|div|sigmoid|silu|gelu|relu|where|sum|neg|pow|sqrt|exp|tanh|norm|mean",
}


def shares(run: Step | Test) -> tuple[dict[str, float], float]:
    """Profile one run on the CPU.

    Returns:
        Shares by place (``vision``, ``text``, ``outside``) and by kind of work inside the towers (``linear``,
        ``attention``, ``elementwise``, ``memory``, ``other``), of which each group adds up to 1, with ``outside`` in
        both; and the CPU seconds of the run.
    """
    run(keep=True)  # what is computed once
    with in_towers(), profile(activities=[ProfilerActivity.CPU]) as found, record_function(STEP):
        seconds = timed(lambda: run(keep=True))[1]
    events: list[Any] = list(found.events())
    forward = {e.sequence_nr: tower_of(e) for e in events if e.sequence_nr >= 0 and not backward(e)}
    spent: dict[str, float] = defaultdict(float)
    for event in events:
        if not inside(event, STEP):
            continue
        tower = tower_of(event, forward)
        spent[tower or "outside"] += event.self_cpu_time_total
        if tower:
            spent[kind_of(event)] += event.self_cpu_time_total
    total = sum(spent[place] for place in (*TOWERS, "outside"))
    return {name: spent[name] / total for name in (*TOWERS, "outside", *KINDS, "other")}, seconds


@contextlib.contextmanager
def in_towers() -> Iterator[None]:
    """Mark what runs inside the towers' functions."""

    def marked(tower: str, function: Callable) -> Callable:
        def run(*args: Any, **kwargs: Any) -> Any:
            with record_function(tower):
                return function(*args, **kwargs)

        return run

    with contextlib.ExitStack() as stack:
        for tower, names in TOWERS.items():
            for name in names:
                function = marked(tower, getattr(encoders, name))
                stack.enter_context(mock.patch.object(encoders, name, function))
        yield


def chain(event: Any) -> Iterator[Any]:
    """Yield an event and those that it runs in, inwards out."""
    while event is not None:
        yield event
        event = event.cpu_parent


def inside(event: Any, name: str) -> bool:
    """Tell whether an event is, or runs in, one of a name."""
    return any(e.name == name for e in chain(event))


def tower_of(event: Any, forward: dict[int, str] | None = None) -> str:
    """Return the tower of an event, empty for none.

    Args:
        event: Of the profiler.
        forward: From the sequence numbers of the forward pass to their towers, for events of the backward pass.
    """
    for e in chain(event):
        if e.name in TOWERS:
            return e.name
        if forward is not None and backward(e):
            return forward.get(e.sequence_nr, "")
    return ""


def backward(event: Any) -> bool:
    """Tell whether an event is a node of the backward pass; its number is that of the operation it differentiates."""
    return event.scope == 1 or event.name.startswith("autograd::engine")


def kind_of(event: Any) -> str:
    """Return the kind of work of an operation."""
    names = [e.name for e in chain(event) if e.name.startswith("aten::")]
    for kind, pattern in KINDS.items():
        if any(re.search(pattern, name) for name in (names if kind == "attention" else names[:1])):
            return kind
    return "other"


def loading_seconds(trainer: Any) -> float:
    """Return the CPU seconds of reading and augmenting one batch, in one process without workers."""
    loader = trainer.train_loader_x
    next(iter(loader))  # what is imported on first use
    return timed(lambda: next(iter(loader)), CPU)[1]
