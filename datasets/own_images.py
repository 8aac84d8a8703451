"""Data sets of a user's own images: class names, a split that is made once, damaged images left out.

See docs/own_images.md.
"""

import difflib
import errno
import hashlib
import json
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..clip_patches.class_texts import read_descriptions, readable
from ..clip_patches.text_source import TEMPLATES
from ..record.files import write_text
from ..record.image_check import find_damaged
from .base import PromptDataset, read_split

logger = logging.getLogger(__name__)

# What people call the parts of a data set, in any case.
PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
CLASSES_FILE = "classes.txt"
LISTS = ("train", "val", "test", "damaged")
MIN_IMAGES = 3  # one each to train, validate and test


class Found(NamedTuple):
    """An image as the user listed it.

    Attributes:
        path: Below the image folder, with forward slashes, as the disk spells it.
        folder: Its class as the user's folder or table calls it, in composed Unicode (NFC).
        part: "train", "val" or "test"; empty where the split is ours to make.
    """

    path: str
    folder: str
    part: str


class OwnImages(PromptDataset):
    """Images of a user. A subclass finds them; the rest is here.

    The first run checks every image and writes which of them train, validate and test. Later runs read that file, and
    stop if the images or their classes have changed.
    """

    images = "."
    split_file = "split_clusterprompt.json"

    def configure(self, cfg: Any) -> None:
        """See :meth:`PromptDataset.configure`."""
        self._descriptions = cfg.DATASET.get("DESCRIPTIONS", "")
        self._grey_range = cfg.DATASET.get("GREY_RANGE", ())

    def find(self) -> list[Found]:
        """Return all images that the user gives."""
        raise NotImplementedError

    def read(self) -> tuple[list, list, list]:
        """See :meth:`PromptDataset.read`; makes the split if there is none."""
        found = sorted(self.find())
        check_paths(found)
        classes = read_classes(os.path.join(self.image_dir, CLASSES_FILE), sorted({item.folder for item in found}))
        if self._descriptions not in ("", TEMPLATES):
            read_descriptions(self._descriptions, type(self).__name__, list(classes.values()), exact=True)
        places, place = self._places()
        if place:
            split = read_own_split(place)
            check_unchanged(split, found, classes, place)
            logger.info("The split is that of %s", place)
        else:
            split = make_split(self.image_dir, found, classes, self._grey_range)
            place = self._write(split, places)
            sizes = ", ".join(f"{len(split[part])} {part}" for part in ("train", "val", "test"))
            logger.info(
                "%d classes, %s images: this split was written to %s, which later runs read", len(classes), sizes, place
            )
        if split["damaged"]:
            logger.warning(
                "Damaged, and left out (%d): %s",
                len(split["damaged"]),
                first(f"{path} ({reason})" for path, _, reason in split["damaged"]),
            )
        spelling = {
            nfc(item.path): item.path for item in found
        }  # a split made on macOS may spell umlauts another way than this disk
        train, val, test = (
            self.as_datums([[spelling[nfc(path)], label, name] for path, label, name in split[part]])
            for part in ("train", "val", "test")
        )
        return train, val, test

    def read_again(self) -> tuple[list, list, list] | None:
        """See :meth:`PromptDataset.read_again`."""
        return self.read() if self._places()[1] else None

    def _places(self) -> tuple[list[str], str | None]:
        """Return where the split may lie, and where it lies."""
        places = [os.path.join(self.image_dir, self.split_file), self._place_elsewhere()]
        return places, next((path for path in places if os.path.isfile(path)), None)

    def _place_elsewhere(self) -> str:
        """Return the split's path in the cache, for a folder of images that is read-only; named by that folder."""
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        key = hashlib.sha256(os.path.realpath(self.image_dir).encode()).hexdigest()[:12]
        return os.path.join(cache, "clusterprompt", f"{os.path.basename(self.image_dir)}-{key}", self.split_file)

    def _write(self, split: dict[str, list], places: list[str]) -> str:
        """Write the split to the first of two places that can be written to; return it."""
        try:
            write_split(split, places[0])
            return places[0]
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            logger.warning(
                "%s cannot be written to (%s): the split goes into your cache", self.image_dir, error.strerror
            )
            os.makedirs(os.path.dirname(places[1]), exist_ok=True)
            write_split(split, places[1])
            return places[1]

    def _way_out(self) -> str:
        return "docs/own_images.md says how folders and tables of your own images should look."


def read_classes(path: str, folders: list[str]) -> dict[str, str]:
    """Return the class names by folder, in order of the labels.

    Classes that a file lists come first, in its order, then the others.

    Args:
        path: A text file, one class a line: ``folder = class name``, or a folder alone, which keeps its name. It need
            not exist.
        folders: All classes as folders or table call them, sorted.

    Raises:
        ValueError: A folder that there is not, or twice; a name that is empty or taken; fewer than two classes.
    """
    classes: dict[str, str] = {}
    for number, line in enumerate(_lines(path), 1):
        folder, equals, name = (part.strip() for part in nfc(line).partition("="))
        if not folder and not equals or folder.startswith("#"):
            continue
        where = f"{path}, line {number}"
        if folder not in folders:
            close = difflib.get_close_matches(folder, folders, 1, 0.5)
            raise ValueError(
                f"{where}: there is no class {folder!r}."
                + (f" Did you mean {close[0]!r}?" if close else "")
                + f" There are {first(folders)}."
            )
        if folder in classes:
            raise ValueError(f"{where}: {folder!r} has a line already.")
        if equals and not name:
            raise ValueError(f"{where}: {folder!r} gets no name; write 'folder = class name'.")
        classes[folder] = name or folder
    for folder in folders:
        classes.setdefault(folder, folder)
    if len(classes) < 2:
        raise ValueError(
            f"There is only one class in {os.path.dirname(path)}, {folders[0]!r}: at least two are needed."
        )
    if all(name.strip("0123456789.-_ ") == "" for name in classes.values()):
        logger.warning(
            "All class names are numbers (%s), which say nothing to CLIP: give them names in %s, 'folder = class name'",
            first(classes.values(), 3),
            path,
        )
    same: dict[str, list[str]] = {}
    for folder, name in classes.items():
        same.setdefault(readable(name).casefold(), []).append(folder)
    double = [" and ".join(map(repr, group)) for group in same.values() if len(group) > 1]
    if double:
        raise ValueError(
            f"These classes have the same name for CLIP: {first(double)}. Give them different ones in {path}."
        )
    return classes


def names_in(path: str | os.PathLike) -> list[str]:
    """Return the class names that a file lists, as :func:`read_classes` reads it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: No class, or one twice.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no such file: {path}; it lists the classes, one a line")
    lines = [[part.strip() for part in nfc(line).partition("=")] for line in _lines(os.fspath(path))]
    names = [name or folder for folder, _, name in lines if (name or folder) and not folder.startswith("#")]
    twice = [name for name, count in Counter(readable(name).casefold() for name in names).items() if count > 1]
    if twice or not names:
        raise ValueError(f"{path} lists {f'{first(twice)} twice' if twice else 'no class'}; it takes one class a line")
    return names


def _lines(path: str) -> list[str]:
    """Return the lines of a text file; none where it does not exist."""
    if not os.path.isfile(path):
        return []
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); save it as UTF-8.") from error


def make_split(
    folder: str, found: list[Found], classes: dict[str, str], grey_range: Sequence[float] = ()
) -> dict[str, list]:
    """Decide which images train, validate and test.

    Where the user has not decided, 30 % of each class test, 20 % validate and the rest train, at least one each. They
    are drawn by the sha256 of their paths: the same on every machine, whatever the run's seed, and whatever the other
    classes hold.

    Returns:
        The split in CoOp's form. Damaged images are listed under "damaged", with the reason in place of the class name.

    Raises:
        ValueError: A class has too few images.
    """
    labels = {name: label for label, name in enumerate(classes)}
    split: dict[str, list] = {name: [] for name in LISTS}
    given = any(item.part for item in found)
    by_class: dict[str, list[Found]] = {name: [] for name in classes}
    damaged_files = find_damaged([os.path.join(folder, item.path) for item in found], grey_range=grey_range)
    unknown = {path: fault for path, fault in damaged_files.items() if "DATASET.GREY_RANGE" in fault}
    if unknown:  # a setting of the data set is missing; the images are whole
        raise ValueError(
            f"{len(unknown)} of {len(found)} images, first {next(iter(unknown.items()))[0]}: "
            f"{next(iter(unknown.values()))}"
        )
    for item in found:
        if fault := damaged_files.get(os.path.join(folder, item.path)):
            split["damaged"].append([item.path, labels[item.folder], fault])
        else:
            by_class[item.folder].append(item)
    too_few = []
    for name, items in by_class.items():
        parts = assign(items)
        if not parts["train"]:
            too_few.append(f"{name!r} ({len(items)})")
        elif not parts["test"]:
            logger.warning("Class %r has no test image: its accuracy will not be known", name)
        for part, chosen in parts.items():
            split[part] += [[item.path, labels[name], classes[name]] for item in sorted(chosen)]
    damaged = f" Damaged images do not count: {first(row[0] for row in split['damaged'])}." if split["damaged"] else ""
    if too_few:
        need = (
            "every class needs an image to train on"
            if given
            else f"a class needs {MIN_IMAGES}, to train, validate and test"
        )
        raise ValueError(
            f"Too few images in {len(too_few)} of {len(classes)} classes of {folder}: {first(too_few)}; "
            f"{need}.{damaged} "
            "Add images, or take the class away."
        )
    if not split["test"]:
        raise ValueError(f"No image to test on in {folder}.{damaged} Say which, or leave the split to this program.")
    return split


def assign(items: list[Found]) -> dict[str, list[Found]]:
    """Return the images of one class by part: as the user says, or by lot."""
    parts: dict[str, list[Found]] = {"train": [], "val": [], "test": []}
    if any(item.part for item in items):
        for item in items:
            parts[item.part].append(item)
    elif len(items) >= MIN_IMAGES:
        lots = sorted(items, key=lambda item: hashlib.sha256(nfc(item.path).encode()).digest())
        n_test, n_val = (max(1, (len(items) * tenths + 5) // 10) for tenths in (3, 2))
        parts = {"test": lots[:n_test], "val": lots[n_test : n_test + n_val], "train": lots[n_test + n_val :]}
    return parts


def read_own_split(path: str) -> dict[str, list]:
    """Read what `write_split` wrote; raise ValueError for anything else."""
    try:
        split = read_split(path, keys=LISTS)
        if all(isinstance(row, list) and [type(part) for part in row] == [str, int, str] for row in split["damaged"]):
            return {name: split[name] for name in LISTS}
    except ValueError:
        pass
    raise ValueError(
        f"The split file {path} is damaged, or not one of this program. Delete it, and the next run makes it again."
    )


def check_unchanged(split: dict[str, list], found: list[Found], classes: dict[str, str], place: str) -> None:
    """Raise ValueError, with the changes, if a split was made for other images, classes or parts."""
    labels = {folder: (label, classes[folder]) for label, folder in enumerate(classes)}
    now = {nfc(item.path): item for item in found}
    then = {nfc(path): (part, label, name) for part, rows in split.items() for path, label, name in rows}
    changes = [
        ("new images", [path for path in now if path not in then]),
        ("missing images", [path for path in then if path not in now and then[path][0] != "damaged"]),
    ]
    other_class, other_part = [], []
    for path in now.keys() & then.keys():
        part, label, name = then[path]
        if label != labels[now[path].folder][0] or part != "damaged" and name != labels[now[path].folder][1]:
            other_class.append(path)
        elif now[path].part and part not in ("damaged", now[path].part):
            other_part.append(path)
    changes += [("another name or number of the class", sorted(other_class)), ("another part", sorted(other_part))]
    said = [f"{what}: {len(paths)} ({first(paths, 5)})" for what, paths in changes if paths]
    if said:
        raise ValueError(
            f"The data have changed since their split was written to {place}: {'; '.join(said)}. Undo that, or "
            "delete the "
            "file: the next run then makes a new split, with which earlier results do not compare."
        )


def write_split(split: dict[str, list], path: str) -> None:
    """Write a split as JSON, one line an image, whole or not at all."""
    lists = (
        f'"{part}": [\n' + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]"
        for part, rows in split.items()
    )
    write_text(path, "{\n" + ",\n".join(lists) + "\n}\n")


def nfc(text: str) -> str:
    """Normalise to NFC (macOS writes NFD): an umlaut is one character."""
    return unicodedata.normalize("NFC", text)


def first(words: Iterable[object], n: int = 10) -> str:
    """Write the first words of a list, with the number of the others."""
    texts = [str(word) for word in words]
    return ", ".join(texts[:n]) + (f" and {len(texts) - n} more" if len(texts) > n else "")


def check_paths(found: list[Found]) -> None:
    """Raise ValueError for paths that are not Unicode, or that differ only in how Unicode spells them."""
    broken = [ascii(item.path) for item in found if not _is_text(item.path)]
    if broken:
        raise ValueError(
            f"{len(broken)} names of files or folders are not UTF-8, as old archives leave them: {first(broken)}. "
            "Rename them "
            "(convmv does it for whole folders)."
        )
    double = [path for path, count in Counter(nfc(item.path) for item in found).items() if count > 1]
    if double:
        raise ValueError(
            f"{len(double)} names occur in both NFC and NFD spelling: {first(double)}. Rename one of each."
        )


def _is_text(name: str) -> bool:
    """Tell whether a file's name is Unicode."""
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False
