"""docs/methods.md: every method has its row and its paragraph, and the row says what the class says."""

import re
from pathlib import Path

import pytest

from clusterprompt.registration import own_trainers
from clusterprompt.results.run import METHODS

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")


def table(mark):
    """Return the cells of each row, but for the first, which is the key."""
    lines = re.search(rf"<!-- {mark}: scripts/method_table.py -->\n(.*?)<!-- end -->", PAGE, re.DOTALL)[1].splitlines()
    cells = [[cell.strip("` ") for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(cells[0][1:], row[1:])) for row in cells[2:]}


@pytest.mark.parametrize("cls", own_trainers(), ids=lambda cls: cls.__name__)
def test_row_and_paragraph(cls):
    """Catches: a method that the page or the README forgot; a class-bound or transductive one that is not marked."""
    row = table("methods")[cls.__name__]
    always = isinstance(cls.tied_to_classes, str) and cls.tied_to_classes  # CoOp's is a property: with CSC alone
    assert (row["protocols"] != "all") == bool(always)
    assert ("unlabelled" in row["trains on"]) == cls.transductive
    assert re.search(rf"^`{cls.__name__}` \(", PAGE, re.MULTILINE)
    assert f"`{cls.__name__}`" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_costs():
    """Catches: a method whose saving was never measured, costs more than it saves, or changes the result."""
    costs = table("costs")
    assert {title.split(",")[0] for title in costs} == {cls.__name__ for cls in own_trainers()}
    for title, cost in costs.items():
        for what in ("step", "test"):
            if cost[f"{what} s"] != "-":
                assert float(cost[f"{what} ratio"]) > 1, (title, what)
            if cost[f"{what} diff"] != "-":
                assert float(cost[f"{what} diff"]) < 1e-4, (title, what)


def test_order_and_colours():
    """Catches: a method without a place in the tables, two methods that look alike in a chart."""
    assert sorted(METHODS) == sorted(cls.__name__ for cls in own_trainers())
    drawing = pytest.importorskip("clusterprompt.results.drawing", exc_type=ImportError)
    assert len(METHODS) == len(drawing.COLOURS) == len(drawing.MARKERS) == len(set(drawing.COLOURS))
