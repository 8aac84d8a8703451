"""Files that others may read while we write them, and image files."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import Image

# Files with these endings are images, wherever a folder is searched for them.
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


def is_image_name(name: str | os.PathLike) -> bool:
    """Tell whether a file's name is that of a visible image."""
    base = os.path.basename(os.fspath(name))
    return base.lower().endswith(IMAGE_ENDINGS) and not base.startswith(".")


def read_image(path: str | os.PathLike) -> Image.Image:
    """Decode an image file to RGB.

    Raises:
        FileNotFoundError: No such file.
        OSError: The file is not an image, or it is damaged.
    """
    with Image.open(path) as image:
        return image.convert("RGB")


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file whole or not at all.

    Yields a temporary path in the same folder. When the block ends, the temporary file is flushed to the disk and takes
    the place of ``path``; when it raises, the temporary file is removed and ``path`` keeps its content.

    Args:
        path: File to write; its folder must exist.

    Raises:
        OSError: It cannot be written; names the file, and the room on its disk if that is the reason.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        raise write_error(error, path) from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def write_error(error: OSError | RuntimeError, path: Path) -> OSError:
    """Return the error of a failed write with the file's name; torch hides a full disk behind a RuntimeError."""
    if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return error if error.filename or not error.errno else type(error)(error.errno, error.strerror, str(path))
    reason = error.strerror if isinstance(error, OSError) else "the write failed; is the disk full, or a quota used up?"
    number = error.errno if isinstance(error, OSError) and error.errno else errno.ENOSPC
    try:
        free = f" ({shutil.disk_usage(path.parent).free / 2**20:.1f} MiB are free there)"
    except OSError:
        free = ""
    return OSError(number, f"{reason}{free}", str(path))


def _sync_folder(folder: Path) -> None:
    """Put a rename on the disk; some network file systems refuse it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a UTF-8 text file whole or not at all; see :func:`atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write a binary file whole or not at all; see :func:`atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
