"""Carry out a plan: keep what is finished, refuse results of other settings, run the rest, list what failed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..record.result import RunRecord
from .engine import LocalEngine
from .plan import Job
from .preflight import check_tests
from .same_data import DataNow
from .schedule import Engine, Failure, execute
from .spec import RunSpec
from .train import make_cfg


def carry_out(jobs: Sequence[Job], *, overwrite: bool, engine: Engine | None = None) -> list[Failure]:
    """Run what is not finished.

    Args:
        jobs: The whole plan, finished or not.
        overwrite: Run everything again.
        engine: Where they are run; None for this machine.

    Returns:
        The jobs without a result; they have been listed on stderr.

    Raises:
        ValueError: Results of other settings lie where those of the plan would, a setting is not allowed, or a target
            cannot be tested.
        OSError: Data of a target are missing, or the engine does not start.
        KeyboardInterrupt: After Ctrl-C or SIGTERM.
    """
    if not overwrite:
        _refuse_other_settings(jobs)
    todo = unfinished(jobs, overwrite)
    if len(todo) < len(jobs):
        kept = len(jobs) - len(todo)
        print(f"{kept} of {len(jobs)} runs are finished already and kept; --overwrite runs them again.", flush=True)
    to_train = {folder for job in todo for folder in job.folders}
    check_tests(spec for job in todo if job.after in to_train for spec in job.specs)
    failures = execute(engine or LocalEngine(), todo, overwrite) if todo else []
    if failures:
        report(failures)
    return failures


def unfinished(jobs: Sequence[Job], overwrite: bool) -> list[Job]:
    """Return the jobs to be run: those without a finished result, and tests of a model that will be trained."""
    todo: list[Job] = []
    trained: set[str] = set()
    for job in jobs:
        if overwrite or job.after in trained or not job.is_finished():
            todo.append(job)
            trained.update(job.folders)
    return todo


def other_settings(jobs: Sequence[Job]) -> list[tuple[Job, list[str]]]:
    """Return the jobs whose results are there with other settings or of other data than are asked for, and how.

    Every yaml of the plan is read, so that a setting that is not allowed shows before the first run.

    Raises:
        ValueError: A setting is not allowed, such as an unknown key.
    """
    found, checked, data = [], set(), DataNow()
    for job in jobs:
        differences: list[str] = []
        for spec in job.specs:
            record = RunRecord.find(spec.folder)
            kind = (spec.trainer, spec.cfg, spec.leg.model is None)
            if record is None and kind in checked:
                continue
            checked.add(kind)
            cfg = make_cfg(spec.train_options())
            if record and (record.finished or not spec.model_folder):
                differences += record.changed_settings(cfg) or data.differences(record, cfg)
            differences += _other_source(spec, record)
        if differences:
            found.append((job, differences))
    return found


def _other_source(spec: RunSpec, record: RunRecord | None) -> list[str]:
    """Return the difference if a test was of a model that was trained on another data set."""
    model = RunRecord.find(spec.model_folder) if spec.model_folder else None
    if model is None or record is None or not record.trained_on:
        return []
    tested = record.trained_on.get("dataset", model.dataset)
    return [] if tested == model.dataset else [f"trained on {tested} -> {model.dataset}"]


def _refuse_other_settings(jobs: Sequence[Job]) -> None:
    """Refuse to run beside results of other settings."""
    found = other_settings(jobs)
    if not found:
        return
    shown = [f"{job.name}: {'; '.join(differences[:4])}" for job, differences in found[:3]]
    more = f", and {len(found) - 3} more" if len(found) > 3 else ""
    raise ValueError(
        f"{len(found)} of {len(jobs)} runs are there already with other settings or data than are asked for now "
        f"({' | '.join(shown)}{more}). Ask for the same to keep them, run them again with --overwrite, or keep both "
        "with OUTPUT=<another folder>"
    )


def report(failures: Sequence[Failure]) -> None:
    """List on stderr what failed, why, and where its log is."""
    failed = [failure for failure in failures if failure.started]
    print(f"\n{len(failed)} run{'s' * (len(failed) > 1)} failed:", file=sys.stderr)
    for failure in failed:
        print(f"  {failure.job.name}: {failure.reason}\n    log: {failure.job.log}", file=sys.stderr)
    for failure in failures:
        if not failure.started:
            print(f"  {failure.job.name}: not run, {failure.reason}", file=sys.stderr)
