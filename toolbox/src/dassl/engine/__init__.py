"""Trainers: the loop, checkpoints, evaluation."""

from .._left_out import names_left_out
from .build import TRAINER_REGISTRY, build_trainer
from .trainer import SimpleTrainer, TrainerBase, TrainerX

__getattr__ = names_left_out(__name__, "TrainerXU", "SimpleNet")
