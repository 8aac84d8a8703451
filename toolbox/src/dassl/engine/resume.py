"""The whole state of a run at the end of an epoch, in one file, so that a run goes on as if it had never stopped.

``<output_dir>/resume_state.pt`` is written after the checkpoints and their pointers, and holds the models, optimisers
and schedules of the epoch, the state of all random generators, the best validation result, the gradient scaler, and
what the trainer's ``trainer_state()`` returns, if it has that method. One rename replaces it, so whenever the process
is killed, it is of one epoch; resuming does not look at the checkpoints where it exists.
"""

import os
import random

import numpy as np
import torch

from ..utils import atomic_path
from ..utils.checkpoints import safe_load

FILE = "resume_state.pt"
_ANEW = (
    "weights, optimiser and schedule go on; random generators, the best validation result, the gradient scaler and "
    "the trainer's own state start anew"
)


def checkpoint_of(trainer, name: str, epoch: int) -> dict:
    """Return the content of a checkpoint of one registered model, without its validation result."""
    optim, sched = trainer._optims[name], trainer._scheds[name]
    return {
        "state_dict": trainer._models[name].state_dict(),
        "epoch": epoch,
        "optimizer": None if optim is None else optim.state_dict(),
        "scheduler": None if sched is None else sched.state_dict(),
    }


def save_resume_state(trainer, directory: str, epoch: int) -> None:
    """Write the state of ``trainer`` and of the generators.

    Args:
        epoch: The next epoch, as in the checkpoint written with it.
    """
    name, keys, *rest = np.random.get_state()
    state = {
        "epoch": epoch,
        "models": {name: checkpoint_of(trainer, name, epoch) for name in trainer.get_model_names()},
        "rng": {
            "python": random.getstate(),
            "numpy": [name, keys.tolist(), *rest],  # a list: safe loading takes no numpy array
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        },
        "best_result": float(trainer.best_result),
        "scaler": None,
        "trainer": None,
    }
    if getattr(trainer, "scaler", None) is not None:
        state["scaler"] = trainer.scaler.state_dict()
    if hasattr(trainer, "trainer_state"):
        state["trainer"] = trainer.trainer_state()
    with atomic_path(os.path.join(directory, FILE)) as tmp:
        torch.save(state, tmp)


def read_resume_state(directory: str) -> dict | None:
    """Return what ``save_resume_state`` wrote; None if it wrote nothing."""
    path = os.path.join(directory, FILE)
    return safe_load(path) if os.path.isfile(path) else None


def load_resume_state(trainer, directory: str, epoch: int) -> bool:
    """Restore all but the models, if the state is of the same epoch.

    Returns:
        Whether it was; if not (runs of older versions), the run goes on from its checkpoint, but not bit for bit.
    """
    path, state = os.path.join(directory, FILE), read_resume_state(directory)
    if state is None:
        print(f"No {path}: {_ANEW}")
        return False
    if state["epoch"] != epoch:
        print(f"{path} is of epoch {state['epoch']}, the checkpoint of epoch {epoch}: {_ANEW}")
        return False
    trainer.best_result = state["best_result"]
    if state["scaler"] is not None and getattr(trainer, "scaler", None) is not None:
        trainer.scaler.load_state_dict(state["scaler"])
    if state["trainer"] is not None and hasattr(trainer, "load_trainer_state"):
        trainer.load_trainer_state(state["trainer"])

    # The generators last: nothing restored above may move them.
    rng = state["rng"]
    random.setstate(rng["python"])
    name, keys, *rest = rng["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(rng["torch"])
    if torch.cuda.is_available() and len(rng["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(rng["cuda"])
    return True
