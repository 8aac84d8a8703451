"""A base-to-new comparison of methods, and its table: for ``compare`` and ``demo``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ..record.files import write_text
from ..record.protocols import Request, all_protocols
from ..record.result import RunRecord
from ..results import formats
from ..results.notes import different_texts
from ..results.tables import Table
from ..running.budget import Method
from ..running.plan import Job, plan
from ..running.schedule import Failure
from ..running.sweep import carry_out
from .tables import tables_of

COLUMNS = ("base", "new", "HM")


@dataclass(frozen=True)
class Comparison:
    """What is run, and where its results go.

    Attributes:
        dataset: Name of a yaml in configs/datasets, or the path of the user's own.
        methods: Methods and their settings.
        seeds: Seeds of all runs.
        shots: Training images a class.
        output: Folder of the results.
        pairs: KEY VALUE pairs for all runs.
        backbone: Name or file of the CLIP; empty for the environment's, or the yaml's.
    """

    dataset: str
    methods: Sequence[Method]
    seeds: Sequence[int]
    shots: int
    output: Path
    pairs: Sequence[str] = ()
    backbone: str = ""

    def headline(self) -> str:
        """Describe the comparison in one line."""
        names, seeds = ", ".join(method.trainer for method in self.methods), ", ".join(map(str, self.seeds))
        return f"Base-to-new on {self.dataset}: {names}; {self.shots} shots, seeds {seeds}."

    def jobs(self) -> list[Job]:
        """Return the jobs, method by method within a seed."""
        protocol = all_protocols()["base2new"]
        return plan(
            protocol,
            Request(self.dataset, self.shots),
            self.methods,
            self.seeds,
            output=str(self.output),
            pairs=self.pairs,
            backbone=self.backbone,
        )

    def carry_out(self, overwrite: bool) -> list[Failure]:
        """Run what is missing; return what failed."""
        return carry_out(self.jobs(), overwrite=overwrite)

    def table(self) -> Table:
        """Return the table of what is finished."""
        (table,) = (table for table in tables_of(str(self.output), self.jobs()) if table.data != "average")
        return table

    def text(
        self, table: Table, facts: Sequence[str], best: Callable[[str], str] | None = None, style: str = "simple"
    ) -> str:
        """Write the table, sorted by HM, and whether class texts are of several sources."""
        headers, rows = formats.compact(table, COLUMNS, facts, seeds=self.seeds, best=best, sort_by_headline=True)
        text = tabulate(rows, headers=headers, tablefmt=style, disable_numparse=True)
        return "\n\n".join([text, *different_texts(table.runs)])

    def write(self, table: Table, facts: Sequence[str], stem: Path, note: str) -> list[Path]:
        """Write the table as CSV, JSON (with the single runs) and Markdown; return the files."""
        flat = formats.flat(table, COLUMNS, facts)
        stem.parent.mkdir(parents=True, exist_ok=True)
        files = [stem.with_name(f"{stem.name}.{ending}") for ending in ("csv", "json", "md")]
        write_text(files[0], formats.csv_of(list(dict.fromkeys(key for line in flat for key in line)), flat))
        content = {
            "dataset": self.dataset,
            "shots": self.shots,
            "seeds": list(self.seeds),
            "methods": {each.trainer: {"epochs": each.epochs, "settings": each.settings} for each in self.methods},
            "table": flat,
            "runs": [_numbers(job) for job in self.jobs()],
        }
        write_text(files[1], json.dumps(content, indent=2))
        write_text(files[2], f"{self.text(table, facts, '**{}**'.format, 'github')}\n\n{note}\n")
        return files


def _numbers(job: Job) -> dict[str, Any]:
    """Return the numbers of a finished job."""
    base, new = (RunRecord.read(folder) for folder in job.folders)
    return {
        "trainer": base.trainer,
        "seed": base.seed,
        "base": base.accuracy,
        "new": new.accuracy,
        "seconds": sum(base.seconds.values()) + sum(new.seconds.values()),
        "seconds_per_epoch": base.seconds_per_epoch,
        "peak_memory_mb": max(base.peak_memory_mb, new.peak_memory_mb),
        "learned_parameters": base.learned_parameters,
        "fewshot_digest": base.fewshot_digest,
    }
