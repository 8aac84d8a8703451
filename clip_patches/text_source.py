"""Where the sentences about classes come from: official descriptions, a file of the user's, or hand-written templates.

The official files are those of TAC's authors (``official_descriptions.json`` lists them). A file is told from another
by its content, wherever it lies and whatever it is called.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import NamedTuple

TEMPLATES = "templates"  # also the value of the option DESCRIPTIONS that asks for them
OFFICIAL = "official descriptions"
OWN = "own file"
FOLDER = "descriptions"  # below the data root
LARGEST = 1 << 26  # bytes of a file; the largest official one has a few million


class OfficialFile(NamedTuple):
    """The official descriptions of a data set.

    Attributes:
        name: Of the file.
        url: Its address.
        blob: Its git blob id.
        sha256: Of its content; empty where it is not known.
        size: In bytes; 0 where it is not known.
    """

    name: str
    url: str
    blob: str
    sha256: str = ""
    size: int = 0

    def is_content(self, content: bytes) -> bool:
        """Tell whether a file's content is the official one."""
        if self.sha256:
            return hashlib.sha256(content).hexdigest() == self.sha256
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == self.blob


def _load() -> dict[str, OfficialFile]:
    """Read the table of official files, by the class name of the data set."""
    table = json.loads(Path(__file__).with_name("official_descriptions.json").read_text(encoding="utf-8"))
    return {
        dataset: OfficialFile(url=table["url"].format(file=entry["name"]), **entry)
        for dataset, entry in table["files"].items()
    }


OFFICIAL_FILES = _load()


class TextSource(NamedTuple):
    """The source of the class texts of a run; ``str`` of it is what logs and records say.

    Attributes:
        kind: ``OFFICIAL``, ``OWN`` or ``TEMPLATES``.
        file: The file; None for templates.
        sha256: Of the file's content.
    """

    kind: str
    file: Path | None = None
    sha256: str = ""

    def __str__(self) -> str:
        if self.kind != OWN or self.file is None:
            return self.kind
        return f"{OWN} {ascii(self.file.name)[1:-1]} (sha256 {self.sha256[:12]})"


def find_source(setting: str, dataset: str, root: str | Path) -> TextSource:
    """Find the source of class texts.

    Args:
        setting: The option DESCRIPTIONS: a file, a folder of files, ``templates``, or empty for the file in the data
            root where there is one, else templates.
        dataset: Class name of the data set.
        root: The data root.

    Raises:
        FileNotFoundError: No such file or folder, or no file for this data set in the folder.
        ValueError: A file that is too large.
    """
    if setting == TEMPLATES:
        return TextSource(TEMPLATES)
    file = find_file(setting, dataset) if setting else _named_file(Path(root, FOLDER), dataset)
    if file is None:
        return TextSource(TEMPLATES)
    if file.stat().st_size > LARGEST:
        raise ValueError(f"{file} is larger than {LARGEST >> 20} MB: it is no file of class descriptions")
    content = file.read_bytes()
    official = OFFICIAL_FILES.get(dataset)
    kind = OFFICIAL if official and official.is_content(content) else OWN
    return TextSource(kind, file, hashlib.sha256(content).hexdigest())


def find_file(path: str | Path, dataset: str) -> Path:
    """Return the file of class descriptions that a path names.

    Args:
        path: The file, or a folder of files named ``<data set>_prompt.json``, such as the official one.
        dataset: Class name of the data set.

    Raises:
        FileNotFoundError: No such file or folder, or no file for this data set in the folder.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(
            f"class descriptions {path} do not exist; give a JSON file or a folder of them, or '{TEMPLATES}' to use "
            "hand-written templates"
        )
    if named := _named_file(path, dataset):
        return named
    wanted, files = _key(dataset), _files_in(path)
    close = [file for stem, file in files.items() if stem and (wanted.startswith(stem) or wanted.endswith(stem))]
    if len(close) == 1:
        return close[0]
    raise FileNotFoundError(
        f"{path} holds no single description file for data set {dataset}; it has "
        f"{', '.join(file.name for file in files.values()) or 'no .json file'}. Name the file itself"
    )


def _named_file(folder: Path, dataset: str) -> Path | None:
    """Return a data set's file in a folder, by the data set's own name or the official file's; None without one.

    ImageNet's variants have its classes and so its file.
    """
    files = _files_in(folder)
    names = [dataset, *(OFFICIAL_FILES[name].name for name in (dataset, "ImageNet") if _shares(dataset, name))]
    return next((files[key] for key in map(_key, names) if key in files), None)


def _shares(dataset: str, other: str) -> bool:
    """Tell whether a data set's official file is also that of another."""
    own = OFFICIAL_FILES.get(dataset)
    return own is not None and own.blob == OFFICIAL_FILES[other].blob


def _files_in(folder: Path) -> dict[str, Path]:
    """Return the JSON files in a folder by the key of their name; none without the folder."""
    return {_key(file.name): file for file in sorted(folder.glob("*.json")) if file.is_file()}


def _key(name: str) -> str:
    """Return one spelling for a data set and its file: without ending, capitals and separators."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"(_prompts?)?(\.json)?$", "", name).lower())
