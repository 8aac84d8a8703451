"""What a run's output folder holds: nothing, a finished run, an interrupted one; and how to empty it safely."""

import json
import os
import shutil
import time
from fnmatch import fnmatch
from pathlib import Path

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
# What does not change the numbers of a run, or (INPUT.SIZE) follows from what does.
LOCAL_SETTINGS = (
    "OUTPUT_DIR",
    "RESUME",
    "DATASET.ROOT",
    "VERBOSE",
    "USE_CUDA",
    "TRAIN.PRINT_FREQ",
    "TRAIN.WANDB",
    "INPUT.SIZE",
)


def state(folder) -> str:
    """Return "fresh", "finished" or "unfinished".

    A folder that a failed start left behind, with nothing in it but a log, is fresh.
    """
    result = read_result(folder)
    if result.get("status") == "finished":
        return "finished"
    entries = list(Path(folder).iterdir()) if Path(folder).is_dir() else []
    if result or any(_is_model_folder(entry) or entry.name in ("resume_state.pt", "result.json") for entry in entries):
        return "unfinished"
    return "fresh"


def holds_models(folder) -> bool:
    """Tell whether a training run has written checkpoints there."""
    return Path(folder).is_dir() and any(_is_model_folder(entry) for entry in Path(folder).iterdir())


def is_older(folder, than) -> bool:
    """Tell whether the result in ``folder`` was written before the one in ``than``: what was tested there has been
    trained anew since.
    """
    files = [Path(each) / "result.json" for each in (folder, than)]
    return all(file.is_file() for file in files) and files[0].stat().st_mtime_ns < files[1].stat().st_mtime_ns


def read_result(folder) -> dict:
    """Return what ``result.json`` says; an empty dict where there is none, or a damaged one."""
    try:
        result = json.loads((Path(folder) / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return result if isinstance(result, dict) else {}


def changed_settings(result: dict, cfg) -> list:
    """Return the settings in which a recorded run differs from ``cfg``, as "KEY old -> new"."""
    from ..config import get, keys

    recorded = result.get("config")
    if not isinstance(recorded, dict):
        return []
    now = json.loads(json.dumps(cfg, default=str))
    old_keys, new_keys = set(keys(recorded)), set(keys(now))
    changed = []
    method = ("TRAINER.NAME", f"TRAINER.{_node(cfg.TRAINER.NAME)}.")
    local = [
        key for key in LOCAL_SETTINGS if key != "DATASET.ROOT" or cfg.DATASET.NAME != "ImageFolder"
    ]  # whose root says which data they are
    for key in sorted(old_keys & new_keys):
        old, new = get(recorded, key), get(now, key)
        counts = key.startswith(method) if key.startswith("TRAINER.") else key not in local
        if counts and old != new:
            changed.append(f"{key} {old!r} -> {new!r}")
    return changed


def check_removable(folder):
    """Raise ValueError if ``folder`` holds anything that no run writes."""
    if not Path(folder).is_dir():
        return
    foreign = sorted(entry.name for entry in Path(folder).iterdir() if not _is_ours(entry))
    if foreign:
        raise ValueError(
            f"--overwrite: {folder} holds what no run of this program wrote ({', '.join(foreign[:5])}{', ...' if len(foreign) > 5 else ''}). "
            "Nothing was removed; move it away, or choose another --output-dir."
        )


def clear(folder):
    """Remove what a run wrote; see `check_removable`."""
    check_removable(folder)
    for entry in Path(folder).iterdir() if Path(folder).is_dir() else []:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def put_old_log_aside(folder):
    """Rename ``log.txt`` after its last change, so that the log of the run that begins gets this name.

    Dassl would name the new one otherwise, and the log parsers read ``log.txt``.
    """
    log = Path(folder) / "log.txt"
    if log.is_file():
        stamp = time.strftime("-%Y-%m-%d-%H-%M-%S", time.localtime(os.path.getmtime(log)))
        while Path(f"{log}{stamp}").exists():
            stamp += "-again"
        log.rename(f"{log}{stamp}")


def _node(trainer: str) -> str:
    """Return the name of a trainer's config node; a host's trainer does not say it."""
    from dassl.engine import TRAINER_REGISTRY

    cls = TRAINER_REGISTRY.get(trainer)
    return cls.node() if hasattr(cls, "node") else trainer.upper()


def _is_model_folder(entry: Path) -> bool:
    return entry.is_dir() and (entry / "checkpoint").is_file()


def _is_ours(entry: Path) -> bool:
    if entry.is_dir():
        return _is_model_folder(entry) or entry.name in ("tensorboard", "wandb", "pictures")
    return any(fnmatch(entry.name, pattern) for pattern in WRITTEN_FILES)
