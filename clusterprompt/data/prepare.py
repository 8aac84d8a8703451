"""Complete a data set: fetch what is missing, unpack it into CoOp's layout, print the steps to do by hand."""

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from ..record.files import write_bytes
from ..record.names import printable
from .fetch import DRIVE, FetchError, differs, fetch, megabytes
from .inventory import Inventory, catalogue, look
from .sources import SOURCES, File, Source
from .unpack import UnpackError, unpack

LARGEST_LIST = 1 << 28  # bytes of a split file or a list of names; the largest known has 60 MB


def prepare(data_sets: dict[str, Any], root: Path) -> bool:
    """Prepare data sets, one after the other; a failure does not stop the next one.

    Args:
        data_sets: Class by name.
        root: Folder of all data sets.

    Returns:
        Whether all of them are complete now.
    """
    found = {name: look(name, cls, root) for name, cls in data_sets.items()}
    announce([inventory for inventory in found.values() if not inventory.complete], root)
    return all([_prepare_one(inventory, data_sets, root) for inventory in found.values()])


def announce(inventories: Sequence[Inventory], root: Path) -> None:
    """Print which files will be fetched, from where, and their sizes."""
    wanted = [(inventory, file) for inventory in inventories for file in to_fetch(inventory) if file.urls]
    if not wanted:
        return
    size = sum(file.size for _, file in wanted)
    unknown = "" if all(file.size for _, file in wanted) else ", and files whose size is not known"
    print(f"To be fetched into {root}: {megabytes(size)}{unknown}" if size else f"To be fetched into {root}:")
    for inventory, file in wanted:
        url = file.urls[0]
        place = "Google Drive" if url.startswith(DRIVE) else urlparse(url).hostname
        print(f"  {inventory.name}: {file.name}{f', {megabytes(file.size)}' if file.size else ''}, from {place}")


def to_fetch(found: Inventory) -> list[File]:
    """Return the lists, and the archives, that are missing."""
    lists = [file for file in found.source.lists if not (found.folder / file.name).is_file()]
    archives = [file for file in found.source.archives if _lacks(found, file)]
    return lists + archives


def _lacks(found: Inventory, archive: File) -> bool:
    """Tell whether a data set lacks what an archive holds."""
    if any(not (found.folder / target).exists() for target in archive.take.values()):
        return True
    if found.missing and len(found.source.archives) > 1:  # of several, those whose part of the images is missing
        return any(path.startswith(f"{target}/") for path in found.missing for target in archive.take.values())
    return found.too_few


def _prepare_one(found: Inventory, data_sets: dict[str, Any], root: Path) -> bool:
    """Prepare one data set, print its state, and return whether it is complete."""
    name, cls = found.name, data_sets[found.name]
    if found.complete and found.folder.is_dir():
        print(f"{name}: complete, nothing to do")
        return True
    if found.drawn:
        cls.prepare(cls.__new__(cls), str(root))
    failures: list[str] = []
    for file in found.source.lists:
        target = found.folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file():
            _try(failures, partial(_fetch_list, file, target, root))
        elif wrong := differs(target, file.checksum):
            failures.append(
                f"{target} is not the published file ({wrong}). Move it away and call this again to fetch that."
            )
    found = look(name, cls, root)  # the lists say whether images are missing
    for archive in found.source.archives:
        if _lacks(found, archive):
            _try(failures, partial(_fetch_archive, archive, found.folder))
    found = look(name, cls, root)
    print(f"{name}: {'complete' if found.complete else 'incomplete: ' + '; '.join(found.problems)}")
    for failure in failures:
        print("  " + printable(failure, keep="\n").replace("\n", "\n  "))
    if not found.complete and found.source.by_hand and found.too_few:
        print(found.source.by_hand.format(folder=found.folder, root=root).rstrip())
    elif not found.complete and not (found.source.lists or found.source.archives):
        print("  Nothing is known to fetch for this data set; DATASETS.md says how it must look.")
    return found.complete


def _try(failures: list[str], step: Callable[[], None]) -> None:
    """Carry out a step; add the reason to ``failures`` if it fails."""
    try:
        step()
    except (FetchError, UnpackError) as error:
        failures.append(str(error))


def largest_download(archive: File, free: int) -> int:
    """Return the number of bytes after which a server has gone wrong.

    Args:
        archive: File to fetch.
        free: Free bytes of the disk; a file of unknown size gets half of them.
    """
    return archive.size + archive.size // 4 + (1 << 20) if archive.size else max(1, free // 2)


def _fetch_list(file: File, target: Path, root: Path) -> None:
    """Fetch a list, or copy it from another data set that has the same one."""
    for name, cls in catalogue().items():  # the same class names serve ImageNet and its variants
        twin = root / cls.folder / file.name
        if file in SOURCES.get(name, Source()).lists and twin.is_file():
            write_bytes(target, twin.read_bytes())
            return
    fetch(file.urls, target, file.checksum, LARGEST_LIST)


def _fetch_archive(archive: File, folder: Path) -> None:
    """Fetch and unpack an archive, or unpack the one that was placed by hand."""
    placed = folder / archive.name
    if placed.is_file():
        if wrong := differs(placed, archive.checksum):
            raise FetchError(
                f"{placed} is not the expected archive, or cut short: {wrong}. Put the right one there, or remove it."
            )
        print(f"Unpacking {placed}")
        unpack(placed, folder, archive.take, archive.inner, archive.size)
        return
    if not archive.urls:
        return  # the steps by hand are printed later
    downloads = folder / ".downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    path = downloads / archive.name
    try:
        if not path.is_file():
            needed, free = 2 * archive.size, shutil.disk_usage(folder).free  # the archive, and what comes out of it
            if needed > free:
                raise FetchError(
                    f"{archive.name} needs about {megabytes(needed)} while it is unpacked, "
                    f"and {folder} has {megabytes(free)} free."
                )
            print(f"Fetching {archive.name}")
            fetch(archive.urls, path, archive.checksum, largest_download(archive, free))
        unpack(path, folder, archive.take, archive.inner, archive.size)
        path.unlink()
    except UnpackError as error:
        path.unlink(missing_ok=True)
        raise UnpackError(f"{error} The archive was removed.") from error
    finally:
        if not any(downloads.iterdir()):
            downloads.rmdir()
