"""Read JSON files that somebody else may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is not JSON in UTF-8, holds a key twice in one object, or is nested too deep. The message says
            what is wrong, in one line without the file's name.
    """
    with open(path, encoding="utf-8") as file:
        return parse_json(file.read())


def parse_json(text: str) -> Any:
    """Read JSON from a text; see :func:`read_json`."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of an object as a dict; a key that is there twice is refused, so that none wins in silence."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:80]!r} is given twice; keep one")
    return content
