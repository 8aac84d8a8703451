"""The official class descriptions below a data root: which are there, and fetching what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

from ..clip_patches.class_texts import read_descriptions
from ..clip_patches.text_source import FOLDER, OFFICIAL, OFFICIAL_FILES, TEMPLATES, OfficialFile, find_source
from ..record.files import write_bytes
from .fetch import FetchError, differs, fetch, megabytes
from .inventory import catalogue, listed_classes

LARGEST = 1 << 25  # bytes of a file whose size is not known
ALL = "all"


class State(NamedTuple):
    """The descriptions of a data set below a data root.

    Attributes:
        texts: Where a run would take them from: a source, in words.
        file: The file that it would read; None without one.
        problem: Why a run would stop; empty if it would not.
    """

    texts: str
    file: Path | None
    problem: str


def described(names: Sequence[str]) -> dict[str, Any]:
    """Return the data sets of these names that have official descriptions; all of them for ``all``, or no name.

    Raises:
        ValueError: There is none of that name.
    """
    known = {name: cls for name, cls in catalogue().items() if cls.__name__ in OFFICIAL_FILES}
    for name in names:
        if name not in known and name != ALL:
            raise ValueError(f"no official descriptions of {name!r}; there are of {', '.join(known)}, or {ALL}")
    return known if ALL in names or not names else {name: known[name] for name in dict.fromkeys(names)}


def look(cls: Any, root: Path) -> State:
    """Find out which descriptions a run on a data set would read, and whether it could.

    Classes are compared where the data set's lists are there.
    """
    dataset = cls.__name__
    try:
        source = find_source("", dataset, root)
        if source.file is not None:
            read_descriptions(source.file, dataset, listed_classes(cls, root))
    except ValueError as error:
        return State("", Path(root, FOLDER), str(error))
    return State(str(source), source.file, "")


def fetch_descriptions(data_sets: Mapping[str, Any], root: Path) -> bool:
    """Fetch the official descriptions that are missing below a data root; a failure does not stop the next one.

    Returns:
        Whether those of all data sets are there, as published, and describe every class.
    """
    folder = root / FOLDER
    files = {name: OFFICIAL_FILES[cls.__name__] for name, cls in data_sets.items()}
    _announce([file for file in files.values() if not (folder / file.name).is_file()], folder)
    return all([_fetch_one(name, cls, files[name], root) for name, cls in data_sets.items()])


def _announce(files: Sequence[OfficialFile], folder: Path) -> None:
    """Print what will be fetched, its size, from where, and its licence."""
    if files:
        known = sum(file.size for file in files)
        sizes = [megabytes(known)] * bool(known)
        sizes += ["ImageNet's, whose size is not known"] * any(not file.size for file in files)
        host = urlparse(files[0].url).hostname
        print(f"To be fetched into {folder}, from {host} (TAC's authors, MIT licence): {', and '.join(sizes)}")


def _fetch_one(name: str, cls: Any, file: OfficialFile, root: Path) -> bool:
    """Fetch the file of one data set if it is missing; print and return whether runs will use it."""
    target = root / FOLDER / file.name
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            _fetch(file, target)
        except FetchError as error:
            print(f"{name}: not fetched\n  " + str(error).replace("\n", "\n  "))
            return False
    state = look(cls, root)
    if state.problem:
        print(f"{name}: runs stop before anything is trained\n  {state.problem}")
        return False
    if state.texts != OFFICIAL:
        print(
            f"{name}: {state.file} is not the official file, so runs use it as your own. Move it away and call this "
            "again to fetch the official one"
        )
        return False
    print(f"{name}: {state.texts}, {state.file}; runs use them from now on, unless DATASET.DESCRIPTIONS is {TEMPLATES}")
    return True


def _fetch(file: OfficialFile, target: Path) -> None:
    """Download a file, or copy it from another data set that has the same one."""
    checksum = f"sha256:{file.sha256}" if file.sha256 else f"blob:{file.blob}"
    twins = [target.with_name(other.name) for other in OFFICIAL_FILES.values() if other.blob == file.blob]
    for twin in twins:
        if twin.is_file() and not differs(twin, checksum):
            write_bytes(target, twin.read_bytes())
            return
    fetch([file.url], target, checksum, file.size or LARGEST)
