"""Let a language model write the descriptions of own classes, and keep only sentences that a run can use."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .. import __version__
from ..clip_patches.class_texts import ABOUT, check_length, read_descriptions, readable
from ..datasets.own_images import names_in
from ..record.files import write_text
from ..record.json_files import read_json
from ..record.names import printable
from .language_model import LanguageModel

PROMPT = (
    "Write {n} different sentences that describe what {class} looks like in a photo: shape, colours, parts, texture, "
    'surroundings. Use the words "{class}" in every sentence. Write one sentence a line, of at most 30 words, without '
    "numbers in front and without any other text."
)
ROUNDS = 4  # answers for a class before it is given up
MARKS = re.compile(r"^\s*(?:[-*\u2022\u2013]|\(?\d{1,3}[.):])\s+")  # of lists


def write_descriptions(
    classes_file: Path, target: Path, model: LanguageModel, *, prompt: str = PROMPT, sentences: int = 10
) -> int:
    """Write descriptions of classes, the same number of sentences for each.

    What is finished is kept in ``<target>.part``, with which the next call goes on.

    Args:
        classes_file: A text file, one class a line, see docs/own_images.md.
        target: The JSON file to write.
        model: Writes the sentences.
        prompt: With ``{class}`` for the class name and ``{n}`` for the number of sentences.
        sentences: Sentences a class.

    Returns:
        Number of classes.

    Raises:
        ValueError: A class without enough usable sentences, a bad prompt, or a part of another prompt or model.
        OSError: The model does not answer.
    """
    if "{class}" not in prompt:
        raise ValueError("the prompt must hold {class}, where the class name goes; {n} is the number of sentences")
    names = names_in(classes_file)
    about = {"model": model.name, "prompt": prompt, "sentences": sentences}
    part = target.with_name(target.name + ".part")
    table = _read_part(part, about, names)
    for number, name in enumerate(names, 1):
        if name in table:
            continue
        table[name] = describe(model, name, prompt, sentences)
        today = datetime.now(timezone.utc).date().isoformat()
        table[ABOUT] = {**about, "date": today, "written_by": f"clusterprompt {__version__}"}
        _write(part, table, names)
        print(f"{number} of {len(names)}: {printable(name)}", flush=True)
    read_descriptions(part, "", names, exact=True)  # by the reader of every run
    os.replace(part, target)
    return len(names)


def describe(model: LanguageModel, name: str, prompt: str, count: int) -> list[str]:
    """Return ``count`` sentences about a class; the model is asked again for those that cannot be used.

    Raises:
        ValueError: It gives too few.
    """
    words = " ".join(readable(name).split())
    found: dict[str, str] = {}
    dropped: dict[str, str] = {}
    for _ in range(ROUNDS):
        answer = model.answer(prompt.replace("{class}", words).replace("{n}", str(count)))
        for line in answer.splitlines():
            sentence = _clean(line)
            fault = _fault(sentence, words)
            if fault:
                dropped[sentence] = fault
            elif sentence:
                found.setdefault(sentence.casefold(), sentence)
        if len(found) >= count:
            return list(found.values())[:count]
    example = next((f"; dropped, for example: {text[:100]!r} ({why})" for text, why in dropped.items()), "")
    raise ValueError(
        f"{model.name} gave {len(found)} of {count} usable sentences for the class {name!r} in {ROUNDS} answers"
        f"{example}. Lower --sentences, or change --prompt or the model; the classes before it are kept"
    )


def _clean(line: str) -> str:
    """Return a line of an answer without the marks of a list, bold type, quotes and control characters."""
    line = MARKS.sub("", " ".join("".join(c if c.isprintable() else " " for c in line.replace("**", "")).split()))
    return line.strip("\"'*\u201c\u201d ")


def _fault(sentence: str, words: str) -> str:
    """Say why a sentence cannot describe a class; empty if it can, or is none."""
    if not sentence:
        return ""
    if sentence.endswith(":"):
        return "a heading"
    if words.casefold() not in sentence.casefold():
        return "it does not name the class"
    try:
        check_length([sentence])
    except ValueError:
        return "too long for CLIP"
    return ""


def _read_part(part: Path, about: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return what an earlier call has finished.

    Raises:
        ValueError: It is of another model, prompt or number of sentences, or damaged.
    """
    if not part.is_file():
        return {}
    try:
        table = read_json(part)
        same = all(table[ABOUT].get(key) == value for key, value in about.items())
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{part} is damaged ({error}); remove it to begin again") from error
    if not same:
        raise ValueError(f"{part} was begun with another model, prompt or --sentences; go on with these, or remove it")
    return {name: value for name, value in table.items() if name in (*names, ABOUT)}


def _write(path: Path, table: dict[str, Any], names: Sequence[str]) -> None:
    """Write the file in the order of the classes, the note first."""
    ordered = {key: table[key] for key in (ABOUT, *names) if key in table}
    write_text(path, json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")
