"""Merge the settings of a run, with errors that name the key, the file, and the name that was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml


def merge_file(cfg: Any, path: str | Path) -> None:
    """Merge a yaml file into ``cfg``. The file is data whatever its name; no code in it is run.

    Raises:
        ValueError: The file is not yaml, or holds a key twice, one that ``cfg`` lacks, or a value of another type.
    """
    if Path(path).suffix == ".py":
        raise ValueError(f"{path} is a Python file; settings are read from a yaml file of 'KEY: value' lines")
    merge_settings(cfg, dict(items(read_yaml(path))), path)


def merge_settings(cfg: Any, given: Mapping[str, Any], path: str | Path) -> None:
    """Merge values by dotted key, as a file has them; its ``path`` ends the errors.

    Raises:
        ValueError: A key that ``cfg`` lacks, or a value of another type.
    """
    known, where = set(keys(cfg)), f" (in {path})"
    for key in given:
        if key not in known:
            raise ValueError(f"{_no_key(key, known)}{where}")
    for key, value in given.items():
        _merge(cfg, key, value, where)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a yaml file of keys and values.

    Raises:
        ValueError: It is not yaml, holds a key twice, or something else than keys and values.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _OnceLoader) or {}
        if isinstance(content, dict):
            keys(content)  # ends for no tree that holds itself
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, TypeError) as error:
        raise ValueError(f"{path} is not valid yaml: {' '.join(str(error).split())[:300]}") from error
    except ValueError as error:  # a date that does not exist, a key that stands twice
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} should hold 'KEY: value' lines, not {str(content)[:100]!r}")
    return content


class _OnceLoader(yaml.SafeLoader):
    """Read a mapping whose keys are given once, as text."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        seen: dict[str, int] = {}
        for name, _ in node.value:
            line = name.start_mark.line + 1
            if name.value in seen and name.tag != "tag:yaml.org,2002:merge":
                raise ValueError(f"{name.value!r} is given twice, in lines {seen[name.value]} and {line}; keep one")
            seen[name.value] = line
        return super().construct_mapping(node, deep)


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
            raise ValueError(_no_key(key, known))
        _merge(cfg, key, value, "")


def _merge(cfg: Any, key: str, value: Any, where: str) -> None:
    """Set one value; ``where`` ends the error. A whole number serves where the default is a fraction."""
    current = get(cfg, key)
    try:
        whole = isinstance(current, float) and re.fullmatch(r"[+-]?[0-9]+", str(value))
        cfg.merge_from_list([key, float(value) if whole else value])
    except (ValueError, TypeError, SyntaxError, AssertionError, MemoryError, RecursionError, OverflowError) as error:
        shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
        raise ValueError(f"{key} takes a {type(current).__name__} such as {current!r}, not {shown}{where}") from error


def keys(node: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names of all values in a tree of dicts."""
    return [key for key, _ in items(node, prefix)]


def items(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted names and values of a tree of dicts."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from items(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def get(cfg: Any, key: str) -> Any:
    """Return the value of a dotted name."""
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def _no_key(key: str, known: set[str]) -> str:
    """Return the message that a key does not exist, or is a group of keys."""
    inside = sorted(other for other in known if other.startswith(f"{key}."))
    if inside:
        return f"{key} is a group of keys and takes no value itself; in it are {', '.join(inside[:5])} ..."
    return unknown("config key", key, known)


def unknown(what: str, name: str, names: Iterable[str]) -> str:
    """Return the message that ``name`` is not among ``names``, with the one that was probably meant."""
    known = sorted(names)
    by_lower = {other.lower(): other for other in known}
    close = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)]
    same_end = [other for other in known if other.split(".")[-1].lower() == name.split(".")[-1].lower()]
    guesses = close or same_end
    meant = f" Did you mean '{guesses[0]}'?" if guesses else ""
    listed = f" Known: {', '.join(known)}." if len(known) <= 60 else ""
    return f"unknown {what} {name!r}.{meant}{listed}"
