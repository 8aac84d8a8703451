"""One archive, all or nothing: it is unpacked beside its place, and moved there when everything is written.

An archive comes from the network. One that holds a path or a link out of its folder is refused as a whole.
"""

import bz2
import contextlib
import errno
import gzip
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from tqdm import tqdm

from ..record.names import printable
from ..record.scratch import scratch_folder
from .fetch import megabytes

RATIO = 10  # unpacked bytes to those of the archive; photographs do not pack
SLACK = 100_000_000  # bytes, for small archives of texts
MOST_FILES = 2_000_000
CHUNK = 1 << 18
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
COMPRESSIONS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open))
# What the standard library raises for damage. An OSError without a number is gzip's or bz2's.
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    ValueError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    OSError,
)


class UnpackError(OSError):
    """An archive is damaged, dangerous, or not the expected one."""


def unpack(archive: Path, folder: Path, take: dict[str, str], inner: str = "", size: int = 0) -> None:
    """Take files and folders out of an archive.

    Where a target exists already, missing files are added: no file of the user is replaced or removed.

    Args:
        archive: A zip, or a tar with any compression.
        folder: The data set's folder.
        take: Path in the archive -> path below ``folder``, for each entry to keep.
        inner: An archive in the archive, from which to take them.
        size: Size of the archive in bytes, where it is known.

    Raises:
        UnpackError: It is damaged or cut short, holds a link or a path that leads out of it, unpacks to far more than
            its size, or lacks an entry of ``take``. Then nothing is left behind.
    """
    with scratch_folder(folder, f".unpacking-{archive.name}-") as beside:
        content = beside / "content"
        _extract(archive, content, size)
        if inner:
            content, outer = beside / "inner", content
            _need(outer / inner, archive)
            _extract(outer / inner, content)
        for inside in take:
            _need(content / inside, archive)
        for inside, target in take.items():
            _move(content / inside, folder / target)


def _extract(archive: Path, target: Path, size: int = 0) -> None:
    """Unpack a whole zip or tar into a new folder."""
    target.mkdir(parents=True)
    found = archive.stat().st_size
    files = _Files(target, RATIO * (min(size, found) if size else found) + SLACK)
    try:
        if zipfile.is_zipfile(archive):
            _extract_zip(archive, files)
        else:
            _extract_tar(archive, files)
    except UnpackError as error:
        raise UnpackError(f"{archive}: {error}. Nothing was unpacked.") from error
    except DAMAGED as error:
        if getattr(error, "errno", None):  # no space left, no permission
            raise
        reason = printable(str(error) or type(error).__name__)[:200]
        raise UnpackError(
            f"{archive}: damaged or cut short ({reason}). Nothing was unpacked; remove it, and fetch it again."
        ) from error


class _Files:
    """The files that an archive has, written one by one, within bounds.

    Args:
        target: New folder to write to; nothing but what is written here lies in it, and no link.
        limit: Largest number of bytes in all.
    """

    def __init__(self, target: Path, limit: int) -> None:
        self.target, self.limit = target, limit
        self.size = self.count = 0

    def place(self, name: str) -> Path:
        """Return the place of an entry.

        Raises:
            UnpackError: Its path leads out of the archive, or there are too many.
        """
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or "\0" in name or (path.parts and path.parts[0].endswith(":")):
            raise UnpackError(f"refused, the path {_shown(name)} leads out of the archive")
        self.count += 1
        if self.count > MOST_FILES:
            raise UnpackError(f"refused, it holds more than {MOST_FILES:,} files")
        return self.target / PurePosixPath(name)

    def make_folder(self, name: str) -> None:
        """Make a folder."""
        self._in_place(name, lambda place: place.mkdir(parents=True, exist_ok=True))

    def write(self, name: str, source: IO[bytes]) -> None:
        """Write a file."""

        def write(place: Path) -> None:
            place.parent.mkdir(parents=True, exist_ok=True)
            with open(place, "wb") as file:
                while chunk := source.read(CHUNK):
                    self.count_bytes(len(chunk))
                    file.write(chunk)

        self._in_place(name, write)

    def count_bytes(self, more: int) -> None:
        """Raise UnpackError if these bytes are too many."""
        self.size += more
        _check_bound(self.size, self.limit)

    def _in_place(self, name: str, write) -> None:
        """Write an entry; say the names that no file can have, and those that are a file and a folder."""
        place = self.place(name)
        try:
            write(place)
        except OSError as error:
            if error.errno not in (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EILSEQ):
                raise
            raise UnpackError(f"refused, no file can be written as {_shown(name)} ({error.strerror})") from error


def _check_bound(size: int, limit: int) -> None:
    """Raise UnpackError for more bytes than an archive may unpack to."""
    if size > limit:
        raise UnpackError(f"refused, it unpacks to more than {megabytes(limit)}, and images do not pack that well")


def _shown(name: str) -> str:
    """Return a name for a message."""
    text = printable(name)
    return f"'{text[:80]}{'...' if len(text) > 80 else ''}'"


class _Bounded:
    """A decompressed tar, read within bounds."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self.stream, self.limit = stream, limit
        self.last = b""  # what was read last

    def read(self, size: int = -1) -> bytes:
        """Read at most ``size`` bytes; ``tarfile`` asks for a whole header, however long that says it is."""
        if not 0 <= size <= CHUNK:
            raise UnpackError("refused, a name or note in it is longer than any file's")
        _check_bound(self.stream.tell(), self.limit)
        self.last = self.stream.read(size)
        return self.last

    def seek(self, place: int, whence: int = 0) -> int:
        """Move to a place that is within the bounds."""
        _check_bound(place if whence == 0 else 0, self.limit)
        return self.stream.seek(place, whence)

    def tell(self) -> int:
        """Return the place."""
        return self.stream.tell()


def _extract_tar(archive: Path, files: _Files) -> None:
    """Unpack a tar; refuse everything but files and folders.

    Each entry is checked and written here: Python's own filters let links out of the folder in many of its versions.
    """
    with open(archive, "rb") as raw:
        head = raw.read(8)
        raw.seek(0)
        opened = next((opener for magic, opener in COMPRESSIONS if head.startswith(magic)), None)
        with contextlib.closing(cast(IO[bytes], opened(raw) if opened else raw)) as stream:
            bounded: Any = _Bounded(stream, 2 * files.limit)  # with headers and padding
            try:
                tar = tarfile.open(fileobj=bounded, mode="r:")
            except tarfile.ReadError as error:
                if opened:
                    raise
                raise UnpackError("it is neither a zip nor a tar, or it is cut short") from error
            bar = tqdm(
                total=archive.stat().st_size,
                unit="B",
                unit_scale=True,
                desc=f"unpacking {archive.name}",
                disable=None,
                leave=False,
            )
            with tar, bar:
                for member in _members(tar):
                    _extract_member(tar, member, files)
                    bar.update(raw.tell() - bar.n)
                if bounded.last != bytes(tarfile.BLOCKSIZE):  # tarfile takes whatever it cannot read for the end
                    raise EOFError("it lacks its end")
                while bounded.read(CHUNK):  # to the end, where the compression keeps its checksum
                    pass


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the entries of a tar, and keep none of them."""
    while (member := tar.next()) is not None:
        cast(Any, tar).members.clear()
        yield member


def _extract_member(tar: tarfile.TarFile, member: tarfile.TarInfo, files: _Files) -> None:
    """Write one entry of a tar."""
    if member.isdir():
        files.make_folder(member.name)
    elif member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse() and member.size >= 0:
        source = tar.extractfile(member)
        assert source is not None  # as for every regular file
        with source:
            files.write(member.name, source)
    else:
        files.place(member.name)  # its path is the worse fault
        kind = "a link" if member.issym() or member.islnk() else "neither a file nor a folder"
        raise UnpackError(f"refused, {_shown(member.name)} is {kind}")


def _extract_zip(archive: Path, files: _Files) -> None:
    """Unpack a zip; refuse links, and what cannot be read, before anything is written."""
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        _check_bound(sum(member.file_size for member in members), files.limit)
        for member in members:
            if stat.S_ISLNK(member.external_attr >> 16):
                raise UnpackError(f"refused, {_shown(member.filename)} is a link")
            if member.flag_bits & 1:
                raise UnpackError(f"{_shown(member.filename)} is encrypted; unpack it yourself with its password")
            if member.compress_type not in ZIP_METHODS:
                raise UnpackError(
                    f"{_shown(member.filename)} is packed by a method that Python cannot read "
                    f"({member.compress_type}); unpack it with another program"
                )
        for member in tqdm(members, desc=f"unpacking {archive.name}", disable=None, leave=False):
            if member.is_dir():
                files.make_folder(member.filename)
            else:
                with file.open(member) as source:
                    files.write(member.filename, source)


def _need(path: Path, archive: Path) -> None:
    """Raise UnpackError, naming the files that were found instead, unless an unpacked path exists."""
    if not path.exists():
        top = path
        while not top.exists():
            top = top.parent
        holds = ", ".join(sorted(printable(entry.name)[:80] for entry in top.iterdir())[:10]) or "nothing"
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
