"""Run a step or a test on the fast path and on the plain one, and compare them."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from clusterprompt.clip_patches import encoders, plain
from clusterprompt.record import measure

from .cases import Step, Test
from .clocks import held_mb, release_memory, timed


class Measured(NamedTuple):
    """The best of the repeats on one path.

    Attributes:
        wall: Seconds.
        cpu: CPU seconds of all threads.
        mb: Peak memory above what the process held before, MiB.
        out: What the last repeat returned.
    """

    wall: float
    cpu: float
    mb: float
    out: Any


def compare(what: str, run: Step | Test, args: argparse.Namespace, classes: int) -> dict[str, Any]:
    """Run both paths in turn, or the fast one alone; return one row of the table, with the fast one's FLOP/s."""
    chunky = what == "step" and classes > args.plain_chunk
    paths = ["fast"] if args.fast_only else ["plain", "fast"]
    runs: dict[str, list[Measured]] = {path: [] for path in paths}
    for _ in range(args.repeats):
        for path in paths:
            runs[path].append(measured(run, path, args, chunky))
    best = {
        path: Measured(*(min(r[i] for r in found) for i in range(3)), found[-1].out) for path, found in runs.items()
    }
    fast, slow = best["fast"], best.get("plain")
    row: dict[str, Any] = {"what": what, "classes": classes, "images": run.images}
    if slow is not None:
        row |= {"plain s": round(slow.wall, 2), "fast s": round(fast.wall, 2), "ratio": round(slow.wall / fast.wall, 2)}
        row |= {"plain CPU-s": round(slow.cpu, 2), "fast CPU-s": round(fast.cpu, 2)}
        row |= {"CPU ratio": round(slow.cpu / fast.cpu, 2), "plain MB": "-" if chunky else round(slow.mb)}
        row |= {"fast MB": round(fast.mb), "memory": "-" if chunky else round(fast.mb / slow.mb, 2)}
        row |= {"max diff": f"{run.difference(fast.out, slow.out):.1e}"}
    else:
        row |= {"fast s": round(fast.wall, 2), "fast CPU-s": round(fast.cpu, 2), "fast MB": round(fast.mb)}
    return row | {"rate": operations(what, run) / fast.wall}


def measured(run: Step | Test, path: str, args: argparse.Namespace, chunky: bool = False) -> Measured:
    """Run once.

    Args:
        run: What is measured.
        path: ``fast`` or ``plain``.
        args: With device and plain_chunk.
        chunky: The plain path takes the classes in chunks.
    """
    discount = Discount()
    slow_text = chunked(plain.encode_text, args.plain_chunk, discount) if chunky else plain.encode_text
    with contextlib.ExitStack() as stack:
        if path == "plain":
            stack.enter_context(mock.patch.object(encoders, "encode_text", slow_text))
            for name in ("encode_image", "encode_image_inserted"):
                stack.enter_context(mock.patch.object(encoders, name, getattr(plain, name)))
        release_memory()
        held = held_mb(args.device)
        measure.reset_peak_memory(args.device)
        wall, cpu, out = timed(partial(run, keep=path == "fast"), args.device)
        memory = measure.peak_memory_mb(args.device) - held
    return Measured(wall - discount.wall, cpu - discount.cpu, memory, out)


def operations(what: str, run: Step | Test) -> int:
    """Count the floating-point operations of a step or a test on the fast path."""
    learned = list(run.trainer.learner.parameters()) if run.trainer.learner is not None else []
    for p in learned:
        p.requires_grad_(what == "step")  # the counter stumbles over learned inputs of a module without a graph
    with FlopCounterMode(display=False) as counter:
        run(keep=True)
    for p in learned:
        p.requires_grad_(True)
    return counter.get_total_flops()


class Discount:
    """Time that a chunked plain path spends on the forward pass it has to do twice."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0


def chunked(encode_text: Callable, size: int, discount: Discount) -> Callable:
    """Make an encoder take its classes in chunks that keep no graph; count the time of the first forward pass."""

    def encode(clip, sentences, prompts=(), *args, **kwargs):
        def part(embeddings, eot, *prompts):
            return encode_text(clip, encoders.Sentences(embeddings, eot, 1), prompts, *args, **kwargs)

        out = []
        for classes in zip(sentences.embeddings.split(size), sentences.eot.split(size)):
            wall, cpu, features = timed(partial(checkpoint, part, *classes, *prompts, use_reentrant=False))
            discount.wall, discount.cpu = discount.wall + wall, discount.cpu + cpu
            out.append(features)
        return torch.cat(out, dim=-2)

    return encode
