"""Trainers stay small, and do not repeat each other."""

import io
import itertools
import keyword
import tokenize
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent.parent / "trainers"
FILES = sorted(path for path in FOLDER.glob("*.py") if path.name != "__init__.py")
LINES, RUN = 150, 6


def shapes(source):
    """The code of a file line by line, with every name, string and number replaced: docstrings, comments and imports do
    not count.
    """
    lines, importing = {}, False
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind, text = tokenize.tok_name[token.type], token.string
        if kind == "NEWLINE":
            importing = False
        elif kind == "NAME" and text in ("import", "from") and token.start[0] not in lines:
            importing = True
        elif not importing and kind in ("NAME", "STRING", "FSTRING_START", "NUMBER", "OP"):
            shape = {"NAME": text if keyword.iskeyword(text) else "n", "OP": text, "NUMBER": "0"}.get(kind, "s")
            lines.setdefault(token.start[0], []).append(shape)
    return [" ".join(line) for line in lines.values() if line != ["s"]]


def longest_common_run(a, b):
    """Most lines in a row that two lists share."""
    best, previous = 0, [0] * (len(b) + 1)
    for line in a:
        current = [0]
        for j, other in enumerate(b):
            current.append(previous[j] + 1 if line == other else 0)
        best, previous = max(best, *current), current
    return best


@pytest.mark.parametrize("path", [path for path in FILES if path.name != "base.py"], ids=lambda path: path.stem)
def test_small(path):
    """Catches: a method that grew beyond what is read in one go, or that does what the base should."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES


@pytest.mark.parametrize("one, other", list(itertools.combinations(FILES, 2)), ids=lambda path: path.stem)
def test_no_two_alike(one, other):
    """Catches: a trainer made by copying another one."""
    found = longest_common_run(shapes(one.read_text(encoding="utf-8")), shapes(other.read_text(encoding="utf-8")))
    assert found < RUN, (
        f"{found} lines in a row of {one.name} and {other.name} differ by names only; let one piece of code serve both"
    )


def test_a_copy_is_found():
    """Catches: a comparison that renamed variables, other numbers or comments would fool."""
    code = "import a\ndef f(x):\n    '''Text.'''\n    y = x + 1\n    z = g(y, 'k')\n    for i in z:\n        h(i)\n    return [\n        z,\n    ]\n"
    copy = (
        code.replace("x", "width")
        .replace("1", "27")
        .replace("'k'", "'key'")
        .replace("import a\n", "# comment\n")
        .replace("h(i)", "h(i)  # why")
    )
    assert longest_common_run(shapes(code), ["n ( )", *shapes(copy)]) == 8
    assert longest_common_run(shapes(code), shapes(code.replace("+", "-"))) == 6
