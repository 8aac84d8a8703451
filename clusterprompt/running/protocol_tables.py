"""The tables that scripts/run.py ends with: trainers as rows, mean +- standard deviation over the seeds of what is
finished.
"""

from typing import NamedTuple

import numpy as np

from ..record import folder as run_folder
from ..record import protocols
from .base2new import harmonic_mean
from .plan import in_words, label


class Results(NamedTuple):
    """Where results lie.

    Attributes:
        output: Folder of all results.
        trainers: Names, the rows.
        seeds: Seeds that a cell is of.
    """

    output: str
    trainers: list
    seeds: list

    def base2new(self, datasets, shots: int) -> tuple:
        """Return headers and rows: base, new and HM of each data set; with several, also of their averages."""
        rows, halves = [], {}
        for dataset in datasets:
            for trainer in self.trainers:
                folders = [
                    protocols.base2new_folders(self.output, label(dataset), shots, trainer, seed) for seed in self.seeds
                ]
                halves[trainer, dataset] = (
                    [accuracy(base) for base, _ in folders],
                    [accuracy(new, base) for base, new in folders],
                )
                rows.append([label(dataset), trainer, *base_new_hm(*halves[trainer, dataset])])
        for trainer in self.trainers * (len(datasets) > 1):
            per_half = [
                [mean(values) for values in zip(*(halves[trainer, dataset][half] for dataset in datasets))]
                for half in (0, 1)
            ]
            rows.append(["average", trainer, *base_new_hm(*per_half)])
        return with_datasets(["base", "new", "HM"], rows, datasets)

    def cross(self, source: str, targets, shots: int) -> tuple:
        """Return headers and rows: the source, the targets, and the average of the targets."""
        rows = []
        for trainer in self.trainers:
            trained = {
                seed: protocols.xd_train_folder(self.output, label(source), shots, trainer, seed) for seed in self.seeds
            }
            source_row = [accuracy(folder) for folder in trained.values()]
            columns = [
                [
                    accuracy(protocols.xd_test_folder(self.output, label(target), shots, trainer, seed), folder)
                    for seed, folder in trained.items()
                ]
                for target in targets
            ]
            average = [[mean(values) for values in zip(*columns)]] * (len(targets) > 1)
            rows.append([trainer, *map(cell, [source_row, *columns, *average])])
        return ["trainer", f"{label(source)} (source)", *map(label, targets), *["average"] * (len(targets) > 1)], rows

    def few_shot(self, datasets, few_shots) -> tuple:
        """Return headers and rows: a column for each number of shots."""
        rows = []
        for dataset in datasets:
            for trainer in self.trainers:
                columns = [
                    [
                        accuracy(protocols.few_shot_folder(self.output, label(dataset), shots, trainer, seed))
                        for seed in self.seeds
                    ]
                    for shots in few_shots
                ]
                rows.append([label(dataset), trainer, *map(cell, columns)])
        return with_datasets(list(map(in_words, few_shots)), rows, datasets)


def with_datasets(columns, rows, datasets) -> tuple:
    """Return headers and rows whose first column, the data set, is left out where there is only one."""
    headers = ["data set", "trainer", *columns]
    return (headers, rows) if len(datasets) > 1 else (headers[1:], [row[1:] for row in rows])


def base_new_hm(base, new) -> list:
    """Return the cells of base, new and HM, given the accuracies of all seeds."""
    hm = [None if None in pair else harmonic_mean(*pair) for pair in zip(base, new)]
    return [cell(values) for values in (base, new, hm)]


def accuracy(folder, trained=None):
    """Return the accuracy of a finished run; None if there is none, or it is a test older than the run that trained its
    model.
    """
    if trained is not None and run_folder.is_older(folder, trained):
        return None
    result = run_folder.read_result(folder)
    return result.get("accuracy") if result.get("status") == "finished" else None


def mean(values):
    """Return the mean; None if a value is missing."""
    return None if None in values else float(np.mean(values))


def cell(values) -> str:
    """Write mean and standard deviation over seeds; in brackets of how many, if some are missing."""
    found = [value for value in values if value is not None]
    if not found:
        return "-"
    return f"{np.mean(found):.1f} +- {np.std(found):.1f}" + (
        f" ({len(found)} of {len(values)})" if len(found) < len(values) else ""
    )
