"""Few-shot: train on a few images of every class, test on all classes."""

from __future__ import annotations

from collections.abc import Sequence

from ..names import dataset_label, shots_label
from .base import Finished, Leg, Protocol, Request

# CoOp's and TaskRes' authors train fewer epochs with fewer shots; the yamls have the 200 of 8 and 16.
EPOCHS = {"CoOp": {1: 50, 2: 100, 4: 100}, "TaskRes": {1: 100, 2: 100, 4: 100}}


class FewShot(Protocol):
    """Accuracy on all classes by number of training images."""

    name = "few_shot"
    title = "Few-shot"
    yaml = "fewshot"
    convention = "Accuracy on all classes by training images a class."
    order = 4
    shots_are_columns = True
    charts = ("shots",)

    def legs(self, request: Request) -> list[Leg]:
        """See :meth:`Protocol.legs`."""
        name = dataset_label(request.dataset)
        return [
            Leg("few_shot", request.dataset, "all", shots, f"{name} {shots_label(shots)}")
            for shots in request.few_shots
        ]

    def epochs(self, trainer: str, shots: int) -> int | None:
        """See :meth:`Protocol.epochs`."""
        return EPOCHS.get(trainer, {}).get(shots)

    def source_of(self, run: Finished) -> str | None:
        """See :meth:`Protocol.source_of`."""
        return run.dataset if run.place.startswith("few_shot") and self._fits(run) else None

    def adopts(self, run: Finished) -> str | None:
        """Take runs outside the usual layout, and zero-shot runs that are in no transfer."""
        return run.dataset if self._fits(run) else None

    @staticmethod
    def _fits(run: Finished) -> bool:
        return run.is_of_all_classes and not run.moved

    def column(self, dataset: str, classes: str, shots: int) -> str:
        """See :meth:`Protocol.column`."""
        return shots_label(shots)

    def columns(self, present: Sequence[str], data: str) -> list[str]:
        """Order by number of shots."""
        return sorted(present, key=lambda name: int(name.split()[0]))
