"""Load a checkpoint into a trainer's learner, after finding out whether it belongs there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...record.folder import checkpoint_mark
from .checkpoints import learner_weights, read_with_notes
from .origin import methods_by_names, origin_of

if TYPE_CHECKING:
    from ..base import PromptTrainer


def load_learner(trainer: PromptTrainer, path: str | Path) -> None:
    """Load the weights of a checkpoint, ours or official, and note what they were trained on.

    Args:
        trainer: Its learner is built.
        path: A checkpoint of Dassl, or a ``.safetensors`` file.

    Raises:
        ValueError: The checkpoint is of another method, of other settings, or tied to other classes.
    """
    learner, name = trainer.learner, type(trainer).__name__
    weights, notes = read_with_notes(path)
    method, trained_on, trained_classes = origin = origin_of(path, notes)
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


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''} ({len(names)})"
