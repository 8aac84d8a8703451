"""``clusterprompt data``: what it finds, fetches and verifies, for each data set of the package."""

import dataclasses
import io
import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import data_trees
import pytest
from PIL import Image

from clusterprompt.commands.data import main
from clusterprompt.data import prepare
from clusterprompt.data.inventory import catalogue, chosen, look
from clusterprompt.data.sources import SOURCES, Source
from clusterprompt.datasets.caltech101 import Caltech101
from clusterprompt.datasets.shapes import DrawnDataset
from clusterprompt.record import image_check

CATALOGUE = catalogue()
FAMILY = {name: cls for name, cls in CATALOGUE.items() if not issubclass(cls, DrawnDataset)}
SIZES = {"train": 30, "val": 25, "test": 15}  # of the small Caltech101 of conftest.py


@pytest.fixture
def small_caltech(monkeypatch):
    """Let the small Caltech101 of conftest.py be the whole one."""
    monkeypatch.setattr(Caltech101, "n_classes", 5)
    monkeypatch.setattr(Caltech101, "counts", SIZES)
    monkeypatch.setitem(SOURCES, "caltech101", Source())


def run(capsys, *words):
    """Run a command line; return exit code, stdout and stderr."""
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out, said.err


def pack(file, folder: Path) -> bytes:
    """Return the archive from which ``folder`` would be unpacked."""
    content = io.BytesIO()
    inside = {target: source for source, target in file.take.items()}
    inner_name = file.inner or file.name
    if inner_name.endswith(".zip"):
        with zipfile.ZipFile(content, "w") as archive:
            for target, source in inside.items():
                for path in sorted((folder / target).rglob("*")):
                    archive.write(path, f"{source}/{path.relative_to(folder / target)}")
    else:
        with tarfile.open(fileobj=content, mode="w" if inner_name.endswith(".tar") else "w:gz") as archive:
            for target, source in inside.items():
                archive.add(folder / target, source)
    if file.inner:
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w") as archive:
            archive.writestr(file.inner, content.getvalue())
        content = whole
    return content.getvalue()


def test_document_fits_the_data_sets():
    """Catches: DATASETS.md with another folder, number or address than the program's, or without a data set."""
    text = (Path(__file__).resolve().parents[2] / "DATASETS.md").read_text(encoding="utf-8")
    rows = {
        cells[1].strip(" `"): [cell.strip(" `") for cell in cells[2:]]
        for cells in (line.split("|") for line in text.splitlines())
        if len(cells) > 6
    }
    for name, cls in FAMILY.items():
        class_name, folder, classes, counts = rows[name][:4]
        assert class_name == cls.__name__ and classes.split()[0] == str(cls.n_classes)
        assert folder.startswith(cls.folder + "/" + cls.images.strip("."))
        assert [word for word in counts.replace("test only,", "").split() if word.isdigit()] == [
            str(count) for count in cls.counts.values()
        ]
        drive = [
            url.removeprefix("drive:")
            for file in SOURCES[name].lists + SOURCES[name].archives
            for url in file.urls
            if url.startswith("drive:")
        ]
        assert all(f"https://drive.google.com/file/d/{file_id}/view" in text for file_id in drive)
        assert any("`clusterprompt data " in line for line in text.splitlines() if f" {name}" in line), name


def sort_cars(cls, folder: Path, rows: dict):
    """Move the images into cars_train and cars_test, where the archives of Stanford Cars have them."""
    split = {}
    for part, listed in rows.items():
        place = "cars_test" if part == "test" else "cars_train"
        for path, _, _ in listed:
            (folder / place / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).rename(folder / place / path)
        split[part] = [[f"{place}/{path}", label, name] for path, label, name in listed]
    (folder / cls.split_file).write_text(json.dumps(split))


@pytest.mark.parametrize("name", FAMILY)
def test_table_fits_the_data_set(name):
    """Catches: a data set without a way to get it, a split file under another name or address than the loader's, images
    unpacked elsewhere.
    """
    cls, source = FAMILY[name], SOURCES[name]
    assert {file.name for file in source.lists} == set(
        data_trees.essential_files(cls) if name != "fgvc_aircraft" else []
    )
    for file in source.lists:
        assert file.urls[0].removeprefix("drive:") in cls.lists_url
    targets = {target for file in source.archives for target in file.take.values()}
    assert cls.images in targets or (name in ("imagenet", "stanford_cars") and source.by_hand)
    assert all(file.urls for file in source.archives) or source.by_hand
    for file in source.lists + source.archives:
        kind, _, digits = file.checksum.partition(":")
        assert (kind, len(digits)) in {("md5", 32), ("sha256", 64), ("blob", 40), ("", 0)}
    assert "{" not in source.by_hand.format(folder="F", root="R")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILY)
def test_prepare_every_data_set(name, serve, tmp_path, monkeypatch, capsys):
    """Catches: images or lists unpacked to where the loader does not look; a second call that fetches again; a root
    from which it works once.
    """
    cls, source, root = FAMILY[name], SOURCES[name], tmp_path / "root"
    rows = data_trees.write(cls, tmp_path / "published")
    published = tmp_path / "published" / cls.folder
    monkeypatch.setattr(cls, "n_classes", len({row[1] for part in rows.values() for row in part}))
    monkeypatch.setattr(cls, "counts", {part: len(listed) for part, listed in rows.items()})
    pages = []

    def local(file, body):
        url, page = serve(file.name, body)
        pages.append(page)
        return dataclasses.replace(file, urls=(url,), checksum="", size=len(body))

    if name == "stanford_cars":
        sort_cars(cls, published, rows)
    lists = tuple(local(file, (published / file.name).read_bytes()) for file in source.lists)
    archives = tuple(local(file, pack(file, published)) for file in source.archives)
    monkeypatch.setitem(SOURCES, name, Source(lists, archives, source.by_hand))
    if name == "imagenet":
        shutil.copytree(published / "images", root / "imagenet" / "images")

    code, said, _ = run(capsys, "prepare", name, "--root", root)
    assert (code, said.splitlines()[-1]) == (0, f"{name}: complete"), said
    assert [len(page.asked) for page in pages] == [1] * len(pages)
    assert not [
        path
        for path in root.rglob("*")
        if path.name.startswith(".") or path.suffix in (".part", ".zip", ".gz", ".tgz", ".tar")
    ]
    found = look(name, cls, root)
    assert found.counts == cls.counts and len(found.images) == len({row[0] for part in rows.values() for row in part})
    code, said, _ = run(capsys, "prepare", name, "--root", root)
    assert (code, said) == (0, f"{name}: complete, nothing to do\n")
    assert [len(page.asked) for page in pages] == [1] * len(pages)


@pytest.fixture
def published_caltech(own_caltech_root, serve, monkeypatch, tmp_path):
    """The small Caltech101 on a server, and a new root: ``root, page of the archive, page of the split file``."""
    folder, source = own_caltech_root / "caltech-101", SOURCES["caltech101"]
    (split,), (archive,) = source.lists, source.archives
    (tmp_path / "new").mkdir()
    archive_url, archive_page = serve(archive.name, pack(archive, folder))
    split_url, split_page = serve(split.name, (folder / split.name).read_bytes())
    monkeypatch.setattr(Caltech101, "n_classes", 5)
    monkeypatch.setattr(Caltech101, "counts", SIZES)
    source = Source(
        (dataclasses.replace(split, urls=(split_url,), checksum=""),),
        (dataclasses.replace(archive, urls=(archive_url,), checksum="", size=len(archive_page.body)),),
    )
    monkeypatch.setitem(SOURCES, "caltech101", source)
    return tmp_path / "new", archive_page, split_page


def test_announces_what_it_fetches(published_caltech, capsys):
    """Catches: gigabytes that start to flow unannounced; a list of downloads where nothing will be downloaded."""
    root, archive, _ = published_caltech
    _, said, _ = run(capsys, "prepare", "caltech101", "--root", root)
    assert said.startswith(
        f"To be fetched into {root}: {len(archive.body) / 1000:.1f} kB, and files whose size is not known\n"
    )
    assert "  caltech101: caltech-101.zip, " in said and "from 127.0.0.1" in said


def test_missing_and_damaged_images_come_back(published_caltech, capsys):
    """Catches: a damaged image that verify does not name, or that prepare does not replace once it is removed."""
    root, archive, _ = published_caltech
    run(capsys, "prepare", "caltech101", "--root", root)
    images = root / "caltech-101" / "101_ObjectCategories"
    victim, bystander = images / "anchor" / "image_0001.jpg", images / "anchor" / "image_0002.jpg"
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    bystander.write_bytes(b"an image that is none")
    code, said, _ = run(capsys, "verify", "caltech101", "--root", root)
    assert code == 1 and "70 image files opened, 2 damaged" in said
    assert f"damaged: {victim} (" in said and f"damaged: {bystander} (" in said
    victim.unlink()
    bystander.unlink()
    code, said, _ = run(capsys, "status", "caltech101", "--root", root)
    assert code == 1 and "2 listed images are missing" in said
    code, said, _ = run(capsys, "prepare", "caltech101", "--root", root)
    assert code == 0 and victim.read_bytes() == whole and len(archive.asked) == 2
    assert run(capsys, "verify", "caltech101", "--root", root)[:2] == (
        0,
        "caltech101: 70 image files opened, none damaged\n",
    )


def test_one_failure_does_not_stop_the_rest(published_caltech, capsys):
    """Catches: images not fetched because Google Drive refused the split file; a failure that ends in exit code 0 or a
    traceback.
    """
    root, archive, split = published_caltech
    split.status = [404]
    code, said, error = run(capsys, "prepare", "caltech101", "--root", root)
    assert code == 1 and "answered 404" in said and "incomplete: no split_zhou_Caltech101.json" in said and not error
    assert (root / "caltech-101" / "101_ObjectCategories").is_dir()
    code, _, _ = run(capsys, "prepare", "caltech101", "--root", root)
    assert code == 0 and len(archive.asked) == 1


def test_damaged_archive_is_fetched_again(published_caltech, capsys):
    """Catches: an archive without a published checksum that stays damaged on the disk and stops every later call."""
    root, archive, _ = published_caltech
    good, archive.body = archive.body, archive.body[:-100]
    code, said, _ = run(capsys, "prepare", "caltech101", "--root", root)
    assert code == 1 and "cut short" in said and "The archive was removed" in said
    archive.body = good
    assert run(capsys, "prepare", "caltech101", "--root", root)[0] == 0


def test_archive_placed_by_hand(published_caltech, capsys):
    """Catches: a download of what the user has fetched already; a user's archive that is removed."""
    root, archive, _ = published_caltech
    placed = root / "caltech-101" / "caltech-101.zip"
    placed.parent.mkdir()
    placed.write_bytes(archive.body)
    assert run(capsys, "prepare", "caltech101", "--root", root)[0] == 0
    assert not archive.asked and placed.is_file()


def test_disk_that_is_too_small(published_caltech, capsys, monkeypatch):
    """Catches: a disk filled to the brim before anybody is told."""
    root, archive, _ = published_caltech
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    code, said, _ = run(capsys, "prepare", "caltech101", "--root", root)
    assert code == 1 and "1 bytes free" in said and not archive.asked


def test_another_split_file_is_not_replaced(own_caltech_root, capsys, monkeypatch):
    """Catches: a split that is not everybody's and passes for it; a user's file overwritten."""
    monkeypatch.setattr(Caltech101, "n_classes", 5)
    monkeypatch.setattr(Caltech101, "counts", SIZES)
    split = own_caltech_root / "caltech-101" / "split_zhou_Caltech101.json"
    before = split.read_bytes()
    code, said, _ = run(capsys, "prepare", "caltech101", "--root", own_caltech_root)
    assert code == 1 and "is not the published file (its sha256 is " in said and "52ce83205ff8ff8a" in said
    assert split.read_bytes() == before


@pytest.mark.parametrize("name", ["imagenet", "stanford_cars", "sun397"])
def test_steps_by_hand(name, tmp_path, capsys, monkeypatch):
    """Catches: a login or a dead address that ends in a traceback, or in silence."""
    monkeypatch.setitem(SOURCES, name, dataclasses.replace(SOURCES[name], lists=()))
    code, said, error = run(capsys, "prepare", name, "--root", tmp_path)
    assert code == 1 and not error
    assert "\n1. " in said and "\n3. " in said and str(tmp_path / FAMILY[name].folder) in said and "{" not in said


def test_class_names_are_shared(tmp_path, capsys, monkeypatch):
    """Catches: classnames.txt asked of Google Drive once for each of the five ImageNet sets."""
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet" / "classnames.txt").write_text("n01440764 tench\n")
    monkeypatch.setitem(SOURCES, "imagenet_a", dataclasses.replace(SOURCES["imagenet_a"], archives=()))
    run(capsys, "prepare", "imagenet_a", "--root", tmp_path)
    assert (tmp_path / "imagenet-adversarial" / "classnames.txt").read_text() == "n01440764 tench\n"


def test_status_names_what_differs(caltech_root, capsys):
    """Catches: a cut-down copy that passes for the whole set, as counts nobody compares."""
    code, said, _ = run(capsys, "status", "caltech101", "oxford_pets", "--root", caltech_root)
    assert code == 1
    words = " ".join(said.split())
    for expected in (
        "incomplete 5 30 / 25 / 15 70",
        "5 classes instead of 100",
        "train 30 instead of 4128",
        "oxford_pets absent",
        "prepare oxford_pets",
    ):
        assert expected in words, said


def test_status_of_all(small_caltech, caltech_root, capsys):
    """Catches: a data set that is left out; an exit code that blames data sets nobody asked about; the drawn ones
    reported as absent.
    """
    code, said, _ = run(capsys, "status", "--root", caltech_root)
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in said.splitlines() if line.strip()}
    assert code == 0 and set(CATALOGUE) <= set(lines)
    assert lines["caltech101"] == "complete 5 30 / 25 / 15 70" and lines["shapes"] == "drawn by itself"
    assert run(capsys, "status", "caltech101", "--root", caltech_root)[0] == 0


def test_status_opens_no_image(small_caltech, own_caltech_root, capsys, monkeypatch):
    """Catches: a status that takes minutes."""
    monkeypatch.setattr(Image, "open", None)
    for path in own_caltech_root.rglob("*.jpg"):
        path.write_bytes(b"")
    assert run(capsys, "status", "caltech101", "--root", own_caltech_root)[0] == 0


def test_linked_folders(small_caltech, own_caltech_root, tmp_path, capsys):
    """Catches: a class, or the whole set, on another disk whose images count as missing or are not opened."""
    (own_caltech_root / "caltech-101").rename(tmp_path / "disk")
    (own_caltech_root / "caltech-101").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "101_ObjectCategories" / "anchor").rename(tmp_path / "anchor")
    (tmp_path / "disk" / "101_ObjectCategories" / "anchor").symlink_to(tmp_path / "anchor")
    assert run(capsys, "verify", "caltech101", "--root", own_caltech_root)[:2] == (
        0,
        "caltech101: 70 image files opened, none damaged\n",
    )


@pytest.mark.parametrize(
    "content, said", [("{", "not valid JSON"), ('{"train": 1}', "should be an object"), ("[[[", "not valid JSON")]
)
def test_status_of_a_damaged_split_file(small_caltech, own_caltech_root, capsys, content, said):
    """Catches: a status that ends where a file is damaged, which is when it is needed."""
    (own_caltech_root / "caltech-101" / "split_zhou_Caltech101.json").write_text(content)
    code, out, _ = run(capsys, "status", "caltech101", "--root", own_caltech_root)
    assert code == 1 and said in " ".join(out.split())


def test_prepare_draws_what_draws_itself(tmp_path, capsys, monkeypatch):
    """Catches: a drawn set that cannot be made ahead of a run."""
    cls = CATALOGUE["shapes_counts"]
    monkeypatch.setattr(cls, "sizes", {"train": 1, "val": 1, "test": 1})
    monkeypatch.setattr(cls, "counts", {"train": 5, "val": 5, "test": 5})
    assert run(capsys, "prepare", "shapes_counts", "--root", tmp_path)[:2] == (0, "shapes_counts: complete\n")
    assert run(capsys, "prepare", "shapes_counts", "--root", tmp_path)[:2] == (
        0,
        "shapes_counts: complete, nothing to do\n",
    )
    assert (
        len(list((tmp_path / "shapes_counts").rglob("*.png")) + list((tmp_path / "shapes_counts").rglob("*.jpg"))) == 15
    )


def test_unknown_name(tmp_path, capsys):
    """Catches: a traceback, or a typing error that is silently skipped."""
    code, _, error = run(capsys, "status", "caltech", "--root", tmp_path)
    assert code == 2 and "unknown data set 'caltech'. Did you mean 'caltech101'?" in error and "oxford_pets" in error
    with pytest.raises(ValueError, match="imagenet_folder"):
        chosen(["imagenet_folder"])


def test_interrupted(tmp_path, capsys, monkeypatch):
    """Catches: Ctrl-C in a long download that ends in a traceback."""
    monkeypatch.setattr("clusterprompt.data.inventory.differs", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    (tmp_path / "dtd").mkdir()
    (tmp_path / "dtd" / "split_zhou_DescribableTextures.json").touch()
    code, _, error = run(capsys, "prepare", "dtd", "--root", tmp_path)
    assert code == 130 and "the same command goes on" in error


def test_verify_compares_labels_names_and_parts(own_caltech_root, small_caltech, capsys):
    """Catches: an all-clear for a split whose labels count from 1."""
    assert run(capsys, "verify", "caltech101", "--root", own_caltech_root)[0] == 0
    path = own_caltech_root / "caltech-101" / Caltech101.split_file
    split = json.loads(path.read_text())
    path.write_text(json.dumps({part: [[p, y + 1, name] for p, y, name in rows] for part, rows in split.items()}))
    code, said, _ = run(capsys, "verify", "caltech101", "--root", own_caltech_root)
    assert code == 1 and "the 5 classes have the labels 1, 2, 3 and 2 more, not 0 to 4 (label 5: 'train', row" in said


def test_verify_does_not_hang(own_caltech_root, small_caltech, capsys):
    """Catches: a named pipe among the images, which is read for ever."""
    os.mkfifo(own_caltech_root / "caltech-101" / Caltech101.images / "anchor" / "pipe.png")
    code, said, _ = run(capsys, "verify", "caltech101", "--root", own_caltech_root)
    assert code == 1 and "pipe.png (not a regular file)" in said


def test_verify_without_data(tmp_path, capsys):
    """Catches: a traceback, or an all-clear, where nothing was opened."""
    code, said, _ = run(capsys, "verify", "--root", tmp_path)
    assert code == 0 and "holds none" in said
    assert run(capsys, "verify", "dtd", "--root", tmp_path)[0] == 1


def test_images_are_opened_in_several_threads(tmp_path, monkeypatch):
    """Catches: workers that cannot start, answers that go to the wrong image, or images that no worker opens."""
    paths = [tmp_path / f"{i}.png" for i in range(8)]
    for path in paths:
        Image.new("L", (4, 4)).save(path)
    Image.effect_noise((64, 64), 50).save(paths[4])
    paths[4].write_bytes(paths[4].read_bytes()[:1000])
    paths[7].write_text("no picture")
    monkeypatch.setattr(image_check, "CHUNK", 3)
    found = image_check.find_damaged(paths, "test")
    assert list(found) == [str(paths[4]), str(paths[7])] and "truncated" in found[str(paths[4])]
    assert found[str(paths[7])].startswith("not an image (JPEG, ")


@pytest.mark.skipif(
    "CLUSTERPROMPT_TEST_DATA" not in os.environ, reason="CLUSTERPROMPT_TEST_DATA names no root with the real Caltech101"
)
def test_real_data(capsys):
    """Catches: counts or checksums that are not those of the published data."""
    root = os.environ["CLUSTERPROMPT_TEST_DATA"]
    code, said, _ = run(capsys, "status", "caltech101", "--root", root)
    assert code == 0 and "caltech101 complete 100 4128 / 1649 / 2465" in " ".join(said.split())
