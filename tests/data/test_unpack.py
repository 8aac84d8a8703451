"""Archives that are damaged, dangerous, or not the expected ones."""

import io
import os
import tarfile
import zipfile

import pytest

from clusterprompt.data.unpack import UnpackError, unpack

TAKE = {"images": "pictures"}


def tar_of(path, members, mode="w:gz"):
    """Write a tar of (name, bytes) or of TarInfo."""
    with tarfile.open(path, mode) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def zip_of(path, members):
    """Write a zip of (name, bytes)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def link(name, to, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


GOOD = [("images/a/1.jpg", os.urandom(5000)), ("images/b/2.jpg", os.urandom(5000)), ("notes.txt", b"not wanted")]


@pytest.fixture
def folder(tmp_path):
    """The data set's folder, two levels below what the test may look at."""
    path = tmp_path / "root" / "set"
    path.mkdir(parents=True)
    return path


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


@pytest.mark.parametrize(
    "write, name", [(tar_of, "x.tar.gz"), (lambda path, m: tar_of(path, m, "w"), "x.tar"), (zip_of, "x.zip")]
)
def test_takes_what_is_wanted(tmp_path, folder, write, name):
    """Catches: files at the wrong place, unwanted ones kept, rests left."""
    unpack(write(tmp_path / name, GOOD), folder, TAKE)
    assert files(folder) == ["pictures/a/1.jpg", "pictures/b/2.jpg"] and sorted(os.listdir(folder)) == ["pictures"]
    assert (folder / "pictures/a/1.jpg").read_bytes() == GOOD[0][1]


def test_archive_in_an_archive(tmp_path, folder):
    """Catches: Caltech101's images left in their inner archive."""
    inner = tar_of(tmp_path / "inner.tar.gz", GOOD)
    outer = zip_of(tmp_path / "outer.zip", [("top/inner.tar.gz", inner.read_bytes()), ("__MACOSX/._x", b"")])
    unpack(outer, folder, TAKE, "top/inner.tar.gz")
    assert files(folder) == ["pictures/a/1.jpg", "pictures/b/2.jpg"]


DANGEROUS = {
    "tar: path upwards": (tar_of, [("images/../../../evil.txt", b"x")]),
    "tar: absolute path": (tar_of, [("/tmp/clusterprompt-evil.txt", b"x")]),
    "tar: Windows path": (tar_of, [("..\\..\\evil.txt", b"x")]),
    "tar: link outside": (tar_of, [link("images/out", "../../../..")]),
    "tar: absolute link": (tar_of, [link("images/out", "/etc")]),
    "tar: file through a link": (tar_of, [link("images/out", "../../../.."), ("images/out/evil.txt", b"x")]),
    "tar: hard link outside": (tar_of, [link("images/out", "../../../evil.txt", tarfile.LNKTYPE)]),
    "tar: pipe": (tar_of, [link("images/pipe", "", tarfile.FIFOTYPE)]),
    "zip: path upwards": (zip_of, [("images/../../../../evil.txt", b"x")]),
    "zip: absolute path": (zip_of, [("/tmp/clusterprompt-evil.txt", b"x")]),
    "zip: drive": (zip_of, [("C:/evil.txt", b"x")]),
}


@pytest.mark.parametrize("case", DANGEROUS)
def test_dangerous_archives_are_refused(tmp_path, folder, case):
    """Catches: an archive that writes where it likes, or of which the harmless half is kept."""
    write, bad = DANGEROUS[case]
    archive = write(tmp_path / "x", GOOD + bad)
    before = files(tmp_path)
    with pytest.raises(UnpackError, match="refused, .*Nothing was unpacked"):
        unpack(archive, folder, TAKE)
    assert files(tmp_path) == before and not os.listdir(folder) and not os.path.exists("/tmp/clusterprompt-evil.txt")


def long_links(outside, up):
    """Return entries that overwrite a file: links longer than the longest path, which Python's filter cannot follow.

    Args:
        outside: Name of the file.
        up: Number of folders between that file's and the one that is unpacked to.
    """
    inside, entries, steps = "", [], "abcdefghijklmnop"
    component = "d" * 247
    for letter in steps:
        folder = tarfile.TarInfo(f"{inside}{component}")
        folder.type = tarfile.DIRTYPE
        entries += [folder, link(f"{inside}{letter}", component)]
        inside += f"{component}/"
    deep = f"{'/'.join(steps)}/{'l' * 254}"
    entries += [link(deep, "../" * len(steps)), link("escape", f"{deep}{'/..' * up}")]
    return [*entries, link("file", f"escape/{outside}", tarfile.LNKTYPE), ("file", b"overwritten")]


def test_links_longer_than_a_path(tmp_path, folder):
    """Catches: files outside the folder that are overwritten, through links that no real path can follow."""
    outside = tmp_path / "outside"
    outside.write_text("the user's")
    archive = tar_of(tmp_path / "x.tar", GOOD + long_links("outside", 4), "w")
    with pytest.raises(UnpackError, match="refused, 'a' is a link.*Nothing was unpacked"):
        unpack(archive, folder, TAKE)
    assert outside.read_text() == "the user's" and not os.listdir(folder)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_a_tar_are_refused(tmp_path, folder, kind):
    """Catches: a link that stays inside, which no data set needs, and through which later entries write elsewhere."""
    archive = tar_of(tmp_path / "x.tar", [*GOOD, link("images/b/3.jpg", "2.jpg", kind)], "w")
    with pytest.raises(UnpackError, match="'images/b/3.jpg' is a link"):
        unpack(archive, folder, TAKE)
    assert not os.listdir(folder)


class Zeros(io.RawIOBase):
    """So many zero bytes."""

    def __init__(self, size):
        self.left = size

    def read(self, size=-1):
        size = self.left if size < 0 else min(size, self.left)
        self.left -= size
        return bytes(size)


def bomb(path, mode, size=40_000_000):
    """Write a tar, packed as ``mode`` says, of one file of zeros."""
    with tarfile.open(path, mode, **({"compresslevel": 1} if mode.endswith(("gz", "bz2")) else {})) as tar:
        info = tarfile.TarInfo("images/zeros.jpg")
        info.size = size
        tar.addfile(info, Zeros(size))
    return path


def test_bombs(tmp_path, folder, monkeypatch):
    """Catches: an archive of a megabyte that fills the disk; a bound that a known size does not lower."""
    monkeypatch.setattr("clusterprompt.data.unpack.SLACK", 10**7)
    packed = bomb(tmp_path / "x.tar.gz", "w:gz")
    with pytest.raises(UnpackError, match=r"refused, it unpacks to more than \d\d.\d MB.*Nothing was unpacked"):
        unpack(packed, folder, TAKE)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("images/zeros.jpg", bytes(40_000_000))
    with pytest.raises(UnpackError, match="refused, it unpacks to more than"):
        unpack(tmp_path / "x.zip", folder, TAKE)
    noise = tar_of(tmp_path / "noise.tar", [("images/1.jpg", os.urandom(11_000_000))], "w")
    with pytest.raises(UnpackError, match="refused, it unpacks to more than 10.0 MB"):
        unpack(noise, folder, TAKE, size=1000)
    assert not os.listdir(folder)


def test_header_bomb(tmp_path, folder):
    """Catches: a header that says that a name is a gigabyte long, and a reader that believes it."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    (tmp_path / "x.tar").write_bytes(info.tobuf() + bytes(4096))
    with pytest.raises(UnpackError, match="name or note"):
        unpack(tmp_path / "x.tar", folder, TAKE)


def sparse():
    """Return a GNU sparse entry."""
    info = tarfile.TarInfo("images/holes.jpg")
    info.type = tarfile.GNUTYPE_SPARSE
    return info


def flagged(path, members, offset, value):
    """Write a zip, with two bytes of each central header and local header changed."""
    zip_of(path, members)
    content = bytearray(path.read_bytes())
    for magic, place in ((b"PK\1\2", offset + 2), (b"PK\3\4", offset)):
        at = content.find(magic)
        while at >= 0:
            content[at + place : at + place + 2] = value.to_bytes(2, "little")
            at = content.find(magic, at + 4)
    path.write_bytes(content)
    return path


UNREADABLE = {
    "encrypted zip": (lambda path: flagged(path, GOOD, 6, 1), "is encrypted; unpack it yourself"),
    "zip of an unknown method": (lambda path: flagged(path, GOOD, 8, 97), "method that Python cannot read .97."),
    "damaged xz": (lambda path: spoiled(tar_of(path, GOOD, "w:xz")), "damaged or cut short"),
    "damaged bz2": (lambda path: spoiled(tar_of(path, GOOD, "w:bz2")), "damaged or cut short"),
    "damaged zip": (lambda path: spoiled(zip_of(path, GOOD)), "damaged or cut short"),
    "damaged tar header": (lambda path: spoiled(tar_of(path, GOOD, "w"), 512 * 11 + 10), "damaged or cut short"),
    "hard link to nothing": (lambda path: tar_of(path, [link("images/x", "gone", tarfile.LNKTYPE)]), "is a link"),
    "sparse file": (lambda path: tar_of(path, [sparse()]), "neither a file nor a folder|longer than"),
    "name longer than allowed": (lambda path: tar_of(path, [("images/" + "x" * 300, b"x")]), "no file can be written"),
    "file and folder of one name": (lambda path: tar_of(path, [("images", b"x"), *GOOD]), "no file can be written"),
    "plain tar cut between two members": (lambda path: cut(tar_of(path, GOOD, "w"), 512 * 11), "cut short"),
    "plain tar cut in a member": (lambda path: cut(tar_of(path, GOOD, "w"), 3000), "cut short"),
    "control characters": (lambda path: tar_of(path, [link("images/\x1b[2Jx\ny", "z")]), r"x1b\[2Jx\\ny' is a link"),
}


def spoiled(path, at=None):
    """Change bytes in the middle of a file, or at a place."""
    content = bytearray(path.read_bytes())
    at = len(content) // 2 if at is None else at
    content[at : at + 8] = b"\xff\0\xff\0\xff\0\xff\0"
    path.write_bytes(content)
    return path


def cut(path, size):
    """Cut a file short."""
    path.write_bytes(path.read_bytes()[:size])
    return path


@pytest.mark.parametrize("case", UNREADABLE)
def test_unreadable_archives(tmp_path, folder, case):
    """Catches: a traceback, several lines, half of an archive taken for all of it, or rests in the folder."""
    write, message = UNREADABLE[case]
    with pytest.raises(UnpackError, match=message) as caught:
        unpack(write(tmp_path / "x"), folder, TAKE)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value) and not os.listdir(folder)


def test_link_in_a_zip_is_refused(tmp_path, folder):
    """Catches: a link that zipfile would write, as of some version, and that points anywhere."""
    entry = zipfile.ZipInfo("images/link")
    entry.create_system, entry.external_attr = 3, 0o120777 << 16
    archive = zip_of(tmp_path / "x.zip", [*GOOD, (entry, "/etc")])
    with pytest.raises(UnpackError, match="'images/link' is a link"):
        unpack(archive, folder, TAKE)
    assert not os.listdir(folder)


@pytest.mark.parametrize("name", ["x.tar.gz", "x.zip"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.98])
def test_truncated(tmp_path, folder, name, kept):
    """Catches: the first half of the images taken for all of them."""
    archive = (tar_of if name == "x.tar.gz" else zip_of)(tmp_path / name, GOOD)
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * kept)])
    with pytest.raises(UnpackError, match="cut short"):
        unpack(archive, folder, TAKE)
    assert not os.listdir(folder)


def test_damage_that_only_the_checksum_shows(tmp_path, folder):
    """Catches: a flipped bit in an archive whose checksum nobody published (gzip has its own, at the end)."""
    archive = tar_of(tmp_path / "x.tar.gz", GOOD)
    content = bytearray(archive.read_bytes())
    content[-6] ^= 1  # of the CRC
    archive.write_bytes(content)
    with pytest.raises(UnpackError, match="damaged"):
        unpack(archive, folder, TAKE)
    assert not os.listdir(folder)


def test_another_archive(tmp_path, folder):
    """Catches: an archive of another data set that leaves an empty folder, or a KeyError."""
    with pytest.raises(UnpackError, match="lacks images.*Found instead: readme.txt"):
        unpack(zip_of(tmp_path / "x.zip", [("readme.txt", b"x")]), folder, TAKE)
    (tmp_path / "y.zip").write_bytes(b"something")
    with pytest.raises(UnpackError, match="neither a zip nor a tar"):
        unpack(tmp_path / "y.zip", folder, TAKE)
    assert not os.listdir(folder)


def test_interrupted(tmp_path, folder, monkeypatch):
    """Catches: half of the images at their place after Ctrl-C; rests of a killed process that stop, or mix with, the
    next call.
    """
    archive = tar_of(tmp_path / "x.tar.gz", GOOD)
    whole, calls = tarfile.TarFile.extractfile, []

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(tarfile.TarFile, "extractfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unpack(archive, folder, TAKE)
    assert not os.listdir(folder)
    killed = folder / ".unpacking-x.tar.gz-abcd1234" / "content" / "images" / "a"
    killed.mkdir(parents=True)
    (killed / "half.jpg").write_bytes(b"half")
    unpack(archive, folder, TAKE)
    assert files(folder) == ["pictures/a/1.jpg", "pictures/b/2.jpg"]


def test_fills_in_what_is_missing(tmp_path, folder):
    """Catches: files of the user that are replaced or removed; a folder that stays incomplete because it exists."""
    (folder / "pictures/a").mkdir(parents=True)
    (folder / "pictures/a/1.jpg").write_bytes(b"the user's")
    (folder / "pictures/own.jpg").write_bytes(b"the user's too")
    unpack(tar_of(tmp_path / "x.tar.gz", GOOD), folder, TAKE)
    assert files(folder) == ["pictures/a/1.jpg", "pictures/b/2.jpg", "pictures/own.jpg"]
    assert (folder / "pictures/a/1.jpg").read_bytes() == b"the user's"
