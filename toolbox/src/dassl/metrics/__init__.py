"""Metrics on tensors."""

from .._left_out import names_left_out
from .accuracy import compute_accuracy

__getattr__ = names_left_out(__name__, "compute_distance_matrix")
