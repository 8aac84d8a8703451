"""Train one model with several processes, one a GPU: ``torchrun --nproc_per_node N`` before ``clusterprompt train``.

All processes load the same batches and draw the same random numbers; each computes its share of the images, and
`trainers/parts/ranks.py` adds up the gradients. The first process alone owns the output folder. The others do what it
does in a folder of their own, which is thrown away.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from ..trainers.parts import ranks

TIMEOUT = timedelta(minutes=30)  # the first process may download a CLIP while the others wait
Value = TypeVar("Value")


class ProcessLostError(OSError):
    """Another process of this run has ended or does not answer."""


@contextmanager
def joined(use_cuda: bool) -> Iterator[None]:
    """Join the processes that torchrun has started; without torchrun, nothing happens.

    Args:
        use_cuda: Whether the run uses GPUs, if there are any.

    Raises:
        ValueError: More processes than GPUs.
        ProcessLostError: Another process ended; said by one process for all.
    """
    if not launched():
        yield
        return
    cuda = torch.cuda.is_available() and use_cuda
    store, number, processes = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))
    if cuda:
        gpu = dist.get_node_local_rank(fallback_rank=0)
        if gpu >= torch.cuda.device_count():
            raise ValueError(
                f"torchrun has started more processes than the {torch.cuda.device_count()} GPUs of this machine; set "
                "--nproc_per_node to their number"
            )
        torch.cuda.set_device(gpu)
    backend = "nccl" if cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=processes, timeout=TIMEOUT)
    before: Any = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    except (RuntimeError, ProcessLostError) as error:
        if not _is_lost(error):
            raise
        before = signal.SIG_IGN  # for torchrun's SIGTERM, so that the message below is printed
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's prints a stack as the loaders' workers end
        if store.add("lost", 1) > 1:  # another process says it
            raise SystemExit(2) from error
        raise ProcessLostError(
            f"one of the {processes} processes of this run has ended or does not answer: the run stops. The same "
            "command with --resume goes on after its last whole epoch"
        ) from error
    finally:
        signal.signal(signal.SIGTERM, before)
        if dist.is_initialized():
            dist.destroy_process_group()


def launched() -> bool:
    """Tell whether torchrun has started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


def restarted() -> bool:
    """Tell whether torchrun has started this run again, after one of its processes was lost."""
    return launched() and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def in_first(work: Callable[[], Value]) -> Value | None:
    """Do something in the first process while the others wait; if it fails there, they stop.

    Returns:
        What ``work`` returns; None in the other processes.
    """
    if ranks.count() == 1:
        return work()
    done = [False]
    if ranks.rank() > 0:
        dist.broadcast_object_list(done, src=0)
        if not done[0]:
            raise SystemExit(2)  # the first process says why
        return None
    try:
        value = work()
        done = [True]
        return value
    finally:
        dist.broadcast_object_list(done, src=0)


def of_first(value: Value) -> Value:
    """Return the first process's value in all processes."""
    if ranks.count() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


@contextmanager
def quiet_unless_first() -> Iterator[None]:
    """Print nothing in the processes after the first, neither results nor the errors that all of them meet."""
    if not launched() or int(os.environ["RANK"]) == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        try:
            yield
        except (ValueError, FileNotFoundError, FloatingPointError) as error:
            raise SystemExit(2) from error  # the first process says it


def check(cfg: Any) -> None:
    """Refuse settings with which several processes cannot train one model.

    Raises:
        ValueError: No seed, so that the processes would draw different images.
    """
    if launched() and cfg.SEED < 0:
        raise ValueError("several processes draw the same images only by a seed: give --seed, 0 or more")


@contextmanager
def follower(cfg: Any, resumes: bool) -> Iterator[Any]:
    """Give each process but the first an output folder of its own, which is thrown away.

    Args:
        cfg: The config, the same in all processes.
        resumes: The run goes on in its output folder.

    Yields:
        The config of this process.
    """
    if ranks.rank() == 0:
        yield cfg
        return
    with tempfile.TemporaryDirectory() as folder:
        own = cfg.clone()
        own.defrost()
        if resumes or own.RESUME == own.OUTPUT_DIR:
            own.RESUME = own.OUTPUT_DIR if resumes else ""
        own.OUTPUT_DIR = folder
        own.freeze()
        yield own


def _is_lost(error: Exception) -> bool:
    """Tell whether an error of torch says that another process is gone."""
    if isinstance(error, ProcessLostError | dist.DistError):
        return True
    words = str(error).lower()
    return any(word in words for word in ("gloo", "nccl", "connection closed", "connection reset"))


def _stop(number: int, frame: object) -> None:
    """Take torchrun's SIGTERM, which it sends when another process has ended."""
    raise ProcessLostError(f"stopped by signal {number}")
