"""Log to Weights & Biases if TRAIN.WANDB names a project; wandb is not imported otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def check_wandb(project: str) -> None:
    """Refuse to start a run that could not log to the project.

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
    """One run of a project; wandb itself decides whether it goes online (``wandb login``, WANDB_MODE=offline)."""

    def __init__(self, cfg: Any):
        import wandb

        Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
        d = cfg.DATASET
        self._run = wandb.init(
            project=cfg.TRAIN.WANDB,
            dir=cfg.OUTPUT_DIR,
            config=json.loads(json.dumps(cfg, default=list)),
            name=f"{cfg.TRAINER.NAME} {d.NAME} {d.SUBSAMPLE_CLASSES} {d.NUM_SHOTS} shots seed {cfg.SEED}",
        )
        for kind in ("train", "val", "test"):  # training counts steps, tests count epochs
            self._run.define_metric(f"{kind}/*", step_metric=f"{kind}/step")

    def log(self, tag: str, value: float, step: int) -> None:
        """Log one number; the part of ``tag`` before the slash says what ``step`` counts."""
        self._run.log({tag: float(value), f"{tag.split('/')[0]}/step": step})

    def finish(self) -> None:
        """Send the rest and close the run."""
        self._run.finish()
