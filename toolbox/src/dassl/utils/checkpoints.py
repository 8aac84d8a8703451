"""Checkpoints: written whole or not at all, read without running code.

Layout of a run's folder: ``<output_dir>/<model name>/model.pth.tar-<epoch>`` (or ``model-best.pth.tar``) and, beside
it, a text file ``checkpoint`` that names the file written last. Content: a dict with ``state_dict``, ``epoch`` (index
of the next epoch), ``optimizer``, ``scheduler``, ``val_result``.
"""

import os
import re
import shutil
import warnings
from collections import OrderedDict

import torch

from .atomic import atomic_path
from .errors import CheckpointError
from .tools import mkdir_if_missing

POINTER = "checkpoint"
BEST = "model-best.pth.tar"
UNSAFE_LOAD = "DASSL_UNSAFE_LOAD"


class Inert:
    """Stands for an object of another library in a checkpoint: it holds the saved fields and does nothing."""

    def __setstate__(self, state):
        self.__dict__.update(state)


def _plain_dict(*args):
    """Stand for ``collections.defaultdict``; the default factory is dropped."""
    return {}


def _stand_ins():
    """Pairs of object and full name for torch's safe loader.

    With a warm-up, Dassl.pytorch's checkpoints hold the inner scheduler as an object, and within it the optimiser.
    """
    names = [
        "torch.optim.lr_scheduler.CosineAnnealingLR",
        "torch.optim.lr_scheduler.StepLR",
        "torch.optim.lr_scheduler.MultiStepLR",
        "torch.optim.sgd.SGD",
        "torch.optim.adam.Adam",
        "torch.optim.adamw.AdamW",
        "torch.optim.rmsprop.RMSprop",
        "dassl.optim.radam.RAdam",
    ]
    # A class each: the loader maps a class back to one name.
    pairs = [(type(name.rpartition(".")[2], (Inert,), {}), name) for name in names]
    return pairs + [(dict, "builtins.dict"), (_plain_dict, "collections.defaultdict")]


_STAND_INS = _stand_ins()


def safe_load(path: str):
    """Read a file of ``torch.save`` onto the CPU without running code from it.

    Set the environment variable ``DASSL_UNSAFE_LOAD=1`` to read files that hold arbitrary objects, which can run
    any code: only for files you trust.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged, or holds objects that only full unpickling could read.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"File is not found at {path!r}")
    try:
        if os.environ.get(UNSAFE_LOAD) == "1":
            return torch.load(path, map_location="cpu", weights_only=False)
        with torch.serialization.safe_globals(_STAND_INS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise a dozen types on damaged files
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found:
            raise CheckpointError(
                f"{path!r} holds an object of {found[1]}, which could run code when read. If you "
                f"trust the file, set {UNSAFE_LOAD}=1"
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"Cannot read the checkpoint {path!r}: it is cut short, damaged or not a file of torch.save ({reason}). "
            "Copy it again from where it came from, or take an earlier one"
        ) from error


def save_checkpoint(
    state: dict, save_dir: str, is_best: bool = False, remove_module_from_keys: bool = True, model_name: str = ""
) -> None:
    """Write one checkpoint and let ``checkpoint`` point at it.

    Args:
        state: Has at least ``state_dict`` and ``epoch``.
        save_dir: ``<output_dir>/<model name>``.
        is_best: Also copy it to ``model-best.pth.tar``.
        remove_module_from_keys: Strip a leading ``module.`` (of DataParallel) from the keys of ``state_dict``.
        model_name: File name; default ``model.pth.tar-<epoch>``.
    """
    path = write_checkpoint(state, save_dir, is_best, remove_module_from_keys, model_name)
    write_pointer(path)


def write_checkpoint(state, save_dir, is_best=False, remove_module_from_keys=True, model_name="") -> str:
    """Write one checkpoint without the pointer; return its path."""
    mkdir_if_missing(save_dir)
    if remove_module_from_keys:
        state = {**state, "state_dict": strip_module(state["state_dict"])}
    path = os.path.join(save_dir, model_name or f"model.pth.tar-{state['epoch']}")
    with atomic_path(path, _outside(save_dir)) as tmp:
        torch.save(state, tmp)
    print(f"Checkpoint saved to {path}")
    if is_best:
        with atomic_path(os.path.join(save_dir, BEST), _outside(save_dir)) as tmp:
            shutil.copy(path, tmp)
    return path


def write_pointer(path: str) -> None:
    """Let ``checkpoint`` in the folder of ``path`` name that file."""
    save_dir, name = os.path.split(path)
    with atomic_path(os.path.join(save_dir, POINTER), _outside(save_dir)) as tmp:
        with open(tmp, "w", encoding="utf-8") as f:
            f.write(f"{name}\n")


def _outside(save_dir):
    # Some trainers parse the name of every file in the model's folder, so a half-written one must not lie there.
    return os.path.dirname(os.path.abspath(save_dir))


def strip_module(state_dict: dict) -> OrderedDict:
    """Return ``state_dict`` without the leading ``module.`` that DataParallel puts before each key."""
    return OrderedDict((key.removeprefix("module."), value) for key, value in state_dict.items())


def load_checkpoint(fpath: str) -> dict:
    """Read a checkpoint onto the CPU.

    Raises:
        ValueError: ``fpath`` is None.
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged or unsafe.
    """
    if fpath is None:
        raise ValueError("load_checkpoint needs the path of a file; got None")
    return safe_load(fpath)


def read_pointer(fdir: str) -> str | None:
    """Return the path of the checkpoint written last in ``fdir``; None if there is none yet."""
    pointer = os.path.join(fdir, POINTER)
    if not os.path.isfile(pointer):
        return None
    with open(pointer, encoding="utf-8") as f:
        return os.path.join(fdir, f.readline().strip())


def resume_from_checkpoint(fdir: str, model, optimizer=None, scheduler=None) -> int:
    """Load the checkpoint written last in ``fdir`` into model, optimiser and scheduler.

    Returns:
        The epoch to go on with.

    Raises:
        FileNotFoundError: There is no pointer file in ``fdir``, or not the file that it names.
    """
    path = read_pointer(fdir)
    if path is None:
        raise FileNotFoundError(f"No file {POINTER!r} in {fdir!r}: nothing to resume from")
    print(f"Loading checkpoint from {path}")
    return restore_checkpoint(load_checkpoint(path), model, optimizer, scheduler)


def restore_checkpoint(checkpoint: dict, model, optimizer=None, scheduler=None) -> int:
    """Load a checkpoint's content; return the epoch to go on with."""
    model.load_state_dict(checkpoint["state_dict"])
    for name, target in (("optimizer", optimizer), ("scheduler", scheduler)):
        if target is not None and checkpoint.get(name) is not None:
            target.load_state_dict(checkpoint[name])
    print(f"Previous epoch: {checkpoint['epoch']}")
    return checkpoint["epoch"]


def load_pretrained_weights(model, weight_path: str) -> None:
    """Copy into ``model`` those weights of a file that match by name and size.

    The file holds a state dict, or a dict with one under ``state_dict``; a leading ``module.`` is ignored. What does
    not match is left as it is and printed; if nothing matches, there is a warning.
    """
    checkpoint = load_checkpoint(weight_path)
    state_dict = strip_module(checkpoint.get("state_dict", checkpoint))
    own = model.state_dict()
    fits = {k: v for k, v in state_dict.items() if k in own and own[k].size() == v.size()}
    skipped = [k for k in state_dict if k not in fits]
    own.update(fits)
    model.load_state_dict(own)
    if not fits:
        warnings.warn(
            f"Nothing loaded from {weight_path!r}: no entry matches the model by name and size; it has "
            f"{list(state_dict)[:5]}, the model {list(own)[:5]}, ...",
            stacklevel=2,
        )
        return
    print(f"Loaded {len(fits)} of {len(own)} weights from {weight_path}")
    if skipped:
        print(f"Skipped, for their name or size: {skipped}")
