"""Weights & Biases for those who name a project in TRAIN.WANDB; it is not imported otherwise."""

from __future__ import annotations

import json
import os


def check_wandb(project: str) -> None:
    """Refuse to start a run whose curves could not be sent.

    Raises:
        ValueError: A project is named, and wandb is not installed.
    """
    if not project:
        return
    try:
        import wandb  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"TRAIN.WANDB is {project!r}, but Weights & Biases cannot be imported ({error}): pip install wandb, "
            "or leave TRAIN.WANDB empty"
        ) from error


class WandbRun:
    """One run of a project. Whether it goes online is wandb's own affair (``wandb login``, WANDB_MODE=offline)."""

    def __init__(self, cfg):
        import wandb

        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
        d = cfg.DATASET
        self._run = wandb.init(
            project=cfg.TRAIN.WANDB,
            dir=cfg.OUTPUT_DIR,
            config=json.loads(json.dumps(cfg, default=list)),
            name=f"{cfg.TRAINER.NAME} {d.NAME} {d.SUBSAMPLE_CLASSES} {d.NUM_SHOTS} shots seed {cfg.SEED}",
        )
        for kind in ("train", "val", "test"):  # steps of training and epochs of tests do not count alike
            self._run.define_metric(f"{kind}/*", step_metric=f"{kind}/step")

    def log(self, tag: str, value: float, step: int) -> None:
        """Add one number; the part of ``tag`` before the slash says what ``step`` counts."""
        self._run.log({tag: float(value), f"{tag.split('/')[0]}/step": step})

    def finish(self) -> None:
        """Send what is left."""
        self._run.finish()
