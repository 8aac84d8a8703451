"""A run's output folder: its owner, what it holds, whether it is ours, and how to empty it safely."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .files import write_text
from .result import FILE, RunRecord

# Written into a folder before anything else; a folder with it, or with a record or a resume state, is ours.
MARK = ".clusterprompt"
# An `--overwrite` moves the old run here. While it exists, whatever lies in the output folder is of the old run.
ASIDE = ".overwritten"
RESUME_STATE = "resume_state.pt"
WRITTEN_FILES = re.compile(
    r"log\.txt(-.*)?|results?\.json|predictions\.csv|cmat\.pt|config\.yaml|\.lock|\..*\.tmp|"
    + "|".join(map(re.escape, (RESUME_STATE, MARK)))
)
# What a kill leaves while the mark is being written; see `files.atomic_path`.
UNFINISHED_MARK = re.compile(rf"\.{re.escape(MARK)}\.\d+\.[0-9a-f]{{8}}\.tmp")
MODEL_FILES = re.compile(r"checkpoint|model\.pth\.tar-\d+|model-best\.pth\.tar|\..*\.tmp")
WRITTEN_FOLDERS = {"tensorboard", "wandb", "pictures", ASIDE}


# ---------------------------------------------------------------------- owner
@contextmanager
def owned(folder: str | Path) -> Iterator[None]:
    """Be the only run of an output folder for as long as the block lasts.

    The lock is a file beside the folder, held by ``flock``: the system frees it when the process ends, in whatever way.

    Raises:
        BlockingIOError: Another process is at it; the message says which.
    """
    path = _lock_file(Path(os.path.realpath(folder)))
    made = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        lock = open(path, "a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = " ".join(lock.read().split()) or "another process"
            lock.close()
            raise BlockingIOError(
                f"{folder} is in use by {holder}. Wait for it, or choose another --output-dir"
            ) from None
        except OSError:  # a file system without locks
            print(f"Note: {path.parent} takes no locks, so nothing keeps two runs out of {folder}", file=sys.stderr)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                break
        lock.close()  # its last owner has removed it meanwhile
    try:
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {os.uname().nodename} ({shlex.join(sys.argv)[:120]})\n")
        lock.flush()
        yield
    finally:
        with suppress(FileNotFoundError):
            path.unlink()
        lock.close()
        for parent in made:  # a start that failed leaves nothing
            with suppress(OSError):
                parent.rmdir()


def _lock_file(folder: Path) -> Path:
    """Return the file beside a folder that is locked; one inside, where its neighbourhood cannot be written to."""
    if folder.is_dir() and not os.access(folder.parent, os.W_OK):
        return folder / ".lock"
    return folder.with_name(f".{folder.name}.lock")


# ---------------------------------------------------------------------- content
def state(folder: str | Path) -> str:
    """Return "fresh", "finished" or "unfinished".

    A folder that a failed start left behind, with nothing in it but a log, is fresh; so is one whose run was being
    replaced.
    """
    if is_half_cleared(folder):
        return "fresh"
    record = RunRecord.find(folder)
    if record is not None and record.finished:
        return "finished"
    entries = list(Path(folder).iterdir()) if Path(folder).is_dir() else []
    if any(_is_model_folder(entry) or entry.name in (RESUME_STATE, FILE) for entry in entries):
        return "unfinished"
    return "fresh"


def holds_models(folder: str | Path) -> bool:
    """Tell whether a training run has written checkpoints there."""
    return Path(folder).is_dir() and any(_is_model_folder(entry) for entry in Path(folder).iterdir())


def checkpoint_mark(path: str | Path) -> dict[str, str]:
    """Return what identifies a checkpoint: its place below the run's folder, and the SHA-256 of its content."""
    path = Path(path)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"file": f"{path.parent.name}/{path.name}", "sha256": digest.hexdigest()}


def is_stale(test: str | Path, training: str | Path) -> bool:
    """Tell whether the model that ``test`` evaluated was retrained after the test.

    The test's record says which checkpoint it loaded. Records of older versions do not: such a test is stale if its
    model was trained by a version that does, or else if its file is older than that of the training.

    Args:
        test: Output folder of the test.
        training: Output folder of the run that trained its model.
    """
    tested, trained = RunRecord.find(test), RunRecord.find(training)
    if tested is None or trained is None:
        return False
    if tested.checkpoint is None:
        times = [Path(folder, FILE).stat().st_mtime_ns for folder in (test, training)]
        return tested.learned_parameters != 0 and (trained.checkpoint is not None or times[0] < times[1])
    file = Path(training, tested.checkpoint["file"])
    if file.is_file():
        return checkpoint_mark(file)["sha256"] != tested.checkpoint["sha256"]
    return holds_models(training)  # other checkpoints, or none any more: then nothing speaks against the test


# ---------------------------------------------------------------------- clearing
def is_ours(folder: str | Path) -> bool:
    """Tell whether a run of this program has written to a folder."""
    folder = Path(folder)
    if any((folder / name).exists() for name in (MARK, ASIDE, RESUME_STATE)):
        return True
    if folder.is_dir() and any(UNFINISHED_MARK.fullmatch(entry.name) for entry in folder.iterdir()):
        return True
    return RunRecord.find(folder) is not None or _has_damaged_record(folder)


def is_half_cleared(folder: str | Path) -> bool:
    """Tell whether an ``--overwrite`` was killed before the old run was gone."""
    return Path(folder, ASIDE).is_dir()


def check_removable(folder: str | Path) -> None:
    """Raise ValueError if no run has written to ``folder``, or if it holds anything that no run writes."""
    foreign = sorted(_foreign(Path(folder), ours=is_ours(folder)))
    if foreign:
        raise ValueError(
            f"--overwrite: {folder} holds what no run of this program wrote "
            f"({', '.join(foreign[:5])}{', ...' if len(foreign) > 5 else ''}). "
            "Nothing was removed; move it away, or choose another --output-dir."
        )


def check_writable(folder: str | Path) -> None:
    """Raise ValueError if a run would replace a file that no run of this program wrote."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output-dir {folder} is a file; name a folder")
    if not folder.is_dir() or is_ours(folder):
        return
    taken = [entry.name for entry in folder.iterdir() if WRITTEN_FILES.fullmatch(entry.name) and not _is_log(entry)]
    if taken:
        raise ValueError(
            f"{folder} holds {', '.join(sorted(taken)[:5])}, which no run of this program wrote and a run would "
            "replace. Move it away, or choose another --output-dir"
        )


def check_links(folder: str | Path) -> None:
    """Raise ValueError if a run would write into a folder, or over a checkpoint, that lies elsewhere.

    Links to files that a run replaces are no matter: the link goes, and its target keeps its content. A folder behind a
    link may hold anything, and whose checkpoints lie there is not known. The output folder itself may be a link.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return
    entries = [
        *folder.iterdir(),
        *(inner for entry in folder.iterdir() if _is_model_folder(entry) for inner in entry.iterdir()),
    ]
    found = [each for each in entries if each.is_symlink() and (each.is_dir() or each.parent != folder)]
    if found:
        said = ", ".join(f"{each.relative_to(folder)} -> {os.readlink(each)}" for each in sorted(found)[:3])
        raise ValueError(
            f"{folder} holds links that a run would write through ({said}). Put what they point at in their place, or "
            "let the whole --output-dir be a link"
        )


def clear(folder: str | Path) -> None:
    """Remove what a run wrote; see `check_removable`.

    All of it is moved aside first, so that a kill leaves no mixture of old and new: until the last of it is gone, the
    folder counts as empty.
    """
    folder, aside = Path(folder), Path(folder, ASIDE)
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    check_removable(folder)
    if not is_ours(folder):
        return
    aside.mkdir(exist_ok=True)
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name != FILE):  # readers look for the record
        if entry != aside:
            entry.rename(aside / f"{entry.name}.{uuid.uuid4().hex[:8]}")
    shutil.rmtree(aside)


def open_folder(folder: str | Path) -> None:
    """Make a folder that carries our mark, without what killed writers have left there."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / MARK, "An output folder of clusterprompt; --overwrite may replace what runs wrote here.\n")
    for left_over in folder.glob(".*.tmp"):
        with suppress(OSError):
            left_over.unlink()
    for name in ("log.txt", "cmat.pt"):  # Dassl writes through links; all others are replaced, link or not
        if (folder / name).is_symlink():
            (folder / name).unlink()


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


def _is_log(entry: Path) -> bool:
    return entry.name.startswith("log.txt")


def _has_damaged_record(folder: Path) -> bool:
    """Tell whether ``result.json`` lies beside a model's folder: a run of an older version, its record damaged."""
    return (folder / FILE).is_file() and holds_models(folder)


def _foreign(folder: Path, ours: bool) -> Iterator[str]:
    """Yield the names of what no run wrote; in a folder that is not ours, of all but logs."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if not ours:
            known = _is_log(entry)
        elif not entry.is_dir() or entry.is_symlink():
            known = bool(WRITTEN_FILES.fullmatch(entry.name))
        elif entry.name in WRITTEN_FOLDERS:
            known = True
        else:
            others = (inner.name for inner in entry.iterdir() if not MODEL_FILES.fullmatch(inner.name))
            yield from (f"{entry.name}/{name}" for name in others)
            known = True
        if not known:
            yield entry.name
