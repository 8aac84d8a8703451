"""Compare the data of finished runs with those that lie there now under the same names."""

from __future__ import annotations

from typing import Any

from ..record.result import RunRecord
from .quiet import quiet


class DataNow:
    """The data sets as they are now; the lists of each are read once, however many runs are compared with them."""

    def __init__(self) -> None:
        self._listed: dict[str, Any] = {}
        self._digests: dict[tuple[str, int, int], dict[str, str]] = {}

    def differences(self, record: RunRecord, cfg: Any) -> list[str]:
        """Say in which data a run differs from one that would start now; no image is opened.

        Data sets that are not there any more, drawn ones, a host's, and records of versions that kept no digest are not
        compared.
        """
        then = {
            "another few-shot sample": record.fewshot_digest,
            "other test images": record.test_digest if record.n_test is not None else None,
        }
        if record.drawn or not any(then.values()):
            return []
        if record.transductive:  # trained on all images, whatever the shots
            cfg = cfg.clone()
            cfg.defrost()
            cfg.DATASET.NUM_SHOTS = -1
        try:
            now = self._now(cfg)
        except ValueError as error:
            return [f"the data cannot be used any more ({error})"]
        return [
            f"{what} (digest {old[:12]}, now {now[what][:12]})"
            for what, old in then.items()
            if old and what in now and old != now[what]
        ]

    def _now(self, cfg: Any) -> dict[str, str]:
        """Return the digests of a config's data; none where there is nothing to compare."""
        from dassl.data.datasets import DATASET_REGISTRY

        own = ("NUM_SHOTS", "SUBSAMPLE_CLASSES", "TEMPLATE")
        place = repr(sorted((key, value) for key, value in cfg.DATASET.items() if key not in own))
        key = (place, cfg.DATASET.NUM_SHOTS, cfg.SEED)
        if key not in self._digests:
            with quiet():
                if place not in self._listed:
                    cls = DATASET_REGISTRY.get(cfg.DATASET.NAME)
                    known = hasattr(cls, "listed") and not cls.drawn
                    self._listed[place] = cls.listed(cfg) if known else None
                data = self._listed[place]
                if data is not None:
                    data.choose_again(cfg)
            self._digests[key] = {} if data is None else _digests(data)
        return self._digests[key]


def _digests(data: Any) -> dict[str, str]:
    return {"another few-shot sample": data.fewshot_digest, "other test images": data.test_digest}
