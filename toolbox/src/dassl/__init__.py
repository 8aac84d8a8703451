"""A small stand-in for Dassl.pytorch: its supervised trainer loop, data, optimisers and checkpoints."""

from ._left_out import install as _install

__version__ = "0.1.0"

IMPLEMENTATION = "toolbox"
"""Tells this package from Dassl.pytorch, which has no such name."""

_install()
