"""The papers' numbers, from published.csv."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from ..record.names import dataset_key
from .run import Method

FILE = Path(__file__).with_name("published.csv")
AVERAGE = "Average"  # in place of a data set: the average over the protocol's usual ones


class Printed(NamedTuple):
    """One published result.

    Attributes:
        values: Accuracies in percent by kind: "base", "new", "hm", "accuracy".
        source: Paper, table, and where it was copied from.
        note: What to know of it.
    """

    values: dict[str, float]
    source: str
    note: str


class Published:
    """The published results by protocol, method and data set."""

    def __init__(self, file: str | Path = FILE):
        with open(file, newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        self.rows: dict[tuple[str, ...], Printed] = {}
        for row in rows:
            values = {name: float(row[name]) for name in ("base", "new", "hm", "accuracy") if row[name]}
            key = row["protocol"], row["trainer"], _name(row["dataset"]), row["shots"], row["backbone"]
            self.rows[key] = Printed(values, row["source"], row["note"])

    def get(self, protocol: str, method: Method, dataset: str) -> Printed | None:
        """Return the published result of a method; None if there is none.

        Backbone and number of shots have to match; zero-shot rows have no shots.

        Args:
            protocol: Name of the protocol.
            method: Row of our table.
            dataset: Data set, or "Average".
        """
        return self.rows.get((protocol, method.trainer, _name(dataset), str(method.shots or ""), method.backbone))


def _name(dataset: str) -> str:
    """Return the spelling of a data set that rows are found by."""
    return AVERAGE if dataset == AVERAGE else dataset_key(dataset)
