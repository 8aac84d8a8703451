"""Small data sets in the layouts of the CoOp family, with empty files for images.

`write` returns what a correct reader must find: ``{"train" | "val" | "test": [[path below the image folder, label,
class name], ...]}``; a part that the set does not have is absent.
"""

import json
from pathlib import Path

SIZES = {"train": 4, "val": 3, "test": 2}
# Names of several words, with underscores and signs; one that two classes share; and more than ten, so that "10" sorted
# as a word shows.
NAMES = (
    "tench",
    "great white shark",
    "colt's foot",
    "outdoor apartment_building",
    "707-320",
    "sunglasses",
    "sunglasses",
    "F/A-18",
    "Cessna 172",
    "Yo_Yo",
    "kite (bird of prey)",
    "toilet paper",
)
SHARED = 6  # the label of the second "sunglasses"
WNIDS = tuple(f"n{1440764 + 1000 * number:08d}" for number in range(len(NAMES)))


def write(cls, root) -> dict:
    """Write a small data set that ``cls`` should read, below ``root``; return what it should find."""
    folder = Path(root) / cls.folder
    folder.mkdir(parents=True)
    writer = _with_split_file if cls.split_file else OWN_LAYOUTS[cls.__name__]
    expected = writer(cls, folder)
    for path in {row[0]: None for rows in expected.values() for row in rows}:
        image = folder / cls.images / path
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
    return expected


def essential_files(cls) -> list:
    """Return the files below the data set's folder that are no images."""
    if cls.split_file:
        return [cls.split_file]
    if cls.__name__ == "FGVCAircraft":
        return ["variants.txt"] + [f"images_variant_{part}.txt" for part in SIZES]
    return ["classnames.txt"]


def _with_split_file(cls, folder):
    names = [name for label, name in enumerate(NAMES) if label != SHARED]
    order = sorted(
        range(len(names)), key=lambda label: label % 5
    )  # in the file, classes do not come in order of their labels
    parts = ("test",) if cls.test_only else SIZES
    split = {
        part: [[f"{label:02d}/{part} {i}.jpg", label, names[label]] for label in order for i in range(SIZES[part])]
        for part in parts
    }
    (folder / cls.split_file).write_text(json.dumps(split))
    return split


def _aircraft(cls, folder):
    names = [name for label, name in enumerate(NAMES) if label != SHARED]
    (folder / "variants.txt").write_text("\n".join(names) + "\n")
    expected = {}
    for part, size in SIZES.items():
        rows = [
            [f"{len(part)}{i:02d}{label:03d}.jpg", label, name] for i in range(size) for label, name in enumerate(names)
        ]
        (folder / f"images_variant_{part}.txt").write_text("".join(f"{path[:-4]} {name}\n" for path, _, name in rows))
        expected[part] = rows
    return expected


def _classnames(folder):
    (folder / "classnames.txt").write_text("".join(f"{wnid} {name}\n" for wnid, name in zip(WNIDS, NAMES)))


def _imagenet(cls, folder):
    _classnames(folder)
    return {
        part: [
            [f"{place}/{wnid}/{wnid}_{i}.JPEG", label, NAMES[label]]
            for label, wnid in enumerate(WNIDS)
            for i in sorted(range(9, 9 + SIZES[part]), key=str)  # by name, "10" is before "9"
        ]
        for part, place in (("train", "train"), ("test", "val"))
    }


def _variant(kept, ending, by_number=False):
    def writer(cls, folder):
        _classnames(folder)
        (folder / cls.images).mkdir()
        (folder / cls.images / "README.txt").touch()
        label_of = {number: label for label, number in enumerate(kept)}
        places = {number: str(number) if by_number else WNIDS[number] for number in kept}
        return {
            "test": [[f"{places[n]}/{i}{ending}", label_of[n], NAMES[n]] for n in kept for i in range(SIZES["test"])]
        }

    return writer


EVERY = range(len(NAMES))
OWN_LAYOUTS = {
    "FGVCAircraft": _aircraft,
    "ImageNet": _imagenet,
    "ImageNetV2": _variant(EVERY, ".jpeg", by_number=True),
    "ImageNetSketch": _variant(EVERY, ".JPEG"),
    "ImageNetA": _variant((1, 4, 5, 8, 11), ".jpg"),
    "ImageNetR": _variant((0, 4, 6, 7, 9), ".jpg"),
}
