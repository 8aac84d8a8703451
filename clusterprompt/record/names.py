"""Names of data sets and numbers of shots, as folders and tables have them."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path


def dataset_key(name: str) -> str:
    """Return one spelling for a data set's class and its yaml (OxfordPets, oxford_pets)."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return "dtd" if plain == "describabletextures" else plain


def dataset_label(dataset: str) -> str:
    """Return the folder name of a data set: its config name, or a user yaml's stem."""
    return Path(dataset).stem


def printable(text: str, keep: str = "") -> str:
    """Return text that a terminal shows as it is: control characters and undecodable bytes become escapes.

    Args:
        text: Any text, such as a file's name.
        keep: Control characters to keep.
    """
    if text.isprintable():  # nearly always
        return text
    return "".join(c if c in keep or not _is_control(c) else c.encode("unicode_escape").decode() for c in text)


def _is_control(character: str) -> bool:
    """Tell control characters, those that turn the direction of writing, line separators, and undecodable bytes."""
    return not character.isprintable() and unicodedata.category(character) != "Zs"


def shots_label(shots: int) -> str:
    """Write a number of shots."""
    return f"{shots} shot{'s' * (shots != 1)}"
