"""Load a checkpoint into a trainer's learner, after finding out whether it belongs there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...record.folder import checkpoint_mark
from .checkpoints import learner_weights, read_with_notes
from .origin import Origin, methods_by_names, origin_of

if TYPE_CHECKING:
    from ..base import PromptTrainer


def load_learner(trainer: PromptTrainer, path: str | Path) -> Origin:
    """Load the weights of a checkpoint, ours or official, and note what they were trained on.

    Args:
        trainer: Its learner is built.
        path: A checkpoint of Dassl, or a ``.safetensors`` file.

    Returns:
        Origin of the checkpoint.

    Raises:
        ValueError: The checkpoint is of another method, of other settings, or tied to other classes.
    """
    learner, name = trainer.learner, type(trainer).__name__
    weights, notes = read_with_notes(path)
    origin = origin_of(path, notes)
    method, trained_on, trained_classes, _ = origin
    if learner is None:
        raise ValueError(f"{path} cannot be loaded: {name} learns nothing")
    if method and method != name:
        raise ValueError(
            f"{path} was written by {method}, not by {name}; load it with --trainer {method}, or name a run of {name}"
        )
    if trainer.tied_to_classes and trained_classes and list(trained_classes) != list(trainer.classnames):
        raise ValueError(
            f"{path} serves no other classes than those it was trained on, {_few(trained_classes)}: "
            f"{trainer.tied_to_classes}. Here they are {_few(trainer.classnames)}"
        )
    weights = dict(trainer.named_weights(weights, notes))
    trainer.before_load(weights)
    try:
        fitting = learner_weights(
            weights, learner, trainer.clip, trainer.official_names, trainer.official_ignored, str(path)
        )
    except ValueError as error:
        others = methods_by_names(Path(path).parent.name, weights)
        if not others or name in others:
            raise
        raise ValueError(f"{error}. By its entries it is of {' or '.join(others)}, not of {name}") from error
    learner.load_state_dict(fitting)
    trainer.loaded, trainer.recorder.trained_on = origin, trained_on
    trainer.recorder.checkpoint = checkpoint_mark(path) if trainer.task is None else None
    print(f"Loaded {trainer.checkpoint_folder} from {path} (epoch {notes.get('epoch', '?')})")
    return origin


def refuse_other_texts(trainer: PromptTrainer, origin: Origin, path: str | Path) -> None:
    """Refuse to test one half of a data set's classes with other texts than the other half was trained with.

    Args:
        trainer: Built for a test.
        origin: Of the checkpoint.
        path: The checkpoint.

    Raises:
        ValueError: The checkpoint is of a half of this data set, and its class texts are known to be of another source.
    """
    if trainer.task is not None or trainer.text_source is None:
        return
    task, now = origin.trained_on or {}, str(trainer.text_source)
    halves = task.get("dataset") == trainer.cfg.DATASET.NAME and task.get("subsample") in ("base", "new")
    if halves and origin.text_source and origin.text_source != now:
        raise ValueError(
            f"{path} was trained with class texts of another source ({origin.text_source}) than this test would use "
            f"({now}). Set DATASET.DESCRIPTIONS to the source of the training, or train it again"
        )


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''} ({len(names)})"
