"""CLIP prompt learning by clustering, for the Dassl and CoOp ecosystem.

Two lines bring every trainer and data set of this package into a ``train.py`` of that ecosystem::

    import clusterprompt

    clusterprompt.extend_cfg(cfg)

A trained run classifies images in three::

    from clusterprompt import load_run

    model = load_run("output/.../seed1")
    model.predict("photos/")

Importing the package is cheap: torch, Dassl and CLIP are first imported by ``extend_cfg`` and ``load_run``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .use.classifier import Classifier

__version__ = "0.1.0"
__all__ = ["extend_cfg", "load_run"]


def extend_cfg(cfg: Any) -> None:
    """Register trainers and data sets with Dassl, and give ``cfg`` the keys they read.

    Where the host already has a trainer, a data set or a key of the same name, the host's stays. May be called any
    number of times.

    Args:
        cfg: The yacs node of ``dassl.config.get_cfg_default()``, extended by the host or not, frozen or not.

    Raises:
        ImportError: No ``dassl`` is importable, or it cannot be used.
    """
    from .registration import extend_cfg as implementation

    implementation(cfg)


def load_run(
    folder: str | os.PathLike,
    classes: Sequence[str] | None = None,
    device: str = "",
    precision: str = "",
    backbone: str = "",
    *,
    trust_record: bool = False,
) -> Classifier:
    """Load a trained run, ready to classify images; see `clusterprompt.use.classifier.load_run`."""
    from .use.classifier import load_run as implementation

    return implementation(folder, classes, device, precision, backbone, trust_record=trust_record)
