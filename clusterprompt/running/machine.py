"""Cores and GPUs of this machine, and how runs side by side share them."""

from __future__ import annotations

import os

MOST_JOBS = 4  # of the embedded world: about a GB each


def default_jobs(drawn: bool) -> int:
    """Return how many runs go side by side.

    Args:
        drawn: All runs are of drawn data: one run a core. Others: one a GPU, or one that has all cores.
    """
    return min(available_cores(), MOST_JOBS) if drawn else max(1, len(gpus()))


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_limits(jobs: int) -> dict[str, str]:
    """Return variables that keep ``jobs`` runs side by side from taking each other's cores."""
    return {"OMP_NUM_THREADS": str(max(1, available_cores() // jobs))} if jobs > 1 else {}


def gpu_choice(slot: int) -> dict[str, str]:
    """Return the variable that gives the run in a slot its GPU; empty where there is no choice."""
    return {"CUDA_VISIBLE_DEVICES": gpus()[slot % len(gpus())]} if len(gpus()) > 1 else {}


def gpus() -> list[str]:
    """Return the GPUs by the names that CUDA_VISIBLE_DEVICES takes."""
    import torch

    chosen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return chosen[: torch.cuda.device_count()] or [str(i) for i in range(torch.cuda.device_count())]


def duration(seconds: float) -> str:
    """Write a duration in words, rounded."""
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(10, round(seconds, -1)):.0f} s"
