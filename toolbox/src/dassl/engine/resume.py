"""What a checkpoint does not hold but a run needs to go on as if it had never stopped.

``<output_dir>/resume_state.pt`` is written with each checkpoint and holds the epoch, the state of all random
generators, the best validation result, the gradient scaler, and what the trainer's ``trainer_state()`` returns, if it
has that method.
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


def save_resume_state(trainer, directory: str, epoch: int) -> None:
    """Write the state of ``trainer`` and of the generators.

    Args:
        epoch: The next epoch, as in the checkpoint written with it.
    """
    name, keys, *rest = np.random.get_state()
    state = {
        "epoch": epoch,
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


def load_resume_state(trainer, directory: str, epoch: int) -> bool:
    """Restore what ``save_resume_state`` wrote, if it was at the same epoch.

    Returns:
        Whether it was; if not, the run goes on from its checkpoint, but not bit for bit.
    """
    path = os.path.join(directory, FILE)
    if not os.path.isfile(path):
        print(f"No {path}: {_ANEW}")
        return False
    state = safe_load(path)
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
