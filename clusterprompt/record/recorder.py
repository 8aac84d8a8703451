"""Keep what a run leaves behind: history, scores, times, predictions, scalars; write its files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .folder import checkpoint_mark
from .history import Step, epoch_entry
from .predictions import Predictions
from .result import RunRecord, task_of
from .tracking import WandbRun


class Recorder:
    """Record the run of one trainer.

    Attributes:
        status: ``training`` or ``finished``; a run that only tests is finished from the start.
        trained_on: Data set, subsample, shots and seed behind the weights; None for zero-shot, or where not known.
        history: One entry an epoch, see :func:`.history.epoch_entry`.
        scores: Scores of the last evaluation on ``val`` and on ``test``.
        seconds: Wall-clock time of ``train`` and of all tests, ``test``.
        seconds_per_epoch: Wall-clock time of an epoch, validation and checkpoints included.
        predictions: Collects the evaluation in progress.
        checkpoint: File and digest of the weights that were loaded or deployed, see :func:`.folder.checkpoint_mark`.
    """

    def __init__(self, trainer: Any):
        self.status = "finished"
        self.trained_on: dict | None = None
        self.history: list[dict] = []
        self.scores: dict[str, dict] = {}
        self.seconds = {"train": 0.0, "test": 0.0}
        self.seconds_per_epoch = 0.0
        self.predictions = Predictions()
        self.checkpoint: dict[str, str] | None = None
        self._trainer = trainer
        self._wrote = False
        self._steps: list[Step] = []
        self._began = 0.0
        self._wandb: WandbRun | None = None

    # ------------------------------------------------------------------ training
    def start_training(self, history: list[dict], epochs: int) -> None:
        """Begin the record of a training run, new or resumed.

        Args:
            history: Entries of the run that is resumed; empty for a new run.
            epochs: Epochs that it has done; 0 for a new run.
        """
        self.history = [entry for entry in history if entry["epoch"] <= epochs]
        self.trained_on = task_of(self._trainer.cfg)
        self.status = "training"
        self._began = time.monotonic()
        self.write()

    @contextmanager
    def epoch(self, number: int, lr: float) -> Iterator[None]:
        """Append the averages of the steps inside the block to the history.

        Args:
            number: Epoch, counted from 1.
            lr: Learning rate of its steps.
        """
        self._steps, began = [], time.monotonic()
        yield
        self.history.append(epoch_entry(number, lr, self._steps, time.monotonic() - began))

    def add_step(self, step: Step) -> None:
        """Add a step of optimisation."""
        self._steps.append(step)

    def end_training(self, epochs: int) -> None:
        """Stop the clock of training.

        Args:
            epochs: Epochs that this process has done; 0 in a run that was interrupted in its final test and resumed.
        """
        self.seconds["train"] = time.monotonic() - self._began
        if epochs:
            self.seconds_per_epoch = self.seconds["train"] / epochs
        else:
            # Records of older versions may lack the seconds.
            known = [entry["seconds"] for entry in self.history if isinstance(entry.get("seconds"), (int, float))]
            self.seconds_per_epoch = sum(known) / max(1, len(known))

    def finish(self, checkpoint: Path | None = None) -> None:
        """Write the record of a training run that is trained and tested.

        Args:
            checkpoint: The file whose weights a test of this run will load.
        """
        self.checkpoint = checkpoint_mark(checkpoint) if checkpoint else None
        self.status = "finished"
        self.write()

    # ------------------------------------------------------------------ evaluation
    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Collect the predictions of one evaluation, and count its time."""
        began = time.monotonic()
        self.predictions = Predictions()
        yield
        self.seconds["test"] += time.monotonic() - began

    def add_evaluation(self, split: str, accuracy: float) -> None:
        """Keep the scores of the evaluation that just ended, and write the record.

        Args:
            split: ``val`` or ``test``; a test's predictions are written as well, and with ``TEST.COMPUTE_CMAT`` the
                confusion matrix of either.
            accuracy: In percent, from Dassl's evaluator.
        """
        trainer = self._trainer
        predictions, self.predictions = self.predictions, Predictions()
        self.scores[split] = {"accuracy": accuracy, **predictions.scores(trainer.classnames)}
        if trainer.cfg.TEST.COMPUTE_CMAT:
            predictions.write_confusion_matrix(trainer.output_dir, len(trainer.classnames))
        if split == "test":
            predictions.write(trainer.output_dir, trainer.cfg.DATASET.ROOT)
        self.write()

    # ------------------------------------------------------------------ files and scalars
    def write(self) -> None:
        """Write ``result.json`` into the run's folder.

        Raises:
            FileNotFoundError: The folder was there, and somebody has removed it.
        """
        folder = self._trainer.output_dir
        if self._wrote and not Path(folder).is_dir():
            raise FileNotFoundError(f"the output folder {folder} was removed while the run was writing to it")
        RunRecord.of(self._trainer).write(folder)
        self._wrote = True

    def log_scalar(self, tag: str, value: float, *step: int) -> None:
        """Send a number to Weights & Biases, if the config names a project."""
        cfg = self._trainer.cfg
        if cfg.TRAIN.get("WANDB", ""):
            self._wandb = self._wandb or WandbRun(cfg)
            self._wandb.log(tag, value, *step)

    def close(self) -> None:
        """Finish the run at Weights & Biases, if there is one."""
        if self._wandb is not None:
            self._wandb.finish()
            self._wandb = None
