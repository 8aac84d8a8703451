"""The short tables that ``run``, ``compare``, ``ablation`` and ``demo`` end with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from ..record.folder import is_stale
from ..record.protocols import all_protocols
from ..results import formats, tables
from ..results.runs import collect_runs
from .options import seeds_label

if TYPE_CHECKING:
    from ..running.campaign import Campaign
    from ..running.plan import Job


def tables_of(output: str, jobs: Sequence[Job]) -> list:
    """Return the tables of the finished runs of a plan."""
    folders = {
        Path(spec.folder).resolve()
        for job in jobs
        for spec in job.specs
        if not spec.model_folder or not is_stale(spec.folder, spec.model_folder)
    }
    try:
        found = collect_runs(Path(output), only=folders)
    except (FileNotFoundError, ValueError):  # nothing is finished, or no pair is whole
        return []
    return tables.build(found.runs, None, "std")


def campaign_tables(campaign: Campaign) -> str:
    """Return a table for each protocol, and what its numbers are."""
    parts = []
    for name, jobs in campaign.jobs().items():
        protocol = all_protocols()[name]
        own = [table for table in tables_of(campaign.output, jobs) if table.protocol.name == name]
        for table in own:
            columns = [column for column in table.columns if column != "mean of HMs"]
            headers, rows = formats.compact(table, columns, seeds=campaign.seeds)
            parts.append(f"\n{table.title}\n\n{tabulate(rows, headers=headers, disable_numparse=True)}\n")
            parts += [f"  {note}\n" for note in table.notes]
        if not own:
            parts.append(f"\n{protocol.title}: no run is finished\n")
    note = f"Accuracy in %, mean +- standard deviation over {seeds_label(campaign.seeds)}"
    derived = [protocol.name for protocol in campaign.protocols]
    note += "; HM: harmonic mean of the mean base and new accuracy" * ("base2new" in derived)
    note += "; average: of the targets" * any(protocol.transfers for protocol in campaign.protocols)
    return "".join(parts) + f"\n{note}.\nFull tables and a report: clusterprompt results {campaign.output}"
