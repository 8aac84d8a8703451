"""Labels, names and parts of a data set: each contradiction is found, with part and row; sound lists pass."""

from typing import NamedTuple

import numpy as np
import pytest

from clusterprompt.record.list_check import check_lists, find_faults, find_oddities

NAMES = ("ant", "bee", "cow")


class Row(NamedTuple):
    impath: str
    label: object
    classname: object


def lists(change=lambda part, row: row):
    """Return lists of two images a class and part."""
    rows = {
        part: [Row(f"{name}/{part}{i}.jpg", label, name) for label, name in enumerate(NAMES) for i in range(2)]
        for part in ("train", "val", "test")
    }
    return {part: [change(part, row) for row in found] for part, found in rows.items()}


def only(part, path, **fields):
    """A change of one row."""
    return lambda its, row: row._replace(**fields) if (its, row.impath) == (part, path) else row


CONTRADICTIONS = {
    "labels from 1": (
        lambda part, row: row._replace(label=row.label + 1),
        "the 3 classes have the labels 1, 2, 3, not 0 to 2 (label 3: 'train', row 5)",
    ),
    "labels times 3": (lambda part, row: row._replace(label=row.label * 3), "labels 0, 3, 6, not 0 to 2 (label 3: "),
    "labels minus 5": (lambda part, row: row._replace(label=row.label - 5), "labels -3, -4, -5, not 0 to 2"),
    "a huge label": (only("train", "bee/train0.jpg", label=10**12), "1000000000000"),
    "a label of the test alone": (
        only("test", "cow/test1.jpg", label=7, classname="dog"),
        "'test' has 1 labels without an image in 'train': 7 ('test', row 6)",
    ),
    "two names of a label": (
        only("val", "bee/val1.jpg", classname="wasp"),
        "1 labels have several names: 1 is 'bee' ('train', row 3) and 'wasp' ('val', row 4)",
    ),
    "two labels of a name": (
        lambda part, row: row._replace(classname="ant" if row.label == 2 else row.classname),
        "1 names have several labels: 'ant' is 0 ('train', row 1) and 2 ('train', row 5)",
    ),
    "all names the same": (lambda part, row: row._replace(classname="bird"), "'bird' is 0 ('train', row 1) and 1"),
    "an empty name": (
        lambda part, row: row._replace(classname="" if row.label == 1 else row.classname),
        "class 1 has no name ('train', row 3)",
    ),
    "a blank name": (
        lambda part, row: row._replace(classname=" _" if row.label == 1 else row.classname),
        "class 1 has no name",
    ),
    "no number": (only("train", "ant/train0.jpg", label="0"), "label '0' of 'ant' is no whole number ('train', row 1)"),
    "an image in train and test": (
        only("test", "bee/test0.jpg", impath="bee/train1.jpg"),
        "1 images are in 'train' and in 'test': bee/train1.jpg ('train', row 4 and 'test', row 3)",
    ),
    "an image in val and test": (only("test", "bee/test0.jpg", impath="bee/val0.jpg"), "in 'val' and in 'test'"),
    "an image under two labels": (
        only("train", "bee/train0.jpg", impath="ant/train1.jpg"),
        "1 images have two labels: ant/train1.jpg is 0 ('train', row 2) and 1 ('train', row 3)",
    ),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_contradictions(what):
    """Catches: accuracies of shifted labels, of images seen in training, of classes that share a text: in silence."""
    change, words = CONTRADICTIONS[what]
    with pytest.raises(ValueError, match="^split.json: ") as caught:
        check_lists(lists(change), "split.json")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_sound_lists():
    """Catches: official sets refused: ImageNet's classes of one name, sets that validate on their test images."""
    check_lists(lists(), "split.json")
    check_lists({**lists(), "val": None}, "no validation images")
    check_lists({"train": None, "val": None, "test": lists()["test"]}, "test only")
    check_lists({**lists(), "val": lists()["test"]}, "CoOp's ImageNet")
    check_lists({"train": lists()["test"], "val": None, "test": lists()["test"]}, "CoOp's variants of ImageNet")
    check_lists(lists(lambda part, row: row._replace(label=np.int64(row.label))), "labels of numpy")
    shared = lists(lambda part, row: row._replace(classname="sunglasses" if row.label else "ant"))
    assert find_faults(shared) and not find_faults(shared, ("missile", "sunglasses"))


def test_oddities(caplog):
    """Catches: names that CLIP reads alike, or an image that is drawn twice, without a word."""
    assert not find_oddities(lists())
    alike = lists(lambda part, row: row._replace(classname="ANT" if row.label == 1 else row.classname))
    double = {**alike, "train": [*alike["train"], alike["train"][0]]}
    check_lists(double, "split.json")
    assert caplog.messages == [
        "split.json: class names that are the same text for CLIP: 'ant' and 'ANT'",
        "split.json: 'train' lists 1 images more than once: ant/train0.jpg",
    ]
