"""What a protocol is: what it trains and tests, in which folders, and what its table shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from ..names import dataset_key, dataset_label
from ..statistics import BySeed, Summary

SHOTS = 16
FEW_SHOTS = (1, 2, 4, 8, 16)
# The eleven data sets that papers average over, in the order of their tables: names of yamls in configs/datasets.
DATASETS = (
    "imagenet",
    "caltech101",
    "oxford_pets",
    "stanford_cars",
    "oxford_flowers",
    "food101",
    "fgvc_aircraft",
    "sun397",
    "dtd",
    "eurosat",
    "ucf101",
)


class Request(NamedTuple):
    """What is to be run for one method and seed.

    Attributes:
        dataset: Data set to train on: name of a yaml in configs/datasets, or the path of the user's own.
        shots: Training images a class.
        few_shots: Numbers of training images a class, for a protocol that compares them.
        targets: What a transfer tests on; None for its usual ones.
    """

    dataset: str
    shots: int = SHOTS
    few_shots: Sequence[int] = FEW_SHOTS
    targets: Sequence[str] | None = None


@dataclass(frozen=True)
class Leg:
    """One training run, or one test of a trained model.

    Attributes:
        place: Folder below the folder of all results, such as ``base2new/train_base``.
        dataset: Name of a yaml in configs/datasets, or the path of the user's own.
        classes: ``all``, or the half ``base`` or ``new``.
        shots: Training images a class; of a test, those of its training run.
        label: What happens, for messages, such as ``shapes -> shapes_noise``.
        model: The training run whose model is tested; None for a training run.
        images: ``DATASET.NUM_SHOTS`` where it is not ``shots``; -1 loads all images.
        same_process: A test that runs right after its training run, in the same process.
    """

    place: str
    dataset: str
    classes: str
    shots: int
    label: str
    model: Leg | None = None
    images: int | None = None
    same_process: bool = False

    def folder(self, output: str | Path, trainer: str, cfg: str, seed: int) -> Path:
        """Return the output folder, in the layout of the CoOp family."""
        data = dataset_label(self.dataset)
        return Path(output, self.place, data, f"shots_{self.shots}", trainer, cfg, f"seed{seed}")


class Finished(NamedTuple):
    """What is known of a finished run when its protocol is looked for.

    Attributes:
        dataset: What it was tested on, as the data set's class is called.
        classes: ``all``, ``base`` or ``new``.
        trained_on: Data set of the training run behind it; None for zero-shot.
        place: Leading folders of the usual layout, such as ``xd/train``; empty elsewhere.
        moved: The model was trained on another data set than the one tested.
        is_source: The model was also tested on another data set.
        trained_classes: Classes trained on; empty for zero-shot, and where the record does not say.
    """

    dataset: str
    classes: str
    trained_on: str | None
    place: str
    moved: bool
    is_source: bool
    trained_classes: str = ""

    @property
    def is_of_all_classes(self) -> bool:
        """Whether it was trained and tested on all classes."""
        return self.classes == "all" and self.trained_classes in ("", "all")


class Derived(NamedTuple):
    """A column that is computed from others.

    Attributes:
        name: Heading.
        of: From accuracies by column and the interval to the number; None where a column is missing.
        average_of: In the table of averages over data sets: the mean of that column; empty to compute it from the
            averaged columns.
        title: Heading of its chart.
        meaning: What it is, for the chart's caption.
        missing: Note about the rows that lack it.
    """

    name: str
    of: Callable[[Mapping[str, BySeed], str], Summary | None]
    average_of: str = ""
    title: str = ""
    meaning: str = ""
    missing: str = ""


class Protocol:
    """One way to compare methods. A concrete subclass in a file of this package is a protocol.

    Attributes:
        name: Word on the command line.
        title: Heading of its tables.
        yaml: The trainers' settings: ``configs/trainers/<TRAINER>/<yaml>.yaml``.
        convention: What the computed columns are; printed below its tables.
        order: Place among the protocols.
        transfers: Trains on ``--source`` and tests on ``--targets``, instead of each of ``--datasets``.
        takes_any_target: A transfer that also tests on targets that no protocol lists.
        other_classes: Tests on classes that the model was not trained on.
        averages: There is a table of averages over data sets.
        shots_are_columns: Runs of several numbers of shots share a row.
        headline: Column by which rows are ranked; empty for none.
        together: Columns that count only together, for each seed; with a note about a run that lacks the others.
        charts: Functions of ``clusterprompt.results.charts`` that draw a table.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    yaml: ClassVar[str] = ""
    convention: ClassVar[str] = ""
    order: ClassVar[int] = 100
    transfers: ClassVar[bool] = False
    takes_any_target: ClassVar[bool] = False
    other_classes: ClassVar[bool] = False
    averages: ClassVar[bool] = True
    shots_are_columns: ClassVar[bool] = False
    headline: ClassVar[str] = ""
    together: ClassVar[Mapping[str, str]] = {}
    charts: ClassVar[tuple[str, ...]] = ("bars",)

    # ------------------------------------------------------------------ what is run
    def legs(self, request: Request) -> list[Leg]:
        """Return the training runs and tests of one method and seed, each test after its training run."""
        raise NotImplementedError

    def targets(self, source: str) -> tuple[str, ...]:
        """Return the usual targets of a transfer from ``source``; empty for a source that has none."""
        return ()

    def epochs(self, trainer: str, shots: int) -> int | None:
        """Return the authors' number of epochs where it differs from the yaml's; None elsewhere."""
        return None

    # ------------------------------------------------------------------ which finished runs belong to it
    def source_of(self, run: Finished) -> str | None:
        """Return the data set that a run of this protocol was trained on (the tested one for zero-shot).

        Returns None if the run is not of this protocol.
        """
        raise NotImplementedError

    def adopts(self, run: Finished) -> str | None:
        """Like :meth:`source_of`, asked for runs that are of no protocol."""
        return None

    # ------------------------------------------------------------------ its table
    def column(self, dataset: str, classes: str, shots: int) -> str:
        """Return the column of a run.

        Args:
            dataset: What it was tested on.
            classes: ``all``, ``base`` or ``new``.
            shots: Training images a class; 0 for zero-shot.
        """
        raise NotImplementedError

    def columns(self, present: Sequence[str], data: str) -> list[str]:
        """Order the columns of a table.

        Args:
            present: Columns that have a run.
            data: The table's data set, or the source of a transfer.
        """
        return list(present)

    def derived(self, columns: Sequence[str], data: str) -> list[Derived]:
        """Return the computed columns of a table."""
        return []

    def remarks(self, columns: Sequence[str], data: str) -> list[str]:
        """Return notes about a table's columns, such as usual ones that are missing."""
        return []

    def published(self, column: str, data: str, columns: Sequence[str]) -> tuple[str, str] | None:
        """Return which number of the papers a column compares with; None for none.

        Args:
            column: Column of the table.
            data: The table's data set or source; "Average" for the average over :data:`DATASETS`.
            columns: All columns of the table.

        Returns:
            The data set, and the kind of number: ``base``, ``new``, ``hm``, ``accuracy``.
        """
        return data, "accuracy"


def spelled_like(name: str, names: Sequence[str]) -> str | None:
    """Return the one of ``names`` that means the same data set as ``name``; None if there is none."""
    return next((other for other in names if dataset_key(other) == dataset_key(name)), None)
