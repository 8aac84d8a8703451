"""Find out which files of a data set are there and which are missing. Reads lists and folders, opens no image."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .. import config, configs, registration
from ..record.files import is_image_name
from ..record.list_check import find_faults
from .fetch import differs
from .sources import SOURCES, Source


class Row(NamedTuple):
    """An image that a data set lists; it may not exist."""

    impath: str
    label: int
    classname: str


@dataclass
class Inventory:
    """The files of a data set that are there, and those that are missing.

    Attributes:
        name: Of the data set's yaml.
        folder, image_folder: Where they are, or should be.
        source: Where the files come from.
        drawn: The data set draws itself when it is first used.
        problems: Missing or differing files, in words; empty if the data set is complete.
        classes: Number of classes listed; None where the lists cannot be read.
        counts: Number of images listed, by part.
        images: Paths of the image files in ``image_folder``, relative to it.
        missing: Images listed and not there, relative to ``image_folder``.
        too_few: Images have to be fetched.
    """

    name: str
    folder: Path
    image_folder: Path
    source: Source
    drawn: bool
    problems: list[str] = field(default_factory=list)
    classes: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    images: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    too_few: bool = True

    @property
    def complete(self) -> bool:
        """Whether everything is there and as published."""
        return not self.problems

    @property
    def state(self) -> str:
        """The state in one or two words."""
        if self.drawn:
            return "drawn by itself"
        return "complete" if self.complete else "incomplete" if self.folder.is_dir() else "absent"

    @property
    def next_step(self) -> str:
        """The next step for the user, in a few words; "" if none is needed."""
        if self.complete:
            return ""
        if not (self.source.lists or self.source.archives):
            return "see DATASETS.md"
        return f"prepare {self.name}" + (" (steps by hand)" if self.source.by_hand else "")


def catalogue() -> dict[str, Any]:
    """Return the data sets: name of the yaml -> class.

    Those of users' own images are left out: they lie anywhere, and nothing about them is known.
    """
    classes = {cls.__name__: cls for cls in registration.own_datasets() if os.path.normpath(cls.folder) != "."}
    folder = Path(configs.__file__).parent / "datasets"
    found = {}
    for path in sorted(folder.glob("*.yaml")):
        cls = classes.get(config.read_yaml(path).get("DATASET", {}).get("NAME"))
        if cls is not None:
            found[path.stem] = cls
    return found


def chosen(names: Iterable[str]) -> dict[str, Any]:
    """Return the data sets of these names, or all of them.

    Raises:
        ValueError: There is none of that name.
    """
    known = catalogue()
    for name in names:
        if name not in known:
            raise ValueError(config.unknown("data set", name, known))
    return {name: known[name] for name in list(names) or known}


def look(name: str, cls: Any, root: Path) -> Inventory:
    """Find out which files of a data set are below ``root``."""
    folder = Path(root, cls.folder)
    found = Inventory(
        name,
        folder,
        Path(os.path.normpath(folder / cls.images)),
        SOURCES.get(name, Source()),
        cls.drawn,
    )
    if not folder.is_dir():
        if not found.drawn:
            found.problems.append("no folder")
        return found
    _look_at_lists(found)
    rows = _listed(found, cls)
    if not found.image_folder.is_dir():
        found.problems.append(f"no folder {cls.images}/")
        return found
    found.images = set(_images_below(found.image_folder))
    if rows is not None:
        _compare(found, cls, rows)
    elif found.images:
        found.too_few = False  # as far as can be seen without the lists
    else:
        found.problems.append("no image")
    return found


def _look_at_lists(found: Inventory) -> None:
    """Note split files and lists that are missing, or not the published ones."""
    for file in found.source.lists:
        path = found.folder / file.name
        if not path.is_file():
            found.problems.append(f"no {file.name}")
        elif differs(path, file.checksum):
            found.problems.append(f"{file.name} is not the published one")


def _listed(found: Inventory, cls: Any) -> dict[str, Any] | None:
    """Return the rows of each part; where the lists cannot be read, note a problem and return None."""
    try:
        return read_lists(cls, found.folder, found.image_folder)
    except FileNotFoundError as error:
        if not found.problems and found.image_folder.is_dir():  # otherwise it has been said
            found.problems.append(str(error).split(". ")[0])
        return None
    except (ValueError, OSError) as error:
        found.problems.append(str(error).split(". ")[0])
        return None


def read_lists(cls: Any, folder: Path, image_folder: Path) -> dict[str, Any]:
    """Return the rows of each part that a data set lists; no image need be there.

    Raises:
        FileNotFoundError, ValueError, OSError: The lists cannot be read.
    """
    spec = cls.__new__(cls)  # its __init__ would stop at the first fault
    spec.dataset_dir, spec.image_dir = str(folder), str(image_folder)
    spec.as_datums = lambda rows: [Row(spec.path_of(path), label, name) for path, label, name in rows]
    return dict(zip(("train", "val", "test"), spec.read()))


def listed_classes(cls: Any, root: Path) -> list[str]:
    """Return the class names of a data set, in order of the labels; none where its lists cannot be read."""
    folder = Path(root, cls.folder)
    try:
        parts = read_lists(cls, folder, Path(os.path.normpath(folder / cls.images)))
    except (ValueError, OSError):
        return []
    names = {row.label: row.classname for rows in parts.values() for row in rows or ()}
    return [names[label] for label in sorted(names)]


def _compare(found: Inventory, cls: Any, parts: dict[str, Any]) -> None:
    """Note images that are listed and missing, and numbers that are not the published ones."""
    rows = [row for part in parts.values() for row in part or ()]
    found.counts = {part: len(listed or ()) for part, listed in parts.items() if listed or part in cls.counts}
    found.classes = len({row.label for row in rows})
    found.problems += find_faults(parts, cls.same_names)
    base = len(str(found.image_folder)) + 1
    listed_paths = dict.fromkeys(row.impath[base:].replace(os.sep, "/") for row in rows)
    elsewhere = [path for path in listed_paths if path not in found.images]
    found.missing = [path for path in elsewhere if not (found.image_folder / path).is_file()]
    found.images.update(set(elsewhere) - set(found.missing))  # in folders that are links
    if found.missing:
        found.problems.append(f"{len(found.missing)} listed images are missing, first {found.missing[0]}")
    if cls.n_classes and found.classes != cls.n_classes:
        found.problems.append(f"{found.classes} classes instead of {cls.n_classes}")
    differ = {part: count for part, count in cls.counts.items() if found.counts.get(part, 0) != count}
    found.problems += [f"{part} {found.counts.get(part, 0)} instead of {count}" for part, count in differ.items()]
    fewer = any(found.counts.get(part, 0) < count for part, count in differ.items())
    found.too_few = bool(found.missing) or not found.images or (not cls.split_file and fewer)


def _images_below(folder: Path) -> Iterator[str]:
    """Yield the paths of all images below a folder, relative to it."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        prefix = os.path.relpath(place, folder).replace(os.sep, "/") + "/"
        prefix = "" if prefix == "./" else prefix
        for name in files:
            if is_image_name(name):
                yield prefix + name
