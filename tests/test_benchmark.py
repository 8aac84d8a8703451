"""The benchmark: its paths, the shares of a step, the growth of its cost."""

import sys
from pathlib import Path

import pytest
import torch

from clusterprompt.clip_patches import encoders, plain

SCRIPTS = Path(__file__).parents[1] / "scripts"
SMALL = ("--geometry", "small", "--classes", "6", "--batch", "2", "--repeats", "1", "--threads", "1")


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import benchmark

    yield benchmark
    for name in [name for name in sys.modules if name.split(".")[0] in ("benchmark", "measuring")]:
        del sys.modules[name]


@pytest.fixture
def shares(benchmark):
    from measuring import shares

    return shares


class Products:
    """A step of two matrix products of known cost: one inside the text tower's function, one outside."""

    def __init__(self, monkeypatch, inside: int, outside: int):
        self.x = torch.randn(outside, outside, requires_grad=True)
        self.text = torch.randn(inside, inside, requires_grad=True)
        monkeypatch.setattr(encoders, "encode_text", lambda x: x @ x)

    def __call__(self, keep):
        (encoders.encode_text(self.text).sum() + (self.x @ self.x).sum()).backward()


def test_backward_pass_belongs_to_its_tower(shares, monkeypatch):
    """Catches: a backward pass, two thirds of the time here, that counts as outside, or all as inside."""
    mostly, _ = shares.shares(Products(monkeypatch, inside=600, outside=60))
    assert mostly["text"] > 0.8 and mostly["linear"] > 0.7 and mostly["vision"] == 0
    assert shares.shares(Products(monkeypatch, inside=60, outside=600))[0]["outside"] > 0.8


@pytest.mark.slow
def test_shares_add_up(benchmark, shares, capsys):
    """Catches: time that no place or no kind of work has, or that two have."""
    from measuring.cases import Step
    from measuring.made_up import build

    args = benchmark.arguments_of(benchmark.parse_args(SMALL), "TAC")
    found, _ = shares.shares(Step(build(args, 6, 2), args, 2))
    assert sum(found[name] for name in ("vision", "text", "outside")) == pytest.approx(1)
    assert sum(found[name] for name in (*shares.KINDS, "other", "outside")) == pytest.approx(1)
    assert min(found[name] for name in ("vision", "text", "linear", "attention", "elementwise")) > 0.005


@pytest.mark.slow
def test_both_paths_agree(benchmark, capsys):
    """Catches: a benchmark that no longer runs, or whose two paths compute different things."""
    benchmark.main([*SMALL, "--trainer", "TAC"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(("step", "test"))]
    assert [row[0] for row in rows] == ["step", "test"]
    assert all(float(row[-2]) < 1e-4 for row in rows)


@pytest.mark.slow
def test_fast_only(benchmark, monkeypatch, capsys):
    """Catches: a plain path that runs where it was to be left out, for which the memory does not suffice."""

    def refuse(*_, **__):
        raise AssertionError("the plain path ran")

    monkeypatch.setattr(plain, "encode_text", refuse)
    benchmark.main([*SMALL, "--trainer", "TAC", "--what", "step", "--micro-batch", "2", "--fast-only"])
    assert "plain s" not in capsys.readouterr().out


@pytest.mark.slow
def test_growth(benchmark, monkeypatch, tmp_path, capsys):
    """Catches: sizes that do not reach the trainer, a plain path beyond its limit, a picture without its lines."""
    pytest.importorskip("matplotlib")
    from measuring import growth

    monkeypatch.setattr(growth, "AXES", {"classes": (6, 9, 20), "layers": (1, 4)})
    args = benchmark.parse_args([*SMALL, "--scaling", "layers", "--plain-chunk", "6"])
    rows = [row for axis in growth.AXES for row in growth.grow(benchmark.arguments_of(args, "TAC"), axis)]
    by_size = {(row["axis"], row["size"]): row for row in rows}
    assert [by_size["classes", size].get("plain mb", "none") is None for size in (6, 9, 20)] == [False, True, False]
    assert "plain cpu" not in by_size["classes", 20]
    assert by_size["layers", 4]["plain mb"] > 1.5 * by_size["layers", 1]["plain mb"]
    growth.draw(rows, "TAC", tmp_path / "growth.svg")
    picture = (tmp_path / "growth.svg").read_text()
    assert picture.count(growth.COLOURS["fast"]) > picture.count(growth.COLOURS["plain"]) > 0
    assert ">layers<" in picture and ">classes<" in picture
