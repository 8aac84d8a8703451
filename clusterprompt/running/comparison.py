"""Run methods and seeds from base to new side by side, keep what is finished, put the numbers together: for demo.py,
compare.py and ablation.py.

Every run is one of scripts/base2new.py, in a process of its own with one thread: with models as small as the embedded
one that is faster than several threads a run, and the numbers do not depend on how many cores there are.
"""

import csv
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..record import folder as run_folder
from .base2new import default_output, folders, harmonic_mean
from .budget import Method
from .plan import ONE_THREAD, SETTINGS, base2new_run
from .runner import Run, carry_out


class Comparison(NamedTuple):
    """What is to be run, and where the results lie.

    Attributes:
        folder: Below the folder of all results.
        backbone: Empty for the environment's, or the yamls'.
        command: What starts it again, for messages.
    """

    folder: str
    dataset: str
    shots: int
    seeds: tuple
    methods: tuple
    backbone: str
    command: str

    @property
    def output(self) -> Path:
        """Folder of the results."""
        return Path(os.environ.get("OUTPUT") or default_output()) / self.folder

    def environment(self, **more) -> dict:
        """Return what the runs' environment says: the comparison's own settings count, not those that happen to be set
        for other scripts.
        """
        own = {"OUTPUT": str(self.output), "SHOTS": str(self.shots), "CFG": "basetonovel", **ONE_THREAD}
        return {**own, **({"BACKBONE": self.backbone} if self.backbone else {}), **more}

    def places(self, trainer: str, seed: int) -> tuple:
        """Return the folders of the two halves of a run."""
        return folders(trainer, self.dataset, seed, self.environment())

    def run(self, fresh: bool) -> list:
        """Run what is not finished; return the numbers of all runs, method by method.

        Raises:
            SystemExit: Code 1 if a run failed; it has been listed.
        """
        runs = [(method, seed) for method in self.methods for seed in self.seeds]
        if carry_out([self.planned(method, seed) for method, seed in runs], fresh, self.command):
            raise SystemExit(1)
        return [self.read_record(method.trainer, seed) for method, seed in runs]

    def planned(self, method: Method, seed: int, name: str = "") -> Run:
        """Return the run of one method and seed."""
        environment = self.environment(EPOCHS=str(method.epochs or ""))
        return base2new_run(
            f"{name or method.trainer}, seed {seed}",
            method,
            self.dataset,
            seed,
            (*SETTINGS, *method.settings),
            environment,
        )

    def read_record(self, trainer: str, seed: int) -> dict:
        """Return the numbers of one method and seed."""
        base, new = (run_folder.read_result(folder) for folder in self.places(trainer, seed))
        return {
            "trainer": trainer,
            "seed": seed,
            "base": base["accuracy"],
            "new": new["accuracy"],
            "hm": harmonic_mean(base["accuracy"], new["accuracy"]),
            "seconds": sum(base["seconds"].values()) + sum(new["seconds"].values()),
            "seconds_per_epoch": base.get("seconds_per_epoch", 0.0),
            "peak_memory_mb": max(base["peak_memory_mb"], new["peak_memory_mb"]),
            "learned_parameters": base.get("learned_parameters", 0),
            "fewshot_digest": base["fewshot_digest"],
        }

    def summaries(self, records) -> list:
        """Return a row for each method: (mean, standard deviation) of the accuracies, means of times, the highest
        memory.
        """
        rows = []
        for method in self.methods:
            own = [record for record in records if record["trainer"] == method.trainer]
            row = {"trainer": method.trainer}
            for column, key in (("base", "base"), ("new", "new"), ("HM", "hm")):
                values = [record[key] for record in own]
                row[column] = (float(np.mean(values)), float(np.std(values)))
            row["parameters"] = own[0]["learned_parameters"]
            row["seconds"] = float(np.mean([record["seconds"] for record in own]))
            row["s/epoch"] = float(np.mean([record["seconds_per_epoch"] for record in own]))
            row["peak MB"] = max(record["peak_memory_mb"] for record in own)
            rows.append(row)
        return rows

    def write(self, rows, records, columns, stem: Path) -> list:
        """Write the table as CSV, and table and single runs as JSON; return the files."""
        flat = []
        for row in rows:
            flat.append({})
            for column in columns:
                if isinstance(row[column], tuple):
                    flat[-1][f"{column}_mean"], flat[-1][f"{column}_std"] = row[column]
                else:
                    flat[-1][{"peak MB": "peak_memory_mb", "s/epoch": "seconds_per_epoch"}.get(column, column)] = row[
                        column
                    ]
        stem.parent.mkdir(parents=True, exist_ok=True)
        files = stem.with_suffix(".csv"), stem.with_suffix(".json")
        with open(files[0], "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(flat[0]))
            writer.writeheader()
            writer.writerows(flat)
        settings = {method.trainer: {"epochs": method.epochs, "settings": method.settings} for method in self.methods}
        content = {
            "dataset": self.dataset,
            "shots": self.shots,
            "seeds": self.seeds,
            "methods": settings,
            "table": flat,
            "runs": records,
        }
        files[1].write_text(json.dumps(content, indent=2), encoding="utf-8")
        return list(files)


def shown(value) -> str:
    """Write a cell of the table."""
    if isinstance(value, tuple):
        return f"{value[0]:.1f} +- {value[1]:.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    return (f"{value:.0f}" if value >= 10 else f"{value:.1f}") if isinstance(value, float) else str(value)
