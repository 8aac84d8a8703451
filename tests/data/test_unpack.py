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
    whole, calls = tarfile.TarFile.extract, []

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(tarfile.TarFile, "extract", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unpack(archive, folder, TAKE)
    assert not os.listdir(folder)
    killed = folder / ".unpacking-x.tar.gz" / "content" / "images" / "a"
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
