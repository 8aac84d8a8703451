"""Runs that belong together, one after the other in this process: a training run, then tests of its model."""

from __future__ import annotations

from collections.abc import Sequence

from ..record import folder as run_folder
from ..record.result import RunRecord
from .preflight import check_tests
from .spec import RunSpec
from .train import make_cfg, train


def run_chain(specs: Sequence[RunSpec], *, resume: bool = False, overwrite: bool = False) -> list[float | None]:
    """Do what is not finished yet.

    Args:
        specs: A training run, then tests of its model; or tests alone.
        resume: Go on with an interrupted training run; a test always starts again.
        overwrite: Replace what is there.

    Returns:
        Accuracy of each, in percent; None where nothing was tested.

    Raises:
        ValueError: A finished run has other settings than are asked for, or see :func:`.train.train`.
    """
    trained: set[str] = set()
    if not specs[0].model_folder and (overwrite or run_folder.state(specs[0].folder) != "finished"):
        check_tests(specs[1:])
    for spec in specs:
        # A new training run replaces the model: an older test of it must not survive.
        stale = spec.model_folder in trained or run_folder.is_stale(spec.folder, spec.model_folder)
        replace = overwrite or bool(spec.model_folder and stale)
        if not replace:
            _refuse_other_settings(spec)
        options = spec.train_options(resume=resume and not spec.model_folder, overwrite=replace)
        if train(options) is not None:
            trained.add(spec.folder)
    records = [RunRecord.read(spec.folder) for spec in specs]
    return [record.accuracy for record in records]


def _refuse_other_settings(spec: RunSpec) -> None:
    """Refuse a finished run whose numbers are not those asked for."""
    record = RunRecord.find(spec.folder)
    if record is None or not record.finished:
        return
    changed = record.changed_settings(make_cfg(spec.train_options()))
    if changed:
        raise ValueError(
            f"{spec.folder} holds a finished run of other settings ({'; '.join(changed[:8])}). "
            "Replace it: --overwrite. Keep both: OUTPUT=<another folder>"
        )
