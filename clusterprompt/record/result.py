"""``result.json``: what was run, on what, with what, and what came out."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from typing import TYPE_CHECKING

from . import measure

if TYPE_CHECKING:
    from ..trainers.base import PromptTrainer
    from .predictions import Predictions


commit = lru_cache(measure.commit)  # of the code that this process has imported; the record is written after each epoch


def task_of(cfg) -> dict:
    """Return what a model is trained on by a config: data set, half of the classes, shots, seed."""
    return {
        "dataset": cfg.DATASET.NAME,
        "subsample": cfg.DATASET.SUBSAMPLE_CLASSES,
        "shots": cfg.DATASET.NUM_SHOTS,
        "seed": cfg.SEED,
    }


def record_of(trainer: PromptTrainer) -> dict:
    """Put the record of a run together; accuracies in percent, times in seconds, memory in MiB."""
    cfg, learner = trainer.cfg, trainer.learner
    scores = trainer.scores.get("test") or trainer.scores.get("val") or {}
    return {
        "status": trainer.status,
        "trainer": type(trainer).__name__,
        **task_of(cfg),
        "trained_on": trainer.trained_on,
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "precision": trainer.precision,
        "accuracy": scores.get("accuracy"),
        "macro_f1": scores.get("macro_f1"),
        "n_test": scores.get("n"),
        "per_class": scores.get("per_class"),
        "classnames": list(trainer.classnames),
        "template": trainer.template,
        "fewshot_digest": getattr(trainer.dm.dataset, "fewshot_digest", None),
        "epoch": trainer.epoch + 1 if trainer.status == "training" else trainer.max_epoch,
        "learned_parameters": 0 if learner is None else sum(p.numel() for p in learner.parameters()),
        "seconds": {name: round(value, 2) for name, value in trainer.seconds.items()},
        "seconds_per_epoch": round(trainer.seconds_per_epoch, 3),
        "peak_memory_mb": round(measure.peak_memory_mb(trainer.device), 1),
        "device": measure.device_name(trainer.device),
        "versions": measure.versions(),
        "commit": commit(),
        "history": trainer.history,
        "config": json.loads(json.dumps(cfg, default=list)),
        **trainer.extra_results(),
    }


def write_predictions(trainer: PromptTrainer, predictions: Predictions) -> None:
    """Write ``predictions.csv`` into the output folder, atomically."""
    os.makedirs(trainer.output_dir, exist_ok=True)
    predictions.write(os.path.join(trainer.output_dir, "predictions.csv"), trainer.cfg.DATASET.ROOT)


def write_record(trainer: PromptTrainer) -> None:
    """Write the record into the output folder, atomically."""
    os.makedirs(trainer.output_dir, exist_ok=True)
    path = os.path.join(trainer.output_dir, "result.json")
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        json.dump(record_of(trainer), file, indent=2)
    os.replace(path + ".tmp", path)
