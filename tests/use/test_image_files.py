"""Image files: every reader takes every ending; what is written is whole, or not there."""

import os

import pytest
import torch
from PIL import Image

from clusterprompt.data.inventory import look
from clusterprompt.datasets.caltech101 import Caltech101
from clusterprompt.datasets.image_csv import ImageCSV
from clusterprompt.datasets.image_folder import ImageFolder
from clusterprompt.datasets.imagenet import ImageNetVariant
from clusterprompt.record.files import IMAGE_ENDINGS, is_image_name
from clusterprompt.record.image_check import find_damaged
from clusterprompt.use import convert, export
from clusterprompt.use.images import decode, find

CLASSES = ("a cat", "dog")


@pytest.fixture
def folder(tmp_path):
    """Images with every ending in each class, in either case, beside hidden files and others."""
    root = tmp_path / "images"
    for place in CLASSES:
        (root / place).mkdir(parents=True)
        (root / place / "notes.txt").write_text("no picture")
        (root / place / "._hidden.jpg").write_text("left by macOS")
        for ending in IMAGE_ENDINGS:
            picture = Image.new("RGB", (8, 8), (200, 30, len(ending)))
            picture.save(root / place / f"0{ending}")
            picture.save(root / place / f"1{ending.upper()}")
    return root


def wanted(folder):
    names = [f"0{ending}" for ending in IMAGE_ENDINGS] + [f"1{ending.upper()}" for ending in IMAGE_ENDINGS]
    return sorted(str(folder / place / name) for place in CLASSES for name in names)


def of_own_images(cls, folder, cfg_for, table=""):
    cfg = cfg_for(root=folder)
    cfg.DATASET.update({"CSV": str(table), "DESCRIPTIONS": ""})
    data = cls(cfg)
    return sorted(item.impath for item in [*data.train_x, *data.val, *data.test])


def test_predicted(folder):
    """Catches: an image in a folder that is not classified."""
    assert sorted(find([folder])) == wanted(folder)
    for path in wanted(folder):
        decoded = decode(path, lambda picture: torch.zeros(picture.size))
        assert decoded.tensor is not None and not decoded.error, path


def test_trained_on(folder, cfg_for, tmp_path):
    """Catches: an image that is predicted, but not trained on."""
    assert of_own_images(ImageFolder, folder, cfg_for) == wanted(folder)
    rows = "".join(
        f"{os.path.relpath(path, folder)},{os.path.basename(os.path.dirname(path))}\n" for path in wanted(folder)
    )
    (folder / "table.csv").write_text("path,label\n" + rows)
    assert of_own_images(ImageCSV, tmp_path, cfg_for, folder / "table.csv") == wanted(folder)
    assert not find_damaged(wanted(folder))


def test_listed(folder, tmp_path):
    """Catches: an image of ImageNet, or one that the data tool counts, that is passed over."""
    spec = ImageNetVariant.__new__(ImageNetVariant)
    listed = spec.list_classes(str(folder), {place: place for place in CLASSES})
    assert sorted(item.impath for item in listed) == wanted(folder)
    (tmp_path / Caltech101.folder).mkdir()
    os.symlink(folder, tmp_path / Caltech101.folder / Caltech101.images)
    found = look("caltech101", Caltech101, tmp_path)
    assert sorted(str(folder / path) for path in found.images) == wanted(folder)


def test_names():
    """Catches: hidden files and folders taken for images, or an ending in the middle of a name."""
    assert all(is_image_name(f"deep/x{ending}") for ending in IMAGE_ENDINGS)
    assert not any(map(is_image_name, (".x.jpg", "x.jpg.txt", "jpg", "")))


class Broken:
    """Fails while it is pickled, in the middle of a file."""

    def __reduce__(self):
        raise RuntimeError("in the middle")


def test_what_is_replaced_is_whole(tmp_path, monkeypatch, finished_run):
    """Catches: half a file, a temporary file left behind, or the old content lost, when a writer fails."""
    targets = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for target in targets:
        target.write_text("old")
    seen = []

    def fail(source, target):
        seen.append(str(source))
        raise OSError("disk full")

    monkeypatch.setattr("clusterprompt.record.files.os.replace", fail)
    for _ in range(2):
        with pytest.raises(OSError, match="disk full"):
            convert.write_safetensors(targets[0], {"x": torch.zeros(2)}, {})
        with pytest.raises(OSError, match="disk full"):
            export.export(finished_run("CoOp")[0], targets[1], trust_record=True)
        with pytest.raises(RuntimeError, match="in the middle"):
            about = {"epoch": 1, "broken": Broken()}
            convert.write_folder(tmp_path, "model.pth.tar-1", {"x": torch.zeros(2)}, about)
    assert len(set(seen)) == len(seen) == 4, "temporary names have to differ"
    assert sorted(tmp_path.iterdir()) == targets and [target.read_text() for target in targets] == ["old", "old"]
