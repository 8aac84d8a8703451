"""Check what tests will read before the training that they follow: settings, data, class names, descriptions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .. import dassl_compat
from .quiet import quiet
from .spec import RunSpec, is_drawn
from .train import make_cfg


def check_tests(specs: Iterable[RunSpec]) -> None:
    """Refuse tests that could only fail; each data set is read once. No CLIP is loaded.

    Args:
        specs: Tests of models that are not trained yet.

    Raises:
        ValueError: A setting, a class name or a description cannot be used; the message names the run.
        FileNotFoundError: Data or descriptions are missing.
    """
    dassl_compat.prepare()
    from dassl.engine import TRAINER_REGISTRY

    classes: dict[tuple, tuple[Sequence[str], str]] = {}
    checked = set()
    for spec in specs:
        kind = (spec.trainer, spec.cfg, spec.leg.dataset, spec.leg.classes)
        if kind in checked:
            continue
        checked.add(kind)
        try:
            cfg = make_cfg(spec.train_options())
            trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
            if not hasattr(trainer, "check_classes"):
                continue  # a host's
            if is_drawn(spec.leg.dataset) and not trainer.uses_descriptions(cfg):
                continue  # drawn when needed, and its class names are short
            if kind[2:] not in classes:
                classes[kind[2:]] = _classes(cfg)
            trainer.check_classes(cfg, *classes[kind[2:]])
        except (ValueError, OSError) as error:
            raise type(error)(f"{spec.name} could not be tested: {error}") from error


def _classes(cfg: Any) -> tuple[Sequence[str], str]:
    """Read a data set without a word; return the names of its classes and its hand-written prompt."""
    from dassl.data.datasets import build_dataset

    with quiet():
        dataset = build_dataset(cfg)
    return dataset.classnames, getattr(dataset, "template", "a photo of a {}.")
