"""Decide what becomes of a run's output folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..record import folder as run_folder
from ..record.result import RunRecord
from .options import TrainOptions


def prepare_output(options: TrainOptions, cfg: Any) -> str:
    """Decide what becomes of the output folder.

    Returns:
        ``start``, ``resume``, ``clear`` (to be emptied after a good start) or ``skip`` (finished already).

    Raises:
        ValueError: It holds an unfinished run and neither ``--resume`` nor ``--overwrite`` was given, or they cannot be
            followed.
        FileNotFoundError: The folder to resume from does not exist.
    """
    folder = cfg.OUTPUT_DIR
    if options.resume and options.overwrite:
        raise ValueError(
            "--resume goes on with the run in the output folder, --overwrite replaces it; give one of them"
        )
    if options.overwrite:
        return _clear(options, folder)
    if isinstance(options.resume, str) and not os.path.isdir(options.resume):
        raise FileNotFoundError(f"--resume {options.resume}: no such folder")
    state, record = run_folder.state(folder), RunRecord.find(folder)
    tests_a_run = options.eval_only and run_folder.holds_models(folder)
    if state == "finished" and record and not tests_a_run:
        _report_finished(folder, record, record.changed_settings(cfg))
        return "skip"
    if tests_a_run:
        raise ValueError(
            f"{folder} holds a training run; give the evaluation another --output-dir (and that run as --model-dir)"
        )
    if options.eval_only:
        return "start"
    if state == "unfinished":
        return _resume(options, cfg, folder, record)
    if isinstance(options.resume, str):
        _refuse_changed(options.resume, RunRecord.find(options.resume), cfg, "Use its own")
    elif options.resume:
        print(f"Nothing to resume in {folder}: starting from the beginning.")
    return "start"


def _clear(options: TrainOptions, folder: str) -> str:
    if options.model_dir and _is_within(options.model_dir, folder):
        raise ValueError(
            f"--overwrite would remove the model that --model-dir names: {options.model_dir} lies in {folder}"
        )
    run_folder.check_removable(folder)
    return "clear"


def _resume(options: TrainOptions, cfg, folder: str, record: RunRecord | None) -> str:
    """Check that the unfinished run in the folder may go on."""
    own = options.resume is True or (options.resume and os.path.realpath(options.resume) == os.path.realpath(folder))
    if not own:
        raise ValueError(f"{folder} holds an unfinished run. Go on with it: --resume. Replace it: --overwrite")
    _refuse_changed(folder, record, cfg, "Use its own, or --overwrite")
    return "resume"


def _refuse_changed(folder: str, record: RunRecord | None, cfg, way_out: str) -> None:
    changed = record.changed_settings(cfg) if record else []
    if changed:
        raise ValueError(f"--resume: the run in {folder} has other settings: {'; '.join(changed[:8])}. {way_out}")


def _report_finished(folder: str, record: RunRecord, changed: list[str]) -> None:
    shown = f", accuracy {record.accuracy:.2f}" if record.accuracy is not None else ""
    print(f"Already finished{shown}: {folder}. Nothing was done; --overwrite runs it again.")
    if changed:
        print(f"Note: that run had other settings: {'; '.join(changed[:8])}")


def _is_within(path: str, folder: str) -> bool:
    inner, outer = Path(path).resolve(), Path(folder).resolve()
    return inner == outer or outer in inner.parents
