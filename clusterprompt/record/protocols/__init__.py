"""The protocols: ways to compare methods, a file each (the two transfers share one)."""

from __future__ import annotations

import importlib
import pkgutil

from .base import DATASETS, FEW_SHOTS, SHOTS, Derived, Finished, Leg, Protocol, Request

__all__ = ["DATASETS", "FEW_SHOTS", "SHOTS", "Derived", "Finished", "Leg", "Protocol", "Request", "all_protocols"]


def all_protocols() -> dict[str, Protocol]:
    """Return every protocol by name, in the order of the papers' tables."""
    found: dict[str, Protocol] = {}
    for info in pkgutil.iter_modules(__path__, __name__ + "."):
        for cls in vars(importlib.import_module(info.name)).values():
            if isinstance(cls, type) and issubclass(cls, Protocol) and cls.__module__ == info.name and cls.name:
                found[cls.name] = cls()
    return dict(sorted(found.items(), key=lambda item: item[1].order))
