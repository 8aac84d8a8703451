"""The papers' numbers, from published.csv."""

import csv
from pathlib import Path
from typing import NamedTuple

from .runs import key

FILE = Path(__file__).with_name("published.csv")


class Printed(NamedTuple):
    """One published result: accuracies in percent by column ("base", "new", "hm", "accuracy"), and where it is from."""

    values: dict
    source: str
    note: str


class Published:
    """The published results, found by what they are of."""

    def __init__(self, file=FILE):
        with open(file, newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        self.rows = {}
        for row in rows:
            values = {name: float(row[name]) for name in ("base", "new", "hm", "accuracy") if row[name]}
            name = "Average" if row["dataset"] == "Average" else key(row["dataset"])
            self.rows[row["protocol"], row["trainer"], name, row["shots"], row["backbone"]] = Printed(
                values, row["source"], row["note"]
            )

    def get(self, protocol: str, method, dataset: str):
        """Return the published result of a method on a data set ("Average": on the protocol's usual ones); None if
        there is none.

        Backbone and number of shots have to match; zero-shot rows have no shots.
        """
        name = dataset if dataset == "Average" else key(dataset)
        return self.rows.get((protocol, method.trainer, name, str(method.shots or ""), method.backbone))
