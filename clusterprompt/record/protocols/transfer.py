"""Transfer: train on all classes of a source, test the model on other data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from ..names import dataset_key, dataset_label
from ..statistics import summarise
from .base import DATASETS, Derived, Finished, Leg, Protocol, Request, spelled_like

AVERAGE = "average"


class _Transfer(Protocol):
    """What the two transfer protocols share; one trained model serves both."""

    yaml = "crossdatasets"
    convention = "The average is over the targets, without the source."
    transfers = True
    averages = False
    headline = AVERAGE
    charts = ("targets", "bars")
    usual: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def legs(self, request: Request) -> list[Leg]:
        """See :meth:`Protocol.legs`."""
        source, shots = request.dataset, request.shots
        trained = Leg("xd/train", source, "all", shots, f"trained on {dataset_label(source)}")
        targets = self.targets(source) if request.targets is None else request.targets
        # All training images of the target, as the family's test scripts have it: only its class names are used.
        return [trained] + [
            Leg("xd/test", name, "all", shots, f"{dataset_label(source)} -> {dataset_label(name)}", trained, images=-1)
            for name in targets
        ]

    def targets(self, source: str) -> tuple[str, ...]:
        """See :meth:`Protocol.targets`."""
        return self.usual.get(spelled_like(source, list(self.usual)) or "", ())

    def source_of(self, run: Finished) -> str | None:
        """See :meth:`Protocol.source_of`."""
        if not run.is_of_all_classes:
            return None
        if run.trained_on is not None and run.moved:
            return run.trained_on if spelled_like(run.dataset, self.targets(run.trained_on)) else None
        if run.place.startswith("few_shot"):
            return None
        if run.trained_on is None:
            return self._source_with(run.dataset)
        return run.dataset if run.place.startswith("xd") or run.is_source else None

    def _source_with(self, dataset: str) -> str | None:
        """Return the source of which a data set is the source or a target."""
        for source, targets in self.usual.items():
            if spelled_like(dataset, (source, *targets)):
                return source
        return None

    def column(self, dataset: str, classes: str, shots: int) -> str:
        """See :meth:`Protocol.column`."""
        return dataset

    def columns(self, present: Sequence[str], data: str) -> list[str]:
        """Return the source, then the targets in the papers' order."""
        place = {dataset_key(name): i for i, name in enumerate(self.targets(data))}
        targets = [name for name in present if dataset_key(name) != dataset_key(data)]
        return [data, *sorted(targets, key=lambda name: (place.get(dataset_key(name), len(place)), name))]

    def derived(self, columns: Sequence[str], data: str) -> list[Derived]:
        """Return the average over the targets, for rows that have them all."""
        targets = [name for name in columns if name != data]

        def average(values, interval):
            if not targets or not set(targets) <= set(values):
                return None
            seeds = {frozenset(values[name]) for name in targets}
            if len(seeds) > 1:  # different seeds: the mean of the means, which has no spread
                return summarise([sum(summarise(values[name].values()).mean for name in targets) / len(targets)])
            return summarise(
                [sum(values[name][seed] for name in targets) / len(targets) for seed in values[targets[0]]], interval
            )

        return [
            Derived(
                AVERAGE,
                average,
                title="Average over targets",
                meaning="accuracy on average over the targets",
                missing="No average, because a target is missing",
            )
        ]

    def remarks(self, columns: Sequence[str], data: str) -> list[str]:
        """Say so if the average is over some of the usual targets only."""
        usual, present = len(self.targets(data)), len(columns) - 1
        return [f"The average is over {present} of the {usual} usual targets."] if present < usual else []

    def published(self, column: str, data: str, columns: Sequence[str]) -> tuple[str, str] | None:
        """Compare the average only if it is over the usual targets."""
        if column != AVERAGE:
            return column, "accuracy"
        present = {dataset_key(name) for name in columns} - {dataset_key(data), dataset_key(AVERAGE)}
        usual = {dataset_key(name) for name in self.targets(data)}
        return ("Average", "accuracy") if present == usual else None


class CrossDataset(_Transfer):
    """Transfer to data sets with other classes."""

    name = "cross_dataset"
    title = "Cross-data-set transfer"
    order = 2
    other_classes = True
    takes_any_target = True
    usual = {
        "imagenet": DATASETS[1:],
        "shapes": ("shapes_textures", "shapes_colours", "shapes_counts"),
    }

    def adopts(self, run: Finished) -> str | None:
        """Take the tests on targets that no protocol lists."""
        return run.trained_on if run.moved and run.is_of_all_classes else None


class DomainGeneralisation(_Transfer):
    """Transfer to the source's classes in images that look different."""

    name = "domain_generalisation"
    title = "Domain generalisation"
    order = 3
    usual = {
        "imagenet": ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"),
        "shapes": ("shapes_outline", "shapes_noise", "shapes_background", "shapes_lowres"),
    }
