"""A protocol is one file: a toy one is planned, run and shown without a change elsewhere."""

import sys

import pytest

import clusterprompt.record.protocols
from clusterprompt.commands import run
from clusterprompt.record.protocols import all_protocols

TOY = '''
"""Half to whole: train on the base half, test on all classes."""

from clusterprompt.record.protocols.base import Derived, Leg, Protocol
from clusterprompt.record.statistics import Summary


class HalfToWhole(Protocol):
    """Train on the base half of the classes, test on all of them, with 1 and 2 shots."""

    name = "half_to_whole"
    title = "Half to whole"
    yaml = "basetonovel"
    convention = "gap is the loss from the base half to all classes."
    shots_are_columns = True

    def legs(self, request):
        legs = []
        for shots in (1, 2):
            base = Leg("half/train", request.dataset, "base", shots, f"half, {shots}")
            legs += [base, Leg("half/test", request.dataset, "all", shots, f"whole, {shots}", model=base)]
        return legs

    def source_of(self, run):
        return run.dataset if run.place.startswith("half") else None

    def column(self, dataset, classes, shots):
        return f"{classes} {shots}"

    def derived(self, columns, data):
        def gap(values, interval):
            halves = [values.get("base 2"), values.get("all 2")]
            return Summary(halves[0][1] - halves[1][1]) if all(halves) else None

        return [Derived("gap", gap)]
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "protocols").mkdir()
    (tmp_path / "protocols" / "half_to_whole.py").write_text(TOY)
    package = clusterprompt.record.protocols
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "protocols")])
    yield
    sys.modules.pop("clusterprompt.record.protocols.half_to_whole", None)
    vars(package).pop("half_to_whole", None)


def test_order():
    """Catches: a protocol lost by discovery, or another order than the papers'."""
    assert list(all_protocols()) == ["base2new", "cross_dataset", "domain_generalisation", "few_shot"]


def test_a_new_protocol_is_one_file(toy, calls, output, capsys):
    """Catches: a list of protocols anywhere else: on the command line, in the planner, in the tables."""
    accuracies = {("base", 1): 60.0, ("base", 2): 70.0, ("all", 1): 40.0, ("all", 2): 50.0}
    calls.accuracy = lambda spec, number: accuracies[spec.leg.classes, spec.leg.shots]
    words = ["--protocol", "half_to_whole", "--trainers", "CoOp", "--seeds", "1"]
    assert run.main(words) == 0
    assert {call.job.folders[0].split("/out/")[1] for call in calls} == {
        f"half/{step}/shapes/shots_{shots}/CoOp/basetonovel/seed1" for step in ("train", "test") for shots in (1, 2)
    }
    said = capsys.readouterr().out
    assert "Half to whole" in said
    row = next(line for line in said.splitlines() if line.startswith("CoOp "))
    assert all(f"{value:.1f}" in row for value in (*accuracies.values(), 20.0)), said
