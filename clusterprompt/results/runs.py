"""Finished runs below a folder, and what of the folder cannot be used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..record.names import printable
from ..record.protocols import all_protocols
from ..record.result import FILE, DamagedRecord, RunRecord
from .placement import assign_protocols
from .run import Method, Run, column_of, format_ranges

__all__ = ["Findings", "Method", "Run", "collect_runs", "format_ranges"]


class Findings(NamedTuple):
    """The runs of a folder, and sentences about what could not be used."""

    runs: list[Run]
    notes: list[str]


def collect_runs(folder: str | Path, only: Iterable[Path] | None = None) -> Findings:
    """Read the finished runs below ``folder``.

    Args:
        folder: Folder of results, in any layout.
        only: Run folders to read, instead of every one below ``folder``; those without a record are passed over.

    Raises:
        FileNotFoundError: There is no such folder, or nothing in it; not with ``only``.
        ValueError: None of its runs can be used; not with ``only``.
    """
    folder = Path(folder)
    records, notes = _read_records(_record_files(folder, only))
    runs = assign_protocols(records, folder, notes)
    runs = _without_duplicates(runs, notes)
    runs = _without_lone_halves(runs, notes)
    if not runs and only is None:
        raise ValueError(f"no run below {folder} can be used:\n" + "\n".join(f"  {printable(note)}" for note in notes))
    runs.sort(key=lambda run: (run.protocol, run.method.order(), run.dataset, run.part, run.seed))
    return Findings(runs, [printable(note, keep="\n") for note in notes])


def _record_files(folder: Path, only: Iterable[Path] | None) -> list[Path]:
    """Return the result.json files to read."""
    if only is not None:
        return sorted(file for path in set(only) if (file := Path(path, FILE)).is_file())
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no such folder: {folder}; give the folder that your runs were written to, such as output/"
        )
    files = sorted(folder.rglob(FILE))
    if not files:
        raise FileNotFoundError(f"no {FILE} below {folder}; run something first, for example: bash scripts/demo.sh")
    return files


def _read_records(files: Sequence[Path]) -> tuple[dict[Path, RunRecord], list[str]]:
    """Return the finished records by run folder, and notes about the others."""
    records: dict[Path, RunRecord] = {}
    unfinished, validated, notes = [], [], []
    for file in files:
        try:
            record = RunRecord.read(file.parent)
        except DamagedRecord as error:
            notes.append(f"Left out, {error}: {file}")
            continue
        if not record.finished:
            unfinished.append(str(file.parent))
        elif record.accuracy is None:
            notes.append(f"Left out, damaged (without accuracy): {file}")
        elif record.is_validation:
            validated.append(str(file.parent))
        else:
            records[file.parent] = record
    if unfinished:
        notes.append(f"Not finished, left out ({len(unfinished)}): {'; '.join(unfinished)}")
    if validated:
        notes.append(f"Scored on validation images, left out ({len(validated)}): {'; '.join(validated)}")
    return records, notes


def _without_duplicates(runs: list[Run], notes: list[str]) -> list[Run]:
    """Keep the run written last where several are of the same protocol, method, data, and seed."""
    same = defaultdict(list)
    for run in runs:
        same[run.protocol, run.method, run.key, run.source_key, run.part, run.seed].append(run)
    for group in same.values():
        group.sort(key=lambda run: ((run.path / FILE).stat().st_mtime, str(run.path)))
        # The zero-shot run of each number of shots is the same run again.
        if len(group) > 1 and (group[0].method.shots or len({run.accuracy for run in group}) > 1):
            kept = group[-1]
            others = "; ".join(str(run.path) for run in group[:-1])
            note = f"Duplicates: {kept.name} ({kept.part}) is counted once, from {kept.path}; left out: {others}"
            if note not in notes:
                notes.append(note)
    return [group[-1] for group in same.values()]


def _without_lone_halves(runs: list[Run], notes: list[str]) -> list[Run]:
    """Leave out runs whose column counts only together with another one, which is missing."""
    protocols = all_protocols()
    halves = defaultdict(list)
    for run in runs:
        if protocols[run.protocol].together:
            halves[run.protocol, run.method, run.key, run.seed].append(run)
    lone = set()
    for (name, *_), group in halves.items():
        together, columns = protocols[name].together, [column_of(protocols[name], run) for run in group]
        if set(columns) != set(together):
            lone.update(group)
            notes += [f"Left out, {together[column]}: {run.path}" for column, run in zip(columns, group)]
    return [run for run in runs if run not in lone]
