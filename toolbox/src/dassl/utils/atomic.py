"""Files that are either the old one or the whole new one, whatever happens in between."""

import errno
import os
import shutil
from contextlib import contextmanager

TORCH_WRITE_ERRORS = ("unexpected pos", "PytorchStreamWriter", "inline_container", "file write failed")


@contextmanager
def atomic_path(path: str, tmp_dir: str | None = None):
    """Yield a temporary path to write to; when the block ends well, it becomes ``path``.

    Args:
        path: The file to write or replace.
        tmp_dir: Where the temporary file lies meanwhile; must be on the same file system. Default: beside ``path``.

    Raises:
        OSError: It cannot be written; names the file, and how much room its disk has if that is the reason.
    """
    folder, name = os.path.split(os.path.abspath(path))
    tmp = os.path.join(tmp_dir or folder, f".{name}.{os.getpid()}.tmp")
    try:
        yield tmp
        _fsync(tmp)
        os.replace(tmp, path)
        _fsync(folder)  # the rename itself
    except (OSError, RuntimeError) as error:
        raise _named(error, path) from error
    finally:
        if os.path.exists(tmp):
            os.remove(tmp)


def _named(error, path):
    # torch.save says "unexpected pos" or the like where the system said that the disk is full.
    torchs = isinstance(error, RuntimeError) and any(words in str(error) for words in TORCH_WRITE_ERRORS)
    full = torchs or (isinstance(error, OSError) and error.errno == errno.ENOSPC)
    if not full:
        return error
    free = shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free / 2**20
    return OSError(
        errno.ENOSPC, f"Writing failed, {free:.1f} MiB are free: is the disk full, or a quota used up?", path
    )


def _fsync(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError:
        pass  # some network file systems refuse it, which leaves the write as safe as it was
    finally:
        os.close(fd)
