"""Merge the settings of a run, with errors that name the key, the file, and the name that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml


def merge_file(cfg: Any, path: str | Path) -> None:
    """Merge a yaml file into ``cfg``.

    Raises:
        ValueError: The file is not yaml, or holds a key that ``cfg`` lacks or a value of another type.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid yaml: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} should hold 'KEY: value' lines, not {content!r}")
    known = set(keys(cfg))
    for key in keys(content):
        if key not in known:
            raise ValueError(f"{unknown('config key', key, known)} (in {path})")
    try:
        cfg.merge_from_file(str(path))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def merge_pairs(cfg: Any, pairs: Sequence[str]) -> None:
    """Merge ``[KEY, value, KEY, value, ...]``, the end of a command line.

    Raises:
        ValueError: An odd number of words, an unknown key, or a value of another type.
    """
    if len(pairs) % 2:
        raise ValueError(
            f"config keys and values must come in pairs, KEY VALUE KEY VALUE ...; given: {' '.join(pairs)}"
        )
    known = set(keys(cfg))
    for key, value in zip(pairs[::2], pairs[1::2]):
        if key not in known:
            raise ValueError(unknown("config key", key, known))
        try:
            cfg.merge_from_list([key, value])
        except (ValueError, TypeError, SyntaxError) as error:
            current = get(cfg, key)
            hint = f" Write {value}.0." if isinstance(current, float) and value.lstrip("-").isdigit() else ""
            raise ValueError(
                f"{key} takes a {type(current).__name__} such as {current!r}, not {value!r}.{hint}"
            ) from error


def keys(node: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names of all values in a tree of dicts."""
    found: list[str] = []
    for key, value in node.items():
        found += keys(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [f"{prefix}{key}"]
    return found


def get(cfg: Any, key: str) -> Any:
    """Return the value of a dotted name."""
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def unknown(what: str, name: str, names: Iterable[str]) -> str:
    """Return the message that ``name`` is not among ``names``, with the one that was probably meant."""
    known = sorted(names)
    by_lower = {other.lower(): other for other in known}
    close = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)]
    same_end = [other for other in known if other.split(".")[-1].lower() == name.split(".")[-1].lower()]
    guesses = close or same_end
    meant = f" Did you mean '{guesses[0]}'?" if guesses else ""
    listed = f" Known: {', '.join(known)}." if len(known) <= 60 else ""
    return f"unknown {what} '{name}'.{meant}{listed}"
