"""Commit the whole state of a training run as one file, and go on from it bit for bit.

``<output folder>/resume_state.pt`` holds what belongs to one epoch: learner, optimiser, schedule, gradient scaler, the
method's own state, random generators, history, settings and the digest of the few-shot sample. It is replaced by a
single rename, after the epoch's checkpoint files. A run killed at any moment therefore goes on from one whole epoch;
neither the checkpoint files nor their times are asked. Dassl's own resuming is not used, so real Dassl is exact too.
States and checkpoints are read as data, on either Dassl: no code of a file is run.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...clip_patches.weights import Record, load_data
from ...record.files import atomic_path
from ...record.result import RunRecord, changed_settings, plain_config, text_source_before

if TYPE_CHECKING:
    from ..base import PromptTrainer

FILE = "resume_state.pt"
WAY_OUT = "Train it again with --overwrite (in a host's train.py: into an empty output folder)"
_UNFIT = (RuntimeError, KeyError, TypeError, ValueError, AttributeError, IndexError)


def save_state(trainer: PromptTrainer, folder: str | Path, epoch: int) -> None:
    """Commit the state of a trainer.

    Args:
        trainer: At the end of an epoch; its checkpoint files are written.
        folder: Output folder.
        epoch: Epochs done.

    Raises:
        OSError: It cannot be written, as on a full disk; the older state is still there.
    """
    own_state = getattr(trainer, "trainer_state", None)
    state = {
        "epoch": epoch,
        "learner": trainer.learner.state_dict(),
        "optimizer": trainer.optim.state_dict(),
        "scheduler": _schedule_state(vars(trainer.sched)),
        "scaler": trainer.scaler.state_dict() if trainer.scaler is not None else None,
        "best_result": float(trainer.best_result),
        "trainer": own_state() if own_state else None,
        "generators": _generators(),
        "run": {
            "config": plain_config(trainer.cfg),
            "text_source": str(trainer.text_source or ""),
            "fewshot_digest": _digest(trainer),
            "history": trainer.recorder.history,
        },
    }
    with atomic_path(Path(folder, FILE)) as temporary:
        torch.save(state, temporary)


def find_state(trainer: PromptTrainer, folder: str | Path) -> dict[str, Any] | None:
    """Read the last committed state of a run, and check that this run may go on from it.

    Returns:
        The state for :func:`restore_state`; None if the folder holds none.

    Raises:
        ValueError: It is damaged, or of other settings or another few-shot sample; or it was written by an older
            version and is incomplete.
    """
    path = Path(folder, FILE)
    state = read_state(path) if path.is_file() else None
    if state is None or "learner" not in state:
        state = _older_state(trainer, Path(folder), state)
    if state is None:
        return None
    run = state.get("run") or {}
    try:
        config = run.get("config") or {}
        texts = run.get("text_source", text_source_before(type(trainer).__name__, config))
        refuse_other_settings(folder, changed_settings(config, trainer.cfg, texts))
        refuse_other_sample(folder, run.get("fewshot_digest"), _digest(trainer))
    except ValueError:
        if state["epoch"] > 0:
            raise
        return None  # nothing was trained that could be mixed
    return state


def read_state(path: str | Path) -> dict[str, Any]:
    """Read a state without running code from it.

    Raises:
        ValueError: It is damaged.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise a dozen types on damaged files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"--resume: {path} is damaged ({reason[:120]}). {WAY_OUT}") from error
    if not isinstance(state, dict) or not isinstance(state.get("epoch"), int):
        raise ValueError(f"--resume: {path} holds no state of a run. {WAY_OUT}")
    return state


def refuse_other_settings(folder: str | Path, changed: list[str]) -> None:
    """Raise ValueError if the settings of the run in ``folder`` are not those asked for."""
    if changed:
        raise ValueError(
            f"--resume: the run in {folder} has other settings: {'; '.join(changed[:8])}. Use its own, or --overwrite"
        )


def refuse_other_sample(folder: str | Path, old: str | None, new: str | None) -> None:
    """Raise ValueError if two few-shot samples are known to differ."""
    if old and new and old != new:
        raise ValueError(
            f"the run in {folder} is of another few-shot sample (digest {old[:12]}, now {new[:12]}): the data root is "
            "another, or the split file was edited. Use the same data, or --overwrite"
        )


def restore_state(trainer: PromptTrainer, state: dict[str, Any], folder: str | Path) -> None:
    """Restore all but the generators; see :func:`restore_generators`.

    Raises:
        ValueError: The state does not fit the trainer.
    """
    own_state = getattr(trainer, "load_trainer_state", None)
    learner = state["learner"]
    broken = [name for name, value in learner.items() if torch.is_tensor(value) and not value.isfinite().all()]
    if broken:
        raise ValueError(f"--resume: the state in {folder} holds NaN or infinity in {', '.join(broken[:6])}. {WAY_OUT}")
    try:
        trainer.learner.load_state_dict(learner)
        if state["optimizer"] is not None:
            trainer.optim.load_state_dict(state["optimizer"])
            _load_schedule(trainer.sched, state["scheduler"])
        if state["scaler"] is not None and trainer.scaler is not None:
            trainer.scaler.load_state_dict(state["scaler"])
        if own_state and state["trainer"] is not None:
            own_state(state["trainer"])
        trainer.best_result = float(state["best_result"])
    except _UNFIT as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"--resume: the state in {folder} does not fit this run ({type(error).__name__}: {reason[:160]}); it was "
            f"written with other settings, by another method or another version. {WAY_OUT}"
        ) from error


# ---------------------------------------------------------------------- parts of a state
def _generators() -> dict[str, Any]:
    """Return the state of all random generators, as what safe loading takes."""
    kind, words, *place = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [kind, np.asarray(words).tolist(), *place],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_generators(state: dict[str, Any]) -> None:
    """Restore the random generators; the last step, since nothing may draw from them before the next epoch."""
    saved = state["generators"]
    if saved is None:  # nothing is left to train
        return
    kind, words, *place = saved["numpy"]
    np.random.set_state((kind, np.asarray(words, dtype=np.uint32), *place))
    random.setstate(saved["python"])
    torch.set_rng_state(saved["torch"])
    if torch.cuda.is_available() and len(saved["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(saved["cuda"])


def _schedule_state(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a schedule's counters, those of the schedule after its warm-up included.

    Real Dassl's own state holds that one as an object, with a dead copy of the optimiser in it.

    Args:
        fields: Of a live schedule, or of the one that real Dassl wrote to a checkpoint.
    """
    state = {name: value for name, value in fields.items() if isinstance(value, (bool, int, float, list, type(None)))}
    after = fields.get("successor")
    if after is None:
        return state
    return {**state, "successor_state": _schedule_state(after.fields if isinstance(after, Record) else vars(after))}


def _load_schedule(schedule: Any, state: dict[str, Any]) -> None:
    """Restore :func:`_schedule_state`; only fields that exist, so that a live schedule keeps its optimiser."""
    after, inner = getattr(schedule, "successor", None), state.get("successor_state")
    if (after is None) != (inner is None):
        raise ValueError("only one of them has a warm-up")
    kept = vars(schedule).keys() - {"optimizer", "successor"}
    vars(schedule).update({name: value for name, value in state.items() if name in kept})
    if after is not None and inner is not None:
        _load_schedule(after, inner)


def _digest(trainer: PromptTrainer) -> str | None:
    return getattr(trainer.dm.dataset, "fewshot_digest", None)


# ---------------------------------------------------------------------- folders of older versions
def _older_state(trainer: PromptTrainer, folder: Path, old: dict[str, Any] | None) -> dict[str, Any] | None:
    """Put together the state of a run of an older version, which is spread over several files.

    Args:
        old: Its ``resume_state.pt``, without the weights; None where Dassl wrote none.
    """
    models = folder / trainer.checkpoint_folder
    pointer = models / "checkpoint"
    names = [pointer.read_text(encoding="utf-8").strip()] if pointer.is_file() else []
    if old is None and not names:
        return None
    if old is not None:  # the run may have been killed before the pointer moved
        names = [f"model.pth.tar-{old['epoch']}", "model-best.pth.tar", *names]
    files = [models / name for name in names if (models / name).is_file()]
    found = [
        checkpoint for checkpoint in map(_read_checkpoint, files) if old is None or _epoch(checkpoint) == _epoch(old)
    ]
    if not found:
        raise ValueError(f"--resume: {folder} holds no checkpoint of the epoch of its {FILE}. {WAY_OUT}")
    checkpoint, record = found[0], RunRecord.find(folder)
    if record is None:
        raise ValueError(
            f"--resume: {folder} holds checkpoints of an older version and no readable result.json, so the settings "
            f"they were trained with are not known. {WAY_OUT}"
        )
    if old is None and _epoch(checkpoint) < trainer.max_epoch:
        raise ValueError(
            f"--resume: {folder} has no {FILE}, so the run cannot go on as if it had never stopped. {WAY_OUT}"
        )
    old = old or {}
    return {
        "epoch": _epoch(checkpoint),
        "learner": checkpoint["state_dict"],
        "optimizer": checkpoint["optimizer"] if old else None,
        "scheduler": _older_schedule(checkpoint["scheduler"]) if old else None,
        "scaler": old.get("scaler"),
        "best_result": old.get("best_result", -float("inf")),
        "trainer": old.get("trainer"),
        "generators": old.get("rng"),
        "run": {
            "config": record.config,
            "text_source": record.text_source,
            "fewshot_digest": record.fewshot_digest,
            "history": record.history,
        },
    }


def _older_schedule(state: dict[str, Any]) -> dict[str, Any]:
    """Return a schedule of a checkpoint as :func:`_schedule_state` writes it; the toolbox wrote it so already."""
    return _schedule_state(state) if "successor" in state else state


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        checkpoint = load_data(path)
    except ValueError as error:
        raise ValueError(f"--resume: {error}. {WAY_OUT}") from error
    fits = isinstance(checkpoint, dict) and isinstance(checkpoint.get("epoch"), int)
    if not fits or not all(isinstance(checkpoint.get(part), dict) for part in ("state_dict", "optimizer", "scheduler")):
        raise ValueError(f"--resume: {path} is no checkpoint of a run. {WAY_OUT}")
    return checkpoint


def _epoch(state: dict[str, Any]) -> int:
    return int(state["epoch"])
