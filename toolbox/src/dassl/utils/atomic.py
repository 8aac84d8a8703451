"""Files that are either the old one or the whole new one, whatever happens in between."""

import os
from contextlib import contextmanager


@contextmanager
def atomic_path(path: str, tmp_dir: str | None = None):
    """Yield a temporary path to write to; when the block ends well, it becomes ``path``.

    Args:
        path: The file to write or replace.
        tmp_dir: Where the temporary file lies meanwhile; must be on the same file system. Default: beside ``path``.
    """
    folder, name = os.path.split(os.path.abspath(path))
    tmp = os.path.join(tmp_dir or folder, f".{name}.{os.getpid()}.tmp")
    try:
        yield tmp
        _fsync(tmp)
        os.replace(tmp, path)
        _fsync(folder)  # the rename itself
    finally:
        if os.path.exists(tmp):
            os.remove(tmp)


def _fsync(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError:
        pass  # some network file systems refuse it, which leaves the write as safe as it was
    finally:
        os.close(fd)
