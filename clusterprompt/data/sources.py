"""Where the files of each data set come from; the table itself is sources.yaml."""

from dataclasses import dataclass, field
from pathlib import Path

from .. import config


@dataclass(frozen=True)
class File:
    """One file to fetch.

    Attributes:
        name: Its name on disk.
        urls: Where to get it, best first; ``drive:<id>`` is a file of Google Drive. Empty: a copy placed by hand is
            used, nothing fetched.
        checksum: ``md5:...``, ``sha256:...`` or ``blob:...`` (git's); empty where none is known.
        size: In bytes; 0 where not known.
        inner: For archives: the archive within this one that holds the images.
        take: For archives: what to keep, path in the archive -> path below the data set's folder.
    """

    name: str
    urls: tuple[str, ...] = ()
    checksum: str = ""
    size: int = 0
    inner: str = ""
    take: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """The files of a data set.

    Attributes:
        lists: Split files and class names; they go into the data set's folder as they are.
        archives: Archives of the images.
        by_hand: Steps to go where something cannot be fetched, with ``{folder}`` and ``{root}`` to fill in.
    """

    lists: tuple[File, ...] = ()
    archives: tuple[File, ...] = ()
    by_hand: str = ""


def _load() -> dict[str, Source]:
    """Read sources.yaml."""
    table = config.read_yaml(Path(__file__).with_name("sources.yaml"))
    return {
        name: Source(
            lists=tuple(File(**entry) for entry in source.get("lists", ())),
            archives=tuple(File(**entry) for entry in source.get("archives", ())),
            by_hand=source.get("by_hand", ""),
        )
        for name, source in table.items()
    }


SOURCES = _load()  # by the name of the data set's yaml
