"""docs/methods.md: every method has its row and its paragraph, and the row says what the class says."""

import re
from pathlib import Path

import pytest

from clusterprompt.registration import own_trainers
from clusterprompt.results.drawing import COLOURS, MARKERS
from clusterprompt.results.run import METHODS

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].strip("` "): [cell.strip() for cell in cells[1:]]
    for cells in (line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| `"))
}


@pytest.mark.parametrize("cls", own_trainers(), ids=lambda cls: cls.__name__)
def test_row_and_paragraph(cls):
    """Catches: a method that the page or the README forgot; a class-bound or transductive one that is not marked."""
    _, _, protocols, data, *_ = ROWS[cls.__name__]
    always = isinstance(cls.tied_to_classes, str) and cls.tied_to_classes  # CoOp's is a property: with CSC alone
    assert (protocols != "all") == bool(always)
    assert ("unlabelled" in data) == cls.transductive
    assert re.search(rf"^`{cls.__name__}` \(", PAGE, re.MULTILINE)
    assert f"`{cls.__name__}`" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_order_and_colours():
    """Catches: a method without a place in the tables, two methods that look alike in a chart."""
    assert sorted(METHODS) == sorted(cls.__name__ for cls in own_trainers())
    assert len(METHODS) == len(COLOURS) == len(MARKERS) == len(set(COLOURS))
