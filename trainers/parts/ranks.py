"""The processes that train one model together: who this one is, its share of a batch, and sums over all of them.

Without a process group there is one process, and everything here leaves its argument as it is. `running/together.py`
starts the group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...record.measure import processes


def count() -> int:
    """Return the number of processes."""
    return processes()


def check() -> None:
    """Refuse to train in processes that torchrun has started and that do not know of one another.

    Raises:
        ValueError: A host's train.py was started by torchrun; each process would train a model of its own.
    """
    if dist.is_available() and dist.is_torchelastic_launched() and not dist.is_initialized():
        raise ValueError(
            "torchrun was given a train.py that does not join its processes; several processes train one model with "
            "`torchrun --nproc_per_node N -m clusterprompt train ...` only"
        )


def rank() -> int:
    """Return the number of this process, from 0 on."""
    return dist.get_rank() if count() > 1 else 0


def share(size: int) -> slice:
    """Return which of ``size`` rows are this process's: consecutive ones, none if there are too few for all."""
    each, rest = divmod(size, count())
    start = rank() * each + min(rank(), rest)
    return slice(start, start + each + (rank() < rest))


def gather(rows: Tensor) -> Tensor:
    """Return the rows of all processes, in their order; no gradient flows through.

    Args:
        rows: (N, ...); N may differ between the processes, and be 0.
    """
    if count() == 1:
        return rows
    sizes = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(count())]
    dist.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
    lengths = [int(size) for size in sizes]
    padded = rows.new_zeros(max(lengths), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    parts = [torch.empty_like(padded) for _ in range(count())]
    dist.all_gather(parts, padded)
    return torch.cat([part[:length] for part, length in zip(parts, lengths)])


def total(values: Sequence[float]) -> list[float]:
    """Return the sums of numbers over all processes."""
    if count() == 1:
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64, device=_device())
    dist.all_reduce(sums)
    return sums.tolist()


def add_gradients(weights: Iterable[nn.Parameter]) -> None:
    """Replace each weight's gradient by the sum over all processes; one that has none anywhere keeps none."""
    if count() == 1:
        return
    learned = [w for w in weights if w.requires_grad]
    known = torch.tensor([w.grad is not None for w in learned], dtype=torch.int32, device=_device())
    dist.all_reduce(known, dist.ReduceOp.MAX)
    learned = [w for w, somewhere in zip(learned, known.tolist()) if somewhere]
    sums = add([torch.zeros_like(w) if w.grad is None else w.grad for w in learned])
    for weight, gradient in zip(learned, sums):
        weight.grad = gradient


def add(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the sums of fp32 tensors over all processes; one message for all of them."""
    if count() == 1 or not tensors:
        return list(tensors)
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    return [part.view_as(tensor) for part, tensor in zip(flat.split([t.numel() for t in tensors]), tensors)]


@contextmanager
def own_randomness(step: int) -> Iterator[None]:
    """Give each process random numbers of its own inside the block; the generators stay as they were.

    They must agree in all processes, since the order of the images and their augmentation are drawn from them.

    Args:
        step: Number of the training step, so that each draws others.
    """
    if count() == 1:
        yield
        return
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(int(torch.randint(2**31, ())) + step * count() + rank())
        yield


def _device() -> torch.device:
    """Return where the process group wants its messages."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
