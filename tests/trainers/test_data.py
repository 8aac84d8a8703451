"""A trainer's images and data set: one reader, no contradiction, and a validation that is none of the test."""

import json

import numpy as np
import pytest
import torch
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from PIL import Image

from clusterprompt.record.files import ImageError, read_image
from clusterprompt.trainers.parts.data import ImageLoader, load_data

pytestmark = pytest.mark.slow

SPLIT = "caltech-101/split_zhou_Caltech101.json"


@pytest.fixture
def own_data(tmp_path):
    """A function that makes a root of six classes of 16-bit images, and their 8-bit twins: ``own_data(bits)``."""

    def make(bits):
        root, rng = tmp_path / f"{bits} bits", np.random.default_rng(0)
        split = {"train": [], "val": [], "test": []}
        for label in range(6):
            folder = root / "caltech-101" / "101_ObjectCategories" / f"c{label}"
            folder.mkdir(parents=True)
            for number, part in enumerate(["train"] * 4 + ["val"] * 2 + ["test"] * 2):
                pixels = rng.integers(10 * label, 40 * label + 50, (20, 24)).astype(np.uint8)
                pixels[0, 0] = 255
                deep = pixels.astype(np.uint32) * (2**bits - 1) // 255
                Image.fromarray(pixels if bits == 8 else deep.astype(np.uint16)).save(folder / f"{number}.png")
                split[part].append([f"c{label}/{number}.png", label, f"class {label}"])
        (root / SPLIT).write_text(json.dumps(split))
        return root

    return make


def batches(trainer):
    torch.manual_seed(0)
    return [batch["img"] for loader in (trainer.train_loader_x, trainer.test_loader) for batch in loader]


ALL = ("DATASET.SUBSAMPLE_CLASSES", "all", "DATASET.NUM_SHOTS", 2)


@pytest.mark.parametrize("bits, range_", [(16, "[]"), (12, "[0, 4095]")])
def test_deep_images_are_those_of_eight_bits(own_data, build, monkeypatch, bits, range_):
    """Catches: other pixels for training and test than for prediction; 12 bits as 16 grey levels."""
    monkeypatch.setattr("dassl.data.data_manager.read_image", lambda path: pytest.fail("the host reads the images"))
    want = build("CoOp", "DATASET.ROOT", str(own_data(8)), *ALL)
    deep = build("CoOp", "DATASET.ROOT", str(own_data(bits)), "DATASET.GREY_RANGE", range_, *ALL)
    assert all(torch.equal(one, other) for one, other in zip(batches(want), batches(deep), strict=True))


def test_the_range_is_asked_for_before_training(own_data, build, caplog, monkeypatch):
    """Catches: a warning that no one sees, because the loader's processes read the images."""
    from clusterprompt.record import files

    monkeypatch.setattr(files, "_remarks", type(files._remarks)())
    build("CoOp", "DATASET.ROOT", str(own_data(12)), "DATALOADER.NUM_WORKERS", 1, *ALL)
    assert "of its 16 bits only the lower 12 are used" in caplog.text


def test_items_are_the_hosts(build, monkeypatch):
    """Catches: a key, a view or a random draw that differs from Dassl's own."""
    trainer = build("TAC")
    assert isinstance(trainer.test_loader.dataset, ImageLoader)
    ours = trainer.train_loader_x.dataset
    host = super(ImageLoader, ours).__getitem__
    torch.manual_seed(0)
    mine = ours[3]
    torch.manual_seed(0)
    theirs = host(3)
    assert list(mine) == list(theirs) and len(mine["img"]) == 2
    assert all(torch.equal(one, other) for one, other in zip(mine["img"], theirs["img"]))
    assert torch.equal(mine["img0"], theirs["img0"]) and mine["impath"] == theirs["impath"]


def test_a_damaged_image_is_named(build, tmp_path, data):
    """Catches: advice to fetch a file that nobody fetched; an error without the file's name."""
    trainer = build("CoOp")
    loader = trainer.test_loader.dataset
    (tmp_path / "a.png").write_text("<html>")
    loader.data_source = [Datum(impath=str(tmp_path / "a.png"), label=0, classname="x")]
    with pytest.raises(ImageError, match=r"a\.png: not an image .*; mend it, or take it out of the data set"):
        loader[0]


@pytest.fixture
def host_set():
    """A function that registers a host's data set with these rows: ``host_set(train, val, test)``."""
    names = []

    def make(train, val, test):
        class HostSet(DatasetBase):
            def __init__(self, cfg):
                def datums(rows):
                    return [Datum(impath=path, label=label, classname=name) for path, label, name in rows]

                super().__init__(train_x=datums(train), val=val and datums(val), test=datums(test))

        DATASET_REGISTRY._obj_map["HostSet"] = HostSet
        names.append("HostSet")
        return "HostSet"

    yield make
    for name in names:
        DATASET_REGISTRY._obj_map.pop(name, None)


def rows(root, part, shift=0):
    split = json.loads((root / SPLIT).read_text())[part]
    return [(str(root / "caltech-101/101_ObjectCategories" / p), label + shift, name) for p, label, name in split]


def test_a_hosts_data_set_is_checked(host_set, own_data, build):
    """Catches: 0.0 % on a host's data set whose labels count from 1, without a word."""
    root = own_data(8)
    name = host_set(*(rows(root, part, shift=1) for part in ("train", "val", "test")))
    with pytest.raises(
        ValueError, match=r"HostSet \(.*\): the 6 classes have the labels 1, 2, 3 and 3 more, not 0 to 5"
    ):
        build("ZeroshotCLIP", "DATASET.NAME", name)


@pytest.mark.parametrize("val", [None, "test"])
def test_validation_is_never_the_test(host_set, own_data, build, val, monkeypatch):
    """Catches: the best epoch picked on the test images; test images reported as validation."""
    root = own_data(8)
    name = host_set(rows(root, "train"), val and rows(root, val), rows(root, "test"))
    trainer = build("CoOp", "DATASET.NAME", name, "TEST.FINAL_MODEL", "best_val")
    words = "has no validation images" if val is None else "validates on its test images"
    with pytest.raises(ValueError, match=f"TEST.FINAL_MODEL is best_val, but HostSet {words}. Set .*last_step"):
        trainer.train()
    with pytest.raises(ValueError, match=f"TEST.SPLIT is val, but HostSet {words}"):
        build("CoOp", "DATASET.NAME", name, "TEST.SPLIT", "val")
    if val is None:
        with pytest.raises(ValueError, match="nothing can be said of split 'val'"):
            trainer.test("val")
    assert trainer.test() == trainer.recorder.scores["test"]["accuracy"] and "val" not in trainer.recorder.scores
    build("CoOp", "DATASET.NAME", name, "TEST.FINAL_MODEL", "best_val", "TEST.NO_TEST", True).check_validation()


def test_prediction_reads_the_same(own_data, build, tmp_path):
    """Catches: images that a trained run shows itself in another way than they were trained on."""
    from clusterprompt.use.classifier import Classifier
    from clusterprompt.use.images import decode

    trainer = build("CoOp", "DATASET.ROOT", str(own_data(12)), "DATASET.GREY_RANGE", "[0, 4095]", *ALL)
    item = trainer.test_loader.dataset[0]
    model = Classifier(trainer)
    assert torch.equal(decode(item["impath"], model.transform, model.grey_range).tensor, item["img"])
    assert torch.equal(model.transform(read_image(item["impath"], [0, 4095])), item["img"])
    array = np.asarray(read_image(item["impath"], [0, 4095]))
    assert torch.equal(decode(array, model.transform).tensor, item["img"])
    (of_array,) = model.predict(array)
    assert [of_array.classes, of_array.confidences] == list(model.predict(item["impath"])[0][1:3])


def test_load_data_is_what_dassl_loads(build):
    """Catches: an attribute of Dassl's trainers that is missing."""
    trainer = build("CoOp")
    manager = load_data(trainer.cfg)
    for name in ("num_classes", "lab2cname", "num_source_domains"):
        assert getattr(trainer, name) == getattr(manager, name)
