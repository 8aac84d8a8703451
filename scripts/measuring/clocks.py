"""Measure the seconds and the memory of a call, and what the machine can do at most."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import time
from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")
CPU = torch.device("cpu")


def matmul_peak(args: argparse.Namespace, by_cpu: bool = False) -> float:
    """Measure the device's matmul rate in the precision of the run, FLOP/s; ``by_cpu`` per second of CPU time."""
    cuda = args.device.type == "cuda"
    dtype = torch.float16 if cuda and args.prec in ("amp", "fp16") else torch.float32
    size = 8192 if cuda else 3072
    a, b = torch.randn(2, size, size, device=args.device, dtype=dtype)
    best = min(timed(lambda: a @ b, args.device)[int(by_cpu)] for _ in range(6))
    return 2 * size**3 / best


def timed(function: Callable[[], Result], device: torch.device = CPU) -> tuple[float, float, Result]:
    """Return wall seconds, CPU seconds and the result of a call, waiting for the GPU."""
    synchronise = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronise()
    wall, cpu = time.perf_counter(), time.process_time()
    out = function()
    synchronise()
    return time.perf_counter() - wall, time.process_time() - cpu, out


def held_mb(device: torch.device) -> float:
    """Memory in use: allocated on the GPU, or resident in this process (0 where /proc is missing), MiB."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return 0.0


def release_memory() -> None:
    """Give freed memory back to the system, so that peaks of one path do not show in the other."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
