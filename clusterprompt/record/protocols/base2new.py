"""Base to new: train on the base half of a data set's classes, test on both halves."""

from __future__ import annotations

from collections.abc import Sequence

from ..names import dataset_label
from ..statistics import base_to_new
from .base import Derived, Finished, Leg, Protocol, Request


class Base2New(Protocol):
    """Generalisation from the first half of the classes to the second, each tested against its own half."""

    name = "base2new"
    title = "Base to new"
    yaml = "basetonovel"
    convention = (
        "HM is the harmonic mean of the mean base and the mean new accuracy, over seeds and over data sets, as in the "
        "papers; its ± is that of the single seeds' HMs. 'mean of HMs' is the other convention: the mean of the seeds' "
        "HMs, and on average over data sets the mean of their HMs."
    )
    order = 1
    other_classes = True
    headline = "HM"
    together = {
        "base": "the base half without a test on the new classes",
        "new": "a test on the new classes without its base half",
    }
    charts = ("scatter", "bars")

    def legs(self, request: Request) -> list[Leg]:
        """See :meth:`Protocol.legs`."""
        data, shots = request.dataset, request.shots
        label = f"{dataset_label(data)} base to new"
        base = Leg("base2new/train_base", data, "base", shots, label)
        return [base, Leg("base2new/test_new", data, "new", shots, label, model=base, same_process=True)]

    def source_of(self, run: Finished) -> str | None:
        """See :meth:`Protocol.source_of`."""
        fits = run.classes in ("base", "new") and run.trained_classes in ("", "base")
        return run.dataset if fits and not run.moved else None

    def column(self, dataset: str, classes: str, shots: int) -> str:
        """See :meth:`Protocol.column`."""
        return classes

    def columns(self, present: Sequence[str], data: str) -> list[str]:
        """See :meth:`Protocol.columns`."""
        return ["base", "new"]

    def derived(self, columns: Sequence[str], data: str) -> list[Derived]:
        """Return HM and the mean of the seeds' HMs."""

        def of(name):
            return lambda values, interval: (
                base_to_new(values["base"], values["new"], interval)[name] if {"base", "new"} <= set(values) else None
            )

        return [
            Derived("HM", of("HM"), title="Harmonic mean", meaning="harmonic mean of base and new accuracy"),
            Derived("mean of HMs", of("mean of HMs"), average_of="HM"),
        ]

    def published(self, column: str, data: str, columns: Sequence[str]) -> tuple[str, str] | None:
        """See :meth:`Protocol.published`."""
        return data, column.lower()
