"""Downloads from a server that breaks off, knows no ranges, or sends something else."""

import hashlib
import random

import pytest

from clusterprompt.data.fetch import ATTEMPTS, FetchError, digest, fetch

BODY = random.Random(1).randbytes(100_000)
SHA = "sha256:" + hashlib.sha256(BODY).hexdigest()
PAGE = b"\n<!DOCTYPE html><html><head><title>Sign in\n to go on</title></head></html>"


@pytest.fixture
def target(tmp_path):
    return tmp_path / "file.bin"


def left(target):
    """Return the names of all files beside the target."""
    return sorted(path.name for path in target.parent.iterdir())


@pytest.mark.parametrize("checksum", [SHA, "md5:" + hashlib.md5(BODY).hexdigest(), ""])
def test_ordinary(serve, target, checksum):
    """Catches: damaged content, a part file left behind, more than one request."""
    url, page = serve("file", BODY)
    fetch([url], target, checksum)
    assert target.read_bytes() == BODY and left(target) == ["file.bin"] and page.asked == [None]


def test_broken_connection_is_resumed(serve, target):
    """Catches: a download that starts over, or a short file taken for the whole one."""
    url, page = serve("file", BODY, cuts=[60_000, 10_000])
    fetch([url], target)  # without a checksum, so only the length can tell
    assert target.read_bytes() == BODY and page.asked == [None, "bytes=60000-", "bytes=70000-"]


def test_part_is_kept_for_the_next_call(serve, target):
    """Catches: gigabytes thrown away when the server gives up, endless attempts, and a message that does not say how to
    go on.
    """
    url, page = serve("file", BODY, cuts=[60_000] + [0] * ATTEMPTS)
    with pytest.raises(FetchError, match="60.0 kB have arrived and are kept"):
        fetch([url], target, SHA)
    assert left(target) == ["file.bin.part"] and len(page.asked) == ATTEMPTS
    page.cuts, page.asked = [], []
    fetch([url], target, SHA)
    assert target.read_bytes() == BODY and page.asked == ["bytes=60000-"] and left(target) == ["file.bin"]


def test_server_without_ranges(serve, target):
    """Catches: the whole file appended to the part that was there."""
    url, _ = serve("file", BODY, cuts=[60_000], ranges=False)
    fetch([url], target, SHA)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("part, requests", [(BODY, 1), (BODY + b"rest of another file", 2)])
def test_part_that_is_long_enough(serve, target, part, requests):
    """Catches: a whole part (the process was killed before it got its name) that ends in an error 416; a longer one
    taken for the file.
    """
    url, page = serve("file", BODY)
    target.with_name("file.bin.part").write_bytes(part)
    fetch([url], target, SHA)
    assert target.read_bytes() == BODY and len(page.asked) == requests


def test_wrong_checksum(serve, target):
    """Catches: a wrong file taken, or tried again and again as a part; a message from which nobody can see what was
    compared.
    """
    url, _ = serve("file", BODY + b"!")
    with pytest.raises(FetchError) as error:
        fetch([url], target, SHA)
    assert SHA[7:] in str(error.value) and hashlib.sha256(BODY + b"!").hexdigest() in str(error.value)
    assert left(target) == ["file.bin.wrong"]


def test_mirror(serve, target):
    """Catches: a dead original that stops the download, or is asked again although it said no; a mirror's wrong file
    that is the end.
    """
    dead, other = serve("file", b"")[0] + "-gone", serve("other", b"another file")[0]
    good, _ = serve("good", BODY)
    fetch([dead, other, good], target, SHA)
    assert target.read_bytes() == BODY
    target.unlink()
    with pytest.raises(FetchError, match="answered 404"):
        fetch([dead], target, SHA)
    assert "file.bin.part" not in left(target)


def test_busy_server_is_asked_again(serve, target):
    """Catches: a download given up because of one 503."""
    url, page = serve("file", BODY, status=[503, 429])
    fetch([url], target, SHA)
    assert target.read_bytes() == BODY and len(page.asked) == 3


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_web_page_instead_of_the_file(serve, target, kind):
    """Catches: a login page saved as an archive, or written over the part that had arrived."""
    url, _ = serve("file", PAGE, type=kind, ranges=False)
    target.with_name("file.bin.part").write_bytes(BODY[:1000])
    with pytest.raises(FetchError, match=r'web page \("Sign in to go on"\) instead of the file'):
        fetch([url], target)
    assert left(target) == ["file.bin.part"] and target.with_name("file.bin.part").read_bytes() == BODY[:1000]


def test_nobody_answers(target, serve):
    """Catches: a traceback where there is no network."""
    with pytest.raises(FetchError, match="refused"):
        fetch(["http://127.0.0.1:9/file"], target)


GDOWN = """
import os, time
def download(id, output, quiet, resume):
    assert resume
    exec(open(os.path.join(os.path.dirname(__file__), "what.py")).read())
"""


@pytest.fixture
def gdown(tmp_path_factory, monkeypatch):
    """A stand-in for gdown; takes what its download does, with ``output`` to write to."""
    folder = tmp_path_factory.mktemp("gdown")
    (folder / "gdown.py").write_text(GDOWN)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return (folder / "what.py").write_text


@pytest.mark.parametrize(
    "does, said",
    [
        (f"open(output, 'wb').write({PAGE!r})", "https://drive.google.com/file/d/abc/view answered with a web page"),
        ("raise RuntimeError('Too many users have viewed this file')", "Too many users.*d/abc/view in a browser"),
        ("raise RuntimeError('Too many users')", "and save it as .*file.bin"),
        ("print('Access denied')", "did not hand it out .nothing arrived"),
        ("open(output, 'wb')", "nothing arrived"),
        ("raise ConnectionError('pool is exhausted')", "no connection to drive.google.com"),
        ("open(output, 'wb').write(b'x' * 90_000)", "another file, or was damaged on the way"),
    ],
)
def test_google_drive_fails(target, gdown, does, said):
    """Catches: the quota page or half a file saved as a split file; gdown's errors without a way out."""
    gdown(does)
    with pytest.raises(FetchError, match=said):
        fetch(["drive:abc"], target, SHA)
    assert not target.exists()


def test_google_drive(target, gdown, monkeypatch):
    """Catches: a good file lost; gdown's absence without a way out."""
    gdown(f"open(output, 'wb').write(bytes.fromhex({BODY.hex()!r}))")
    fetch(["drive:abc"], target, SHA, 200_000)
    assert target.read_bytes() == BODY and left(target) == ["file.bin"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FetchError, match="pip install gdown"):
        fetch(["drive:abc"], target)


def test_google_drive_that_does_not_end(target, gdown):
    """Catches: a download from Google Drive that goes on until the disk is full."""
    gdown(
        "file = open(output + 'abc.part', 'wb')\nwhile True: file.write(b'x' * 10_000); file.flush(); time.sleep(0.01)"
    )
    with pytest.raises(FetchError, match="sends more than 50.0 kB, far more than the file has; that was removed"):
        fetch(["drive:abc"], target, "", 50_000)
    assert not left(target)


def test_google_drive_that_says_nothing(target, gdown, monkeypatch):
    """Catches: a download from Google Drive that waits for ever."""
    monkeypatch.setattr("clusterprompt.data.fetch.DRIVE_TIMEOUT", 1.0)
    gdown("open(output, 'wb').write(b'some'); time.sleep(600)")
    with pytest.raises(FetchError, match="not a byte in 1 seconds"):
        fetch(["drive:abc"], target)
    assert left(target) == ["file.bin.part"]  # the next call goes on there


def test_blob_is_gits(tmp_path):
    """Catches: a checksum of split files that nobody can compare with a repository."""
    path = tmp_path / "a"
    path.write_bytes(b"hello\n")
    assert digest(path, "blob") == "ce013625030ba8dba906f756967f9e9ca394464a"  # of `git hash-object`


def test_server_that_does_not_end(serve, target):
    """Catches: a download that goes on until the disk is full, because the server never stops sending."""
    url, page = serve("file", BODY)
    with pytest.raises(FetchError, match="sends more than 50.0 kB, far more than the file has. It was removed"):
        fetch([url], target, "", 50_000)
    assert not left(target) and len(page.asked) == 1
