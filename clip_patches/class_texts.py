"""From class names to sentences, and from sentences to frozen text features."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from . import text_source
from .anatomy import tokenize
from .encoders import embed_tokens, encode_text
from .loading import CONTEXT, token_ids
from .stock import CLIP

# Used in place of written class descriptions where the user has none.
TEMPLATES = (
    "a photo of a {}.",
    "a picture of the {}.",
    "a close-up of a {}.",
    "a clear image of a {}.",
    "a blurry image of a {}.",
    "a drawing of a {}.",
    "a small {} in a picture.",
    "a large {} in a picture.",
    "this is a {}.",
    "an example of a {}.",
)

ABOUT = "@about"  # key of a note in a file of descriptions: an object, such as the model that wrote it and the date


def readable(classname: str) -> str:
    """Turn a class name of a data set into words."""
    return classname.replace("_", " ")


def fill(template: str, classnames: Sequence[str]) -> list[str]:
    """Fill a template with each class name.

    Raises:
        ValueError: The template does not hold ``{}`` once, or another brace: it is no format string.
    """
    check_template(template)
    return [template.replace("{}", readable(name)) for name in classnames]


def template_sentences(classnames: Sequence[str], templates: Sequence[str] = TEMPLATES) -> list[list[str]]:
    """Write every template for every class; one list a class."""
    return [list(sentences) for sentences in zip(*(fill(template, classnames) for template in templates))]


def literal_sentences(classnames: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """Write every template for every class, names as they are, with their underscores; one list a class.

    Raises:
        ValueError: See :func:`check_template`.
    """
    for template in templates:
        check_template(template)
    return [[template.replace("{}", name) for template in templates] for name in classnames]


def check_template(template: str) -> None:
    """Raise ValueError unless a template holds ``{}`` once and no other brace."""
    if template.count("{}") != 1 or re.search(r"[{}]", template.replace("{}", "")):
        raise ValueError(
            f"the template {template[:200]!r} should hold {{}} once, where the class name goes, and no other brace; "
            "for example 'a photo of a {}, a type of bird.'"
        )


def check_length(sentences: Iterable[str], in_front: int = 0) -> None:
    """Refuse sentences that are too long for a CLIP of OpenAI's.

    Args:
        sentences: As they are tokenised.
        in_front: Tokens that are inserted in front of each.

    Raises:
        ValueError: One has more tokens than CLIP's context.
    """
    for sentence in sentences:
        length = len(token_ids(sentence)) + in_front + 2
        if length > CONTEXT:
            inserted = f" and {in_front} in front" if in_front else ""
            raise ValueError(
                f"{sentence[:200]!r} has {length} tokens with SOS, EOT{inserted}, and CLIP's context is {CONTEXT}; "
                "shorten the class name or the sentence"
            )


def read_descriptions(
    path: str | Path, dataset: str, classnames: Sequence[str], exact: bool = False
) -> list[list[str]]:
    """Read class descriptions from a JSON of the form ``{class name: [sentence, ...]}``.

    Class names are spelled with spaces or with underscores.

    Args:
        path: The file, or a folder of files named ``<data set>_prompt.json``.
        dataset: Name of the data set, to find the file in a folder.
        classnames: Classes in order.
        exact: Also refuse descriptions of other classes.

    Returns:
        The sentences of each class, in the order of ``classnames``.

    Raises:
        FileNotFoundError: No such file or folder, or no file for this data set in the folder.
        ValueError: Not such a JSON, or classes without a description (named, with the closest keys).
    """
    file = text_source.find_file(path, dataset)
    try:
        table = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if not isinstance(table, dict):
        raise ValueError(
            f"{file} must hold {{class name: [sentence, ...]}} with at least one sentence a class, "
            f"not a {type(table).__name__}"
        )
    if isinstance(table.get(ABOUT), dict):
        del table[ABOUT]
    bad = [f"{name!r} ({_fault(value)})" for name, value in table.items() if _fault(value)]
    if bad:
        raise ValueError(
            f"{file} must hold {{class name: [sentence, ...]}} with at least one sentence a class; "
            f"wrong are {_first(bad)}"
        )
    table = _by_class(table, names := [_key(name) for name in classnames])
    missing = [name for name in names if name not in table]
    if missing:
        raise ValueError(
            f"{file} has no description for {len(missing)} of {len(names)} classes: {_with_closest(missing, table)}. "
            f"Templates for these alone are no way out: add sentences, or set DESCRIPTIONS {text_source.TEMPLATES}"
        )
    unknown = [name for name in table if name not in names]
    if exact and unknown:
        raise ValueError(
            f"{file} describes {len(unknown)} that are no class of the data: {_with_closest(unknown, names)}. "
            "Take them out, or mend their names"
        )
    return [table[name] for name in names]


@torch.no_grad()
def sentence_features(clip: CLIP, sentences: Sequence[Sequence[str]], batch: int = 256) -> tuple[Tensor, ...]:
    """Encode each class's sentences with the frozen text tower.

    Args:
        clip: Stock CLIP.
        sentences: One list of sentences a class.
        batch: Sentences encoded at a time.

    Returns:
        One tensor a class, (sentences, d), not normalised.
    """
    flat = [s for group in sentences for s in group]
    tokens = tokenize(clip, flat)
    features = torch.cat([encode_text(clip, embed_tokens(clip, t)) for t in tokens.split(batch)])
    return features.split([len(group) for group in sentences])


@torch.no_grad()
def text_features(clip: CLIP, sentences: Sequence[Sequence[str]], batch: int = 256) -> Tensor:
    """Average the frozen text features of each class's sentences; arguments as for :func:`sentence_features`.

    Returns:
        Means of the *un-normalised* features, (C, d); normalise them before use as targets.
    """
    return torch.stack([group.mean(dim=0) for group in sentence_features(clip, sentences, batch)])


@torch.no_grad()
def class_anchors(clip: CLIP, sentences: Sequence[Sequence[str]]) -> Tensor:
    """Return the unit-length frozen text features of the classes, fp32, (C, d)."""
    return F.normalize(text_features(clip, sentences).float(), dim=-1)


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", " ".join(readable(name).split()))


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return a JSON object's pairs as a dict; a class that is there twice is refused."""
    spelled: dict[str, tuple[str, int]] = {}
    for number, (name, _) in enumerate(pairs, 1):
        other, first = spelled.setdefault(_key(name), (name, number))
        if first != number:
            raise ValueError(
                f"one class is described twice, as entry {first} {other!r} and as entry {number} {name!r}; keep one"
            )
    return dict(pairs)


def _by_class(table: dict[str, list[str]], names: Sequence[str]) -> dict[str, list[str]]:
    """Return a table by the classes' own spelling, where its keys differ from them only in capitals."""
    table = {_key(name): sentences for name, sentences in table.items()}
    free: dict[str, list[str]] = {}
    for key in table:
        if key not in names:
            free.setdefault(key.casefold(), []).append(key)
    for name in names:
        same = free.get(name.casefold(), [])
        if name not in table and len(same) == 1:
            table[name] = table.pop(free.pop(name.casefold())[0])
    return table


def _fault(value: object) -> str:
    """Describe why a class's description cannot be used; empty if it can."""
    if not isinstance(value, list):
        return f"not a list but a {type(value).__name__}"
    if not value:
        return "an empty list"
    return "" if all(isinstance(s, str) and s.strip() for s in value) else "not all of it sentences"


def _with_closest(names: Iterable[str], known: Iterable[str]) -> str:
    """List names, each with the closest known ones."""
    known, listed = list(known), []
    for name in names:
        closest = ", ".join(difflib.get_close_matches(name, known, 2, 0.3))
        listed.append(f"{name!r} (closest: {closest or 'none'})")
    return _first(listed, "; ")


def _first(words: Sequence[str], separator: str = ", ") -> str:
    return separator.join(words[:10]) + (" ..." if len(words) > 10 else "")
