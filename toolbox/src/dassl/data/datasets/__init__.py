"""Data sets: the base class and the registry. The toolbox has none of its own."""

from .base_dataset import DatasetBase, Datum
from .build import DATASET_REGISTRY, build_dataset
