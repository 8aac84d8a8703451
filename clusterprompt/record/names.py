"""Names of data sets and numbers of shots, as folders and tables have them."""

from __future__ import annotations

import re
from pathlib import Path


def dataset_key(name: str) -> str:
    """Return one spelling for a data set's class and its yaml (OxfordPets, oxford_pets)."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return "dtd" if plain == "describabletextures" else plain


def dataset_label(dataset: str) -> str:
    """Return the folder name of a data set: its config name, or a user yaml's stem."""
    return Path(dataset).stem


def shots_label(shots: int) -> str:
    """Write a number of shots."""
    return f"{shots} shot{'s' * (shots != 1)}"
