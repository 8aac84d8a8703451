"""Decide what becomes of a run's output folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..record import folder as run_folder
from ..record.result import RunRecord
from .options import TrainOptions
from .same_data import DataNow


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
    run_folder.check_writable(folder)
    if options.resume and options.overwrite:
        raise ValueError(
            "--resume goes on with the run in the output folder, --overwrite replaces it; give one of them"
        )
    if options.overwrite:
        return _clear(options, folder)
    if isinstance(options.resume, str) and not os.path.isdir(options.resume):
        raise FileNotFoundError(f"--resume {options.resume}: no such folder")
    if run_folder.is_half_cleared(folder):
        print(f"An --overwrite of {folder} was interrupted: removing the rest of the old run.")
        return "clear"
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
        return _resume(options, cfg, folder)
    if isinstance(options.resume, str):
        _refuse_changed(options.resume, cfg)
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


def _resume(options: TrainOptions, cfg, folder: str) -> str:
    """Check that the unfinished run in the folder may go on."""
    own = options.resume is True or (options.resume and os.path.realpath(options.resume) == os.path.realpath(folder))
    if not own:
        raise ValueError(f"{folder} holds an unfinished run. Go on with it: --resume. Replace it: --overwrite")
    _refuse_changed(folder, cfg)
    return "resume"


def _refuse_changed(folder: str, cfg) -> None:
    """Refuse to go on with a run of other settings; the trainer compares again, with those beside the weights."""
    from ..trainers.parts.resume import refuse_other_settings

    record = RunRecord.find(folder)
    refuse_other_settings(folder, record.changed_settings(cfg) if record else [])


def refuse_other_data(folder: str, cfg: Any) -> None:
    """Refuse to call a run finished that was trained or tested on other data.

    Raises:
        ValueError: The data differ. Data that are not there any more are not compared.
    """
    record = RunRecord.find(folder)
    differences = DataNow().differences(record, cfg) if record else []
    if differences:
        raise ValueError(
            f"the run in {folder} is of {'; '.join(differences)}: the data root is another, or the data were edited. "
            "Use the same data, or --overwrite"
        )


def _report_finished(folder: str, record: RunRecord, changed: list[str]) -> None:
    shown = f", accuracy {record.accuracy:.2f}" if record.accuracy is not None else ""
    print(f"Already finished{shown}: {folder}. Nothing was done; --overwrite runs it again.")
    if changed:
        print(f"Note: that run had other settings: {'; '.join(changed[:8])}")


def _is_within(path: str, folder: str) -> bool:
    inner, outer = Path(path).resolve(), Path(folder).resolve()
    return inner == outer or outer in inner.parents
