"""The comparison of all methods: what it runs, keeps, shows and writes.

The runs themselves are stood in for, as in the tests of the demo.
"""

import csv
import importlib
import json
from pathlib import Path

import pytest

from clusterprompt.registration import own_trainers

HM = {"TAC": 70.0, "MaPLe": 65.0}  # the others get 50


@pytest.fixture
def compare(monkeypatch, tmp_path):
    """The script as a module, with results below the test's folder and without data to draw."""
    monkeypatch.setenv("OUTPUT", str(tmp_path))
    for name in ("SHOTS", "CFG", "BACKBONE", "EPOCHS"):
        monkeypatch.delenv(name, raising=False)
    module = importlib.import_module("clusterprompt.commands.compare")
    monkeypatch.setattr("clusterprompt.running.runner.draw_data", lambda names: None)
    return module


@pytest.fixture
def runs(compare, monkeypatch):
    """(Command line, EPOCHS) of all runs; each leaves a finished record of both halves."""
    from clusterprompt.running import comparison

    made = []

    def run(self, command, env, log):
        made.append((command, env["EPOCHS"]))
        value = dict(zip(command[2::2], command[3::2]))
        accuracy = HM.get(value["--trainer"], 50.0)
        for folder in comparison.folders(value["--trainer"], value["--dataset"], int(value["--seed"]), env):
            Path(folder).mkdir(parents=True, exist_ok=True)
            record = {
                "status": "finished",
                "accuracy": accuracy,
                "seconds": {"train": 8.0, "test": 1.0},
                "seconds_per_epoch": 1.5,
            }
            record.update(peak_memory_mb=700.0, learned_parameters=12345, fewshot_digest="0")
            (Path(folder) / "result.json").write_text(json.dumps(record))
        return 0

    monkeypatch.setattr("clusterprompt.running.runner.Runner.call", run)
    return made


def test_all_methods(compare, runs, capsys, tmp_path):
    """Catches: a registered method left out, a table in another order, the best not marked, a file not written."""
    compare.main(["shapes"])
    names = [cls.__name__ for cls in own_trainers()]
    assert len(runs) == 3 * len(names) and {command[3] for command, _ in runs} == set(names)
    said = capsys.readouterr().out
    lines = said[said.index("\ntrainer ") :].splitlines()[3:]
    assert [line.split()[0] for line in lines[:2]] == ["TAC", "MaPLe"]
    assert lines[0].split() == [
        "TAC",
        "70.0",
        "+-",
        "0.0",
        "70.0",
        "+-",
        "0.0",
        "70.0",
        "+-",
        "0.0",
        "12,345",
        "1.5",
        "700",
    ]
    markdown = (tmp_path / "compare" / "table_shapes.md").read_text()
    assert "**70.0 +- 0.0**" in markdown and "**65.0" not in markdown and "no published ones" in markdown
    table = list(csv.DictReader((tmp_path / "compare" / "table_shapes.csv").open()))
    assert len(table) == len(names) and table[0]["HM_mean"] == "70.0" and table[0]["seconds_per_epoch"] == "1.5"
    written = json.loads((tmp_path / "compare" / "table_shapes.json").read_text())
    assert len(written["runs"]) == 3 * len(names) and written["methods"]["MaPLe"]["epochs"] == 5


def test_settings(compare, runs, monkeypatch):
    """Catches: PREC given to a node that the method does not have, other epochs than documented, yaml's epochs lost on
    real data.
    """
    compare.main(["shapes", "--methods", "KgCoOp", "PromptSRC", "--seeds", "1"])
    (kgcoop, epochs), (promptsrc, _) = sorted(runs, key=lambda run: run[0][3])
    assert kgcoop[-2:] == ["TRAINER.COOP.PREC", "fp32"] and epochs == "20"
    assert promptsrc[-4:] == ["TRAINER.PROMPTSRC.GPA_MEAN", "4", "TRAINER.PROMPTSRC.PREC", "fp32"]
    compare.main(["caltech101", "--methods", "CoOp", "--seeds", "1"])
    assert runs[-1][1] == "" and "TRAINER.COOP.PREC" not in runs[-1][0]
    monkeypatch.setenv("EPOCHS", "2")
    compare.main(["caltech101", "--methods", "CoOp", "--seeds", "2"])
    assert runs[-1][1] == "2"


def test_finished_runs_are_kept(compare, runs, capsys):
    """Catches: an interrupted comparison that starts anew, or takes up a run it did not finish without --resume."""
    compare.main(["shapes", "--methods", "CoOp", "--seeds", "1", "2"])
    capsys.readouterr()
    compare.main(["shapes", "--methods", "CoOp", "TAC", "--seeds", "1", "2"])
    assert "2 of 4 runs are finished already" in capsys.readouterr().out
    assert [command[3] for command, _ in runs] == ["CoOp", "CoOp", "TAC", "TAC"] and all(
        "--resume" in command for command, _ in runs
    )


def test_interrupt(compare, runs, monkeypatch, capsys):
    """Catches: Ctrl-C that ends in a traceback, that loses what is finished, or after which the rest still runs."""
    from clusterprompt.running import runner

    monkeypatch.setattr(runner, "MOST_JOBS", 1)
    finish = runner.Runner.call

    def interrupted(*args):
        if len(runs) == 2:
            raise KeyboardInterrupt
        return finish(*args)

    monkeypatch.setattr(runner.Runner, "call", interrupted)
    with pytest.raises(SystemExit) as stop:
        compare.main(["shapes", "--methods", "CoOp", "TAC"])
    assert stop.value.code == 130 and "goes on from here" in capsys.readouterr().err and len(runs) == 2
    monkeypatch.setattr(runner.Runner, "call", finish)
    compare.main(["shapes", "--methods", "CoOp", "TAC"])
    assert "2 of 6 runs are finished already" in capsys.readouterr().out and len(runs) == 6


@pytest.mark.parametrize(
    "words, message",
    [(["shape"], "no data set 'shape'; there are"), (["shapes", "--methods", "Coop"], "no method 'Coop'")],
)
def test_what_does_not_exist(compare, words, message, capsys):
    """Catches: minutes of work before a misspelt name is noticed."""
    with pytest.raises(SystemExit) as stop:
        compare.main(words)
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["SHOTS", "EPOCHS"])
def test_bad_environment(compare, monkeypatch, capsys, name):
    """Catches: a traceback for SHOTS=two."""
    monkeypatch.setenv(name, "two")
    with pytest.raises(SystemExit) as stop:
        compare.main(["shapes"])
    assert stop.value.code == 2 and f"{name} is 'two'" in capsys.readouterr().err


def test_best_is_bold(compare):
    """Catches: a tie of which one is marked, or a best value of one column marked in another."""
    row = {"parameters": 1, "s/epoch": 1.0, "peak MB": 1.0}
    rows = [
        {**row, "trainer": "A", "base": (60.0, 1.0), "new": (40.0, 0.0), "HM": (48.0, 0.0)},
        {**row, "trainer": "B", "base": (60.0, 0.0), "new": (50.0, 0.0), "HM": (54.5, 0.0)},
    ]
    lines = compare.table(rows, "<{}>", "plain").splitlines()[1:]
    assert [line.count("<") for line in lines] == [1, 3]
