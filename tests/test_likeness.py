"""No code is written twice: not word for word in any two places, and not under other names."""

import functools
import io
import keyword
import re
import tokenize
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
CODE = [
    *sorted(
        path
        for folder in ("clip_patches", "clusterprompt", "configs", "datasets", "scripts", "toolbox", "trainers")
        for path in (CHECKOUT / folder).rglob("*.py")
        if "build" not in path.relative_to(CHECKOUT).parts
    ),
    CHECKOUT / "setup.py",
    CHECKOUT / "train.py",
]
TESTS = sorted((CHECKOUT / "tests").rglob("*.py"))
TRAINERS = [path for path in CODE if path.parent == CHECKOUT / "trainers"]
# A field or a plain value: lists of them have one shape whatever they hold.
DECLARATION = re.compile(r"n( : [^(]*)?( = (s|0|n|True|False|None|\( \)|\[ \]))?")

Lines = list[tuple[int, str]]  # line number, normalised text


@functools.cache
def tokens(source: str) -> list[tuple[str, str, int]]:
    """Return kind, text and line of each token of code; imports, comments and docstrings left out."""
    found: list[tuple[str, str, int]] = []
    statement: list[tuple[str, str, int]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        if kind in ("NAME", "STRING", "FSTRING_START", "FSTRING_MIDDLE", "NUMBER", "OP"):
            statement.append((kind, token.string, token.start[0]))
        elif kind == "NEWLINE":
            docstring = [kind for kind, _, _ in statement] == ["STRING"]
            if statement and statement[0][1] not in ("import", "from") and not docstring:
                found += [*statement, ("NEWLINE", "", token.start[0])]
            statement = []
    return found


def lines(source: str) -> Lines:
    """Return the lines of code, with one space between tokens."""
    found: dict[int, list[str]] = {}
    for _, text, line in tokens(source):
        if text:
            found.setdefault(line, []).append(text)
    return [(line, " ".join(words)) for line, words in found.items()]


def shapes(source: str) -> Lines:
    """Return the statements with every name, string and number replaced; declarations left out.

    Statements, not lines, so that a copy that is wrapped elsewhere is one too.
    """
    found: Lines = []
    words: list[str] = []
    for kind, text, line in tokens(source):
        if kind == "NEWLINE":
            if not DECLARATION.fullmatch(" ".join(words)):
                found.append((line, " ".join(words)))
            words = []
        elif kind != "FSTRING_MIDDLE":
            name = text if keyword.iskeyword(text) else "n"
            words.append({"NAME": name, "OP": text, "NUMBER": "0"}.get(kind, "s"))
    return found


def repeated(paths: Iterable[Path], normalise: Callable[[str], Lines], run: int) -> list[str]:
    """Return where ``run`` lines in a row occur a second time: in another file, and word for word also in the same."""
    first: dict[tuple[str, ...], tuple[Path, int, int]] = {}
    found = {}
    for path in paths:
        code = normalise(path.read_text(encoding="utf-8"))
        for start in range(len(code) - run + 1):
            window = tuple(text for _, text in code[start : start + run])
            other, place, line = first.setdefault(window, (path, start, code[start][0]))
            if other != path or (normalise is lines and start >= place + run):
                # of a long repetition, only its beginning
                found.setdefault((other, path, code[start][0] - line), f"{other}:{line} and {path}:{code[start][0]}")
    return [text.replace(f"{CHECKOUT}/", "") for text in found.values()]


@pytest.mark.parametrize("paths", [CODE, TESTS], ids=["code", "tests"])
@pytest.mark.parametrize("normalise", [lines, shapes])
def test_nothing_is_written_twice(paths, normalise):
    """Catches: a function copied into another file, word for word or with its variables renamed."""
    found = repeated(paths, normalise, run=8)
    assert not found, "let one piece of code serve both:\n" + "\n".join(found)


def test_no_trainer_is_a_copy():
    """Catches: a trainer made by copying another one and changing names and numbers."""
    found = repeated(TRAINERS, shapes, run=6)
    assert len(TRAINERS) > 10 and not found, "let one piece of code serve both:\n" + "\n".join(found)


CODE_OF_A_TRAINER = """import a
def f(x):
    '''Text.'''
    y = x + 1
    z = g(y, 'k')
    for i in z:
        h(i)
    return [z]
"""


@pytest.fixture
def places(tmp_path):
    """A function that counts the places repeated in two files with the given code."""

    def count(one, other, normalise, run):
        for name, code in (("one.py", one), ("other.py", other)):
            (tmp_path / name).write_text(code)
        return len(repeated([tmp_path / "one.py", tmp_path / "other.py"], normalise, run))

    return count


def test_a_copy_is_found(places):
    """Catches: a comparison that renamed variables, other numbers, comments or line breaks would fool."""
    one = CODE_OF_A_TRAINER
    copy = one.replace("x", "width").replace("1", "27").replace("'k'", "'key'").replace("import a\n", "# comment\n")
    copy = copy.replace("h(i)", "h(i)  # why").replace("[z]", "[\n        z,\n    ]".replace(",", ""))
    assert places(one, copy, shapes, 6) == 1 and places(one, copy, shapes, 7) == 0
    assert places(one, copy, lines, 3) == 0
    assert places(one, one.replace("+", "-"), shapes, 6) == 0 and places(one, one, lines, 6) == 1


def test_a_repetition_in_one_file_is_found(places):
    """Catches: a function pasted twice into one file, where a comparison of pairs of files does not look."""
    assert places(CODE_OF_A_TRAINER * 2, "", lines, 6) == 1
    assert places("x = 1\n" * 11, "", lines, 6) == 0
