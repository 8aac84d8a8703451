"""Temporary files and folders beside their targets. What a killed process leaves of them goes at the next start.

Each is locked (``flock``) by the process that writes it, for as long as it does: the system frees the lock when the
process ends, in whatever way. So one whose lock is free is nobody's any more. Where a file system has no locks, nothing
is removed.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def scratch_folder(parent: str | Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder in ``parent``, which is removed at the end unless it was renamed.

    Args:
        parent: Folder that exists.
        prefix: Beginning of its name; other folders in ``parent`` with this beginning are of earlier calls.
    """
    _clear_abandoned(Path(parent), re.compile(rf"{re.escape(prefix)}[a-z0-9_]{{8}}"))
    path, lock = _locked(lambda: Path(tempfile.mkdtemp(prefix=prefix, dir=parent)), os.O_RDONLY)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


@contextmanager
def scratch_file(target: Path) -> Iterator[Path]:
    """Yield the path of a new empty file beside ``target``, which is removed at the end unless it was renamed."""
    _clear_abandoned(target.parent, re.compile(rf"\.{re.escape(target.name)}\.\d+\.[0-9a-f]{{8}}\.tmp"))

    def make() -> Path:
        path = target.with_name(f".{target.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
        path.touch(exist_ok=False)
        return path

    path, lock = _locked(make, os.O_RDWR)
    try:
        yield path
    finally:
        with suppress(FileNotFoundError):
            path.unlink()
        os.close(lock)


def _locked(make: Callable[[], Path], flags: int) -> tuple[Path, int]:
    """Make a file or folder and lock it; once more, if another process took it for abandoned before it was locked."""
    while True:
        path = make()
        with suppress(FileNotFoundError):
            lock = os.open(path, flags)
            if _try_lock(lock) and path.exists():
                return path, lock
            os.close(lock)


def _try_lock(lock: int) -> bool:
    """Lock an open file or folder; return False if another process has it. Some file systems have no locks."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _clear_abandoned(folder: Path, pattern: re.Pattern[str]) -> None:
    """Remove this user's files and folders of a name whose writers are gone."""
    if not folder.is_dir():
        return
    for entry in list(os.scandir(folder)):
        if not pattern.fullmatch(entry.name) or entry.is_symlink():
            continue
        with suppress(OSError):  # somebody writes it, it is gone already, or it is another user's
            is_folder = entry.is_dir()
            lock = os.open(entry.path, (os.O_RDONLY if is_folder else os.O_RDWR) | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.getuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(entry.path) if is_folder else os.unlink(entry.path)
            finally:
                os.close(lock)
