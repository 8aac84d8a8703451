"""One download: resumed where it broke off, checked, and under its own name only when it is whole.

The part that has arrived is kept in ``<name>.part``. torchvision's downloader starts over when a connection breaks and
takes a login page for the file; for archives of gigabytes that is not enough.
"""

import hashlib
import http.client
import importlib.util
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

ATTEMPTS = 4  # one after the other without a byte gained
PAUSE = 2.0  # seconds before the second attempt; doubled each time
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 18
DRIVE = "drive:"
DRIVE_TIMEOUT = 120.0  # seconds without a byte, pages of warnings included
WATCH = 0.1  # seconds between two looks at what has arrived
BROKEN = (
    ConnectionError,
    TimeoutError,
    urllib.error.URLError,
    http.client.HTTPException,
    ssl.SSLError,
)  # and not: no space left


class FetchError(OSError):
    """A file could not be fetched, or is not the right one; the text says what to do."""


def fetch(urls: Sequence[str], target: Path, checksum: str = "", largest: int = 0) -> None:
    """Download a file to ``target`` from the first of ``urls`` that has it.

    Args:
        urls: Addresses, or ``drive:<id>`` for a file of Google Drive.
        target: The file to write; its folder must exist.
        checksum: As in `differs`; empty to accept anything.
        largest: Number of bytes after which the download is given up; 0 for any number.

    Raises:
        FetchError: No address had the right file. After a broken connection the part that arrived is kept, and the next
            call goes on there; a file with a wrong checksum is renamed to ``<name>.wrong``.
    """
    failures = []
    for url in urls:
        part = target.with_name(target.name + ".part")
        try:
            if url.startswith(DRIVE):
                _from_drive(url[len(DRIVE) :], part, largest)
            else:
                _from_url(url, part, largest)
            _refuse_web_page(part, url)
            wrong = differs(part, checksum)
        except FetchError as error:
            failures.append(str(error))
            continue
        if not wrong:
            os.replace(part, target)
            return
        aside = target.with_name(target.name + ".wrong")
        os.replace(part, aside)
        failures.append(
            f"{_shown(url)} is another file, or was damaged on the way: {wrong}. It was renamed to {aside}."
        )
    raise FetchError("\n".join(failures))


def differs(path: Path, checksum: str) -> str:
    """Say how a file differs from a checksum; "" if it does not.

    Args:
        path: The file.
        checksum: ``md5:...``, ``sha256:...`` or ``blob:...`` (as ``git hash-object`` prints it); empty allows any file.
    """
    kind, _, wanted = checksum.partition(":")
    found = digest(path, kind) if wanted else ""
    return "" if found == wanted else f"its {kind} is {found}, wanted is {wanted}"


def digest(path: Path, kind: str) -> str:
    """Return the md5, sha256 or git blob id ("blob") of a file, as hexadecimal digits."""
    sum_ = hashlib.new({"blob": "sha1"}.get(kind, kind), usedforsecurity=False)
    if kind == "blob":
        sum_.update(b"blob %d\0" % path.stat().st_size)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            sum_.update(chunk)
    return sum_.hexdigest()


def _refuse_web_page(path: Path, url: str) -> None:
    """Remove the file and raise, if it is a web page: none of the files of a data set is one."""
    with open(path, "rb") as file:
        head = file.read(4096)
    if _is_web_page(head):
        path.unlink()
        raise _web_page(url, head)


def _is_web_page(head: bytes) -> bool:
    """Tell a web page by its first bytes."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith((b"<!doctype html", b"<html", b"<head"))


def _web_page(url: str, head: bytes) -> FetchError:
    """Return the error for a web page in place of a file."""
    title = re.search(rb"<title[^>]*>(.*?)</title", head, re.IGNORECASE | re.DOTALL)
    named = f' ("{" ".join(title[1].decode(errors="replace").split())[:80]}")' if title else ""
    return FetchError(
        f"{_shown(url)} answered with a web page{named} instead of the file: a login, a quota or a proxy is in the "
        "way. "
        "Open the address in a browser to see, and try again later or from another network."
    )


def _from_url(url: str, part: Path, largest: int = 0) -> None:
    """Download to ``part``; after a broken connection, go on from the bytes that have arrived."""
    tries, pause = 0, PAUSE
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            return _one_connection(url, part, largest)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise FetchError(f"{url} answered {error.code} ({error.reason}).") from error
            reason = f"{error.code} ({error.reason})"
        except BROKEN as error:
            cause = getattr(error, "reason", error)
            if isinstance(cause, socket.gaierror):
                raise FetchError(
                    f"{url}: the host cannot be found ({cause}). Is there a network? A proxy is named by https_proxy."
                ) from error
            reason = str(cause) or type(cause).__name__
        have = part.stat().st_size if part.exists() else 0
        tries, pause = (1, PAUSE) if have > before else (tries + 1, pause * 2)
        if tries >= ATTEMPTS:
            kept = f" {megabytes(have)} have arrived and are kept; the same command goes on from there." if have else ""
            raise FetchError(f"{url}: {reason}.{kept}")
        time.sleep(pause)


def _one_connection(url: str, part: Path, largest: int = 0) -> None:
    """Download to ``part``, or append what it lacks, over one connection.

    Raises:
        ConnectionError: The connection broke; ``part`` keeps what has arrived.
        FetchError: The answer is a web page, or larger than ``largest``.
    """
    have = part.stat().st_size if part.exists() else 0
    # identity: byte positions have to be those of the file on disk
    headers = {"User-Agent": "clusterprompt", "Accept-Encoding": "identity"} | (
        {"Range": f"bytes={have}-"} if have else {}
    )
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get("Content-Range", "").endswith(f"/{have}"):
            return  # it was whole already
        part.unlink()  # longer than the file: rests of another one
        raise ConnectionError("the server has less than what had arrived before") from error
    with response:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if have and not resumed and response.status == 206:
            part.unlink()
            raise ConnectionError("the server sent another part than the one asked for")
        start = have if resumed else 0  # a server that knows no ranges sends all of it again
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdecimal() else None
        first = response.read1(CHUNK)
        web_page = response.headers.get_content_type() == "text/html" or _is_web_page(first)
        if web_page and not resumed:  # before a good part is overwritten by it
            raise _web_page(url, first)
        bar = tqdm(
            total=total,
            initial=start,
            unit="B",
            unit_scale=True,
            desc=part.name.removesuffix(".part"),
            disable=None,
            leave=False,
        )
        with open(part, "ab" if resumed else "wb") as file, bar:
            chunk, size = first, start
            while chunk:
                size += len(chunk)
                if largest and size > largest:
                    file.close()
                    part.unlink()
                    raise FetchError(
                        f"{url} sends more than {megabytes(largest)}, far more than the file has. It was removed."
                    )
                file.write(chunk)
                bar.update(len(chunk))
                chunk = response.read1(CHUNK)
    if total is not None and part.stat().st_size < total:
        raise ConnectionError(f"the connection broke off after {megabytes(part.stat().st_size)} of {megabytes(total)}")


# gdown has no bound of its own: it runs as a process that is watched.
GDOWN = """
import sys, gdown
try:
    gdown.download(id=sys.argv[1], output=sys.argv[2], quiet=sys.argv[3] == "quiet", resume=True)
except Exception as error:  # gdown's own, those of requests, and others between its versions
    print(f"{type(error).__name__}: {' '.join(str(error).split())}")
    sys.exit(1)
"""


def _from_drive(file_id: str, part: Path, largest: int = 0) -> None:
    """Download a file of Google Drive to ``part``, within bounds of size and of time without a byte."""
    page = f"https://drive.google.com/file/d/{file_id}/view"
    name = part.name.removesuffix(".part")
    by_hand = f"Or download {page} in a browser, and save it as {part.with_name(name)}."
    if importlib.util.find_spec("gdown") is None:
        raise FetchError(
            f"{name} lies on Google Drive, and gdown, which can fetch it, is not installed: "
            f"pip install gdown. {by_hand}"
        )
    words = [sys.executable, "-c", GDOWN, file_id, str(part), "loud" if sys.stderr.isatty() else "quiet"]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=said, stderr=None if words[-1] == "loud" else said
        )
        try:
            reason = _watch(process, part, largest)
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        last = ([line.strip() for line in said.read().splitlines() if line.strip()] or [""])[-1]
    if process.returncode and not reason:
        lost = "ConnectionError" in last  # requests' one, whose words are those of a log file
        reason = "no connection to drive.google.com" if lost else last.partition(": ")[2][:300] or last[:300]
    if not reason and (not part.is_file() or not part.stat().st_size):  # older gdown prints its error and goes on
        reason = "nothing arrived"
    if reason:
        raise FetchError(f"{name}: Google Drive did not hand it out ({reason}). Try again later. {by_hand}")


def _watch(process: subprocess.Popen, part: Path, largest: int) -> str:
    """Wait for a download; return why it was given up, or an empty string. What is too large is removed."""
    size, moved = -1, time.monotonic()
    while process.poll() is None:
        time.sleep(WATCH)
        now = sum(path.stat().st_size for path in _parts(part))
        if now != size:
            size, moved = now, time.monotonic()
        if largest and now > largest:
            process.kill()
            process.wait()
            for path in _parts(part):
                path.unlink()
            return f"it sends more than {megabytes(largest)}, far more than the file has; that was removed"
        if time.monotonic() - moved > DRIVE_TIMEOUT:
            return f"not a byte in {DRIVE_TIMEOUT:.0f} seconds"
    return ""


def _parts(part: Path) -> list[Path]:
    """Return the files that gdown writes for ``part``: itself, and temporary ones whose names begin with its name."""
    return [path for path in part.parent.iterdir() if path.name.startswith(part.name) and path.is_file()]


def _shown(url: str) -> str:
    """Return the address that a browser opens."""
    return f"https://drive.google.com/file/d/{url[len(DRIVE) :]}/view" if url.startswith(DRIVE) else url


def megabytes(size: int) -> str:
    """Write a number of bytes with a fitting unit."""
    for unit, step in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= step:
            return f"{size / step:.1f} {unit}"
    return f"{size} bytes"
