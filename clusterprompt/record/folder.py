"""What a run's output folder holds: nothing, a finished run, an interrupted one; and how to empty it safely."""

import os
import shutil
import time
from fnmatch import fnmatch
from pathlib import Path

from .result import FILE, RunRecord

WRITTEN_FILES = (
    "log.txt*",
    "resume_state.pt",
    "results.json",
    "result.json",
    "predictions.csv",
    "cmat.pt",
    "config.yaml",
    "*.tmp",
)


def state(folder: str | Path) -> str:
    """Return "fresh", "finished" or "unfinished".

    A folder that a failed start left behind, with nothing in it but a log, is fresh.
    """
    record = RunRecord.find(folder)
    if record is not None and record.finished:
        return "finished"
    entries = list(Path(folder).iterdir()) if Path(folder).is_dir() else []
    if any(_is_model_folder(entry) or entry.name in ("resume_state.pt", "result.json") for entry in entries):
        return "unfinished"
    return "fresh"


def holds_models(folder: str | Path) -> bool:
    """Tell whether a training run has written checkpoints there."""
    return Path(folder).is_dir() and any(_is_model_folder(entry) for entry in Path(folder).iterdir())


def is_stale(test: str | Path, training: str | Path) -> bool:
    """Tell whether the model that ``test`` evaluated was retrained after the test.

    Args:
        test: Output folder of the test.
        training: Output folder of the run that trained its model.
    """
    files = [Path(folder, FILE) for folder in (test, training)]
    return all(file.is_file() for file in files) and files[0].stat().st_mtime_ns < files[1].stat().st_mtime_ns


def check_removable(folder: str | Path) -> None:
    """Raise ValueError if ``folder`` holds anything that no run writes."""
    if not Path(folder).is_dir():
        return
    foreign = sorted(entry.name for entry in Path(folder).iterdir() if not _is_ours(entry))
    if foreign:
        raise ValueError(
            f"--overwrite: {folder} holds what no run of this program wrote "
            f"({', '.join(foreign[:5])}{', ...' if len(foreign) > 5 else ''}). "
            "Nothing was removed; move it away, or choose another --output-dir."
        )


def clear(folder: str | Path) -> None:
    """Remove what a run wrote; see `check_removable`."""
    check_removable(folder)
    for entry in Path(folder).iterdir() if Path(folder).is_dir() else []:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def rotate_log(folder: str | Path) -> None:
    """Rename ``log.txt`` after its last change, so that the log of the run that begins gets this name.

    Dassl would name the new one otherwise, and the log parsers read ``log.txt``.
    """
    log = Path(folder) / "log.txt"
    if log.is_file():
        stamp = time.strftime("-%Y-%m-%d-%H-%M-%S", time.localtime(os.path.getmtime(log)))
        while Path(f"{log}{stamp}").exists():
            stamp += "-again"
        log.rename(f"{log}{stamp}")


def _is_model_folder(entry: Path) -> bool:
    return entry.is_dir() and (entry / "checkpoint").is_file()


def _is_ours(entry: Path) -> bool:
    if entry.is_dir():
        return _is_model_folder(entry) or entry.name in ("tensorboard", "wandb", "pictures")
    return any(fnmatch(entry.name, pattern) for pattern in WRITTEN_FILES)
