"""Image transforms from a config."""

from .transforms import INTERPOLATION_MODES, build_transform
