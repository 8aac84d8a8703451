"""Check that the three statements of a data set agree: an image's label, its class name, and its part."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

logger = logging.getLogger(__name__)
SHOWN = 3  # faults of one kind that are named


def check_lists(parts: Mapping[str, Sequence[Any] | None], where: str, same_names: Sequence[str] = ()) -> None:
    """Raise ValueError, with the faults, if the lists of a data set contradict each other; see :func:`find_faults`.

    Args:
        parts: The images of "train", "val" and "test".
        where: The file or data set they come from, for the message.
        same_names: Class names that several labels may share.
    """
    faults = find_faults(parts, same_names)
    if faults:
        raise ValueError(f"{where}: {'; '.join(faults)}. Correct it: no accuracy can be right with it")
    for warning in find_oddities(parts):
        logger.warning("%s: %s", where, warning)


def find_faults(parts: Mapping[str, Sequence[Any] | None], same_names: Sequence[str] = ()) -> list[str]:
    """Return the contradictions of a data set's lists, in words, with part and row (counted from 1) of the first ones.

    Args:
        parts: Images with ``impath``, ``label`` and ``classname``, by part. Training and test images may be the same
            list, and so may validation and test images: sets without images of their own for it are given that way.
        same_names: Class names that several labels may share.
    """
    lists = {part: rows for part, rows in parts.items() if rows}
    classes = {(row.label, row.classname): None for rows in lists.values() for row in rows}
    return [
        *_bad_values(lists, classes),
        *_bad_labels(lists),
        *_bad_pairs(lists, classes, same_names),
        *_bad_paths(lists),
    ]


def find_oddities(parts: Mapping[str, Sequence[Any] | None]) -> list[str]:
    """Return what is probably a mistake: names that are the same text for CLIP, images listed twice in a part."""
    lists = {part: rows for part, rows in parts.items() if rows}
    spellings: dict[str, dict[str, None]] = {}
    for name in {row.classname: None for rows in lists.values() for row in rows}:
        spellings.setdefault(" ".join(name.replace("_", " ").split()).casefold(), {})[name] = None
    alike = [" and ".join(map(repr, names)) for names in spellings.values() if len(names) > 1]
    found = [f"class names that are the same text for CLIP: {_some(alike)}"] if alike else []
    for part, rows in lists.items():
        paths = [row.impath for row in rows]
        if len(set(paths)) < len(paths):
            twice = [path for path, count in Counter(paths).items() if count > 1]
            found.append(f"'{part}' lists {len(twice)} images more than once: {_some(twice)}")
    return found


def _bad_values(lists: Mapping[str, Sequence[Any]], classes: Mapping[tuple[Any, Any], None]) -> Iterator[str]:
    """Yield labels that are no whole numbers, and names that are empty."""
    for label, name in classes:
        if isinstance(label, bool) or not isinstance(label, Integral):
            yield f"label {label!r} of {name!r} is no whole number ({_place(lists, label, name)})"
        if not isinstance(name, str) or not name.replace("_", " ").strip():
            yield f"class {label} has no name ({_place(lists, label, name)})"


def _bad_labels(lists: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Yield labels that do not count the training classes from 0, and classes without training images."""
    training = next(part for part in ("train", "test", "val") if part in lists)
    found = {part: {row.label: None for row in rows} for part, rows in lists.items()}
    labels = set(found[training])
    outside = [label for label in sorted(labels, key=str) if label not in range(len(labels))]
    if outside:
        names = f"{len(labels)} classes have the labels {_some(sorted(labels, key=str))}, not 0 to {len(labels) - 1}"
        yield f"the {names} (label {outside[0]}: {_place(lists, outside[0])})"
    for part, rows in lists.items():
        foreign = [label for label in found[part] if label not in labels]
        if foreign:
            yield (
                f"'{part}' has {len(foreign)} labels without an image in '{training}': {_some(foreign)} "
                f"({_place({part: rows}, foreign[0])})"
            )


def _bad_pairs(
    lists: Mapping[str, Sequence[Any]], classes: Mapping[tuple[Any, Any], None], same_names: Sequence[str]
) -> Iterator[str]:
    """Yield labels with several names, and names with several labels."""
    names: dict[Any, list] = {}
    labels: dict[Any, list] = {}
    for label, name in classes:
        names.setdefault(label, []).append(name)
        labels.setdefault(name, []).append(label)
    several = [label for label, found in names.items() if len(found) > 1]
    if several:
        said = [
            " and ".join(f"{name!r} ({_place(lists, label, name)})" for name in names[label][:2])
            for label in several[:SHOWN]
        ]
        yield f"{len(several)} labels have several names: " + ", ".join(
            f"{label} is {words}" for label, words in zip(several, said)
        )
    shared = [name for name, found in labels.items() if len(found) > 1 and name not in same_names]
    if shared:
        said = [
            " and ".join(f"{label} ({_place(lists, label, name)})" for label in labels[name][:2])
            for name in shared[:SHOWN]
        ]
        yield f"{len(shared)} names have several labels: " + ", ".join(
            f"{name!r} is {words}" for name, words in zip(shared, said)
        )


def _bad_paths(lists: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Yield images under two labels, and images in two parts."""
    rows = [row for part in lists.values() for row in part]
    every = {row.impath for row in rows}
    if len(every) == len(rows):
        return
    paths = {part: {row.impath for row in rows} for part, rows in lists.items()}
    if len({(row.impath, row.label) for row in rows}) > len(every):
        seen: dict[Any, Any] = {}
        double = [row for row in rows if seen.setdefault(row.impath, row).label != row.label]
        first = double[0]
        yield (
            f"{len({row.impath for row in double})} images have two labels: {first.impath} is "
            f"{seen[first.impath].label} ({_place_of(lists, seen[first.impath])}) and {first.label} "
            f"({_place_of(lists, first)})"
        )
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        common = paths.get(one, set()) & paths.get(other, set())
        if common and paths[one] != paths[other]:
            row, twin = (next(row for row in lists[part] if row.impath in common) for part in (one, other))
            twin = next(each for each in lists[other] if each.impath == row.impath)
            yield (
                f"{len(common)} images are in '{one}' and in '{other}': {row.impath} ({_place_of(lists, row)} and "
                f"{_place_of(lists, twin)})"
            )


def _place(lists: Mapping[str, Sequence[Any]], label: Any, *name: Any) -> str:
    """Return part and row of the first image of a label, or of a label and a name."""
    rows = (row for part in lists.values() for row in part)
    return _place_of(lists, next(row for row in rows if row.label == label and (not name or row.classname == name[0])))


def _place_of(lists: Mapping[str, Sequence[Any]], wanted: Any) -> str:
    """Return part and row of an image of the lists."""
    return next(f"'{part}', row {i}" for part, rows in lists.items() for i, row in enumerate(rows, 1) if row is wanted)


def _some(values: Any) -> str:
    """Write the first few values, with the number of the others."""
    texts = [text if len(text := str(value)) <= 60 else f"{text[:57]}..." for value in values]
    return ", ".join(texts[:SHOWN]) + (f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else "")
