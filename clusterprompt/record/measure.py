"""Measure the conditions and the cost of a run: versions, commit, device, peak memory."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # records are read without torch, which takes seconds to import
    import torch

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "scikit-learn")


def versions() -> dict:
    """Return the versions of the packages that can change a number, ours and Dassl's included."""
    import dassl

    from .. import __version__

    found = {
        "clusterprompt": __version__,
        "python": platform.python_version(),
        "dassl": f"{getattr(dassl, '__version__', '?')} ({getattr(dassl, 'IMPLEMENTATION', 'Dassl.pytorch')})",
    }
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "?"
    return found


def commit() -> str:
    """Return the checkout's commit, with ``+`` when files differ from it; empty outside a git checkout."""
    here = Path(__file__).resolve().parents[2]

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *args], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != here:
            return ""  # installed, in an environment inside another project's checkout
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def device_name(device: torch.device) -> str:
    """Return ``cpu (2 threads)`` or the name of the GPU."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.get_num_threads()} threads)"


def processes() -> int:
    """Return how many processes train the model together."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def reset_peak_memory(device: torch.device) -> None:
    """Start measuring :func:`peak_memory_mb`."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: reset the process's high-water mark
    except OSError:
        pass


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory since the reset: allocated on the GPU, or resident in this process on a CPU; MiB."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        status = ""
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    if found:
        return int(found.group(1)) / 2**10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**10 if platform.system() == "Linux" else 2**20)


def free_memory_mb(device: torch.device) -> float:
    """Return the memory that is free on the GPU, or on the machine; MiB."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0] / 2**20
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20
