"""Optimisers and learning-rate schedules from a config."""

from .._left_out import names_left_out
from .lr_scheduler import build_lr_scheduler
from .optimizer import build_optimizer

__getattr__ = names_left_out(__name__, "RAdam")
