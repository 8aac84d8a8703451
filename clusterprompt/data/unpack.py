"""One archive, all or nothing: it is unpacked beside its place, and moved there when everything is written.

An archive comes from the network. One that holds a path or a link out of its folder is refused as a whole.
"""

import os
import platform
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError)  # OSError: gzip's BadGzipFile


class UnpackError(OSError):
    """An archive is damaged, dangerous, or not the expected one."""


def unpack(archive: Path, folder: Path, take: dict[str, str], inner: str = "") -> None:
    """Take files and folders out of an archive.

    Where a target exists already, missing files are added: no file of the user is replaced or removed.

    Args:
        archive: A zip, or a tar with any compression.
        folder: The data set's folder.
        take: Path in the archive -> path below ``folder``, for what is to be kept.
        inner: An archive in the archive, from which to take them.

    Raises:
        UnpackError: It is damaged or cut short, holds a path that leads out of it, or lacks an entry of ``take``. Then
            nothing is left behind.
    """
    beside = folder / f".unpacking-{archive.name}"
    shutil.rmtree(beside, ignore_errors=True)  # of a call that was killed
    try:
        content = beside / "content"
        _extract(archive, content)
        if inner:
            content, outer = beside / "inner", content
            _need(outer / inner, archive)
            _extract(outer / inner, content)
        for inside in take:
            _need(content / inside, archive)
        for inside, target in take.items():
            _move(content / inside, folder / target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _extract(archive: Path, target: Path) -> None:
    """Unpack a whole zip or tar into a new folder."""
    target.mkdir(parents=True)
    try:
        if not hasattr(tarfile, "data_filter"):
            raise UnpackError(
                f"Python {platform.python_version()} cannot unpack safely; any of 3.10.12, 3.11.4 or later can"
            )
        if zipfile.is_zipfile(archive):
            _extract_zip(archive, target)
        elif tarfile.is_tarfile(archive):
            _extract_tar(archive, target)
        else:
            raise UnpackError("it is neither a zip nor a tar, or it is cut short")
    except UnpackError as error:
        raise UnpackError(f"{archive}: {error}. Nothing was unpacked.") from error
    except tarfile.FilterError as error:
        raise UnpackError(f"{archive}: refused, {error}. Nothing was unpacked.") from error
    except DAMAGED as error:
        if getattr(error, "errno", None):  # no space left, no permission
            raise
        raise UnpackError(
            f"{archive}: damaged or cut short ({error}). Nothing was unpacked; remove it, and fetch it again."
        ) from error


def _extract_tar(archive: Path, target: Path) -> None:
    """Unpack a tar; refuse devices, pipes, and links that lead out of it."""
    with open(archive, "rb") as raw:
        bar = tqdm(
            total=archive.stat().st_size,
            unit="B",
            unit_scale=True,
            desc=f"unpacking {archive.name}",
            disable=None,
            leave=False,
        )
        with bar, tarfile.open(fileobj=raw) as tar:
            for member in tar:
                _check_name(member.name)
                if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
                    raise UnpackError(f"refused, '{member.name}' is a device or pipe")
                tar.extract(member, target, filter="data")  # refuses links that lead out
                bar.update(raw.tell() - bar.n)
            while tar.fileobj.read(1 << 20):  # to the end, where the compression keeps its checksum
                pass


def _extract_zip(archive: Path, target: Path) -> None:
    """Unpack a zip; refuse links."""
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        for member in members:
            _check_name(member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise UnpackError(f"refused, '{member.filename}' is a link")
        for member in tqdm(members, desc=f"unpacking {archive.name}", disable=None, leave=False):
            file.extract(member, target)


def _check_name(name: str) -> None:
    """Raise UnpackError for a path that leads out of the archive."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        raise UnpackError(f"refused, the path '{name}' leads out of the archive")


def _need(path: Path, archive: Path) -> None:
    """Raise UnpackError, with what there is instead, unless an unpacked path exists."""
    if not path.exists():
        top = path
        while not top.exists():
            top = top.parent
        holds = ", ".join(sorted(entry.name for entry in top.iterdir())[:10]) or "nothing"
        raise UnpackError(
            f"{archive} lacks {path.name}: it is not the expected archive. Found instead: {holds}. "
            "Nothing was unpacked."
        )


def _move(source: Path, target: Path) -> None:
    """Move a file or folder; into an existing folder, move only the entries that it lacks."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)
    elif source.is_dir() and target.is_dir():
        for entry in list(source.iterdir()):
            _move(entry, target / entry.name)
