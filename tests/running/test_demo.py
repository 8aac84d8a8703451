"""The demo: what it runs, keeps, shows and writes.

The runs themselves are stood in for; theirs are the tests of base2new and train.
"""

import csv
import importlib
import json
from pathlib import Path

import pytest


@pytest.fixture
def demo(monkeypatch, tmp_path):
    """The demo as a module, with results below the test's folder and without data to draw."""
    monkeypatch.setenv("OUTPUT", str(tmp_path))
    for name in ("SHOTS", "CFG", "BACKBONE"):  # not the demo's business
        monkeypatch.setenv(name, "from another script")
    module = importlib.import_module("clusterprompt.commands.demo")
    monkeypatch.setattr("clusterprompt.running.runner.draw_data", lambda names: None)
    return module


@pytest.fixture
def runs(demo, monkeypatch):
    """The command lines of all runs, by demo or comparison; each run leaves results: base 60, 61, 62 and new 40, 41, 42
    for seeds 1, 2, 3.
    """
    from clusterprompt.running import comparison

    commands = []

    def run(self, command, env, log):
        commands.append(command)
        value = dict(zip(command[2::2], command[3::2]))
        seed = int(value["--seed"])
        folders = comparison.folders(value["--trainer"], value["--dataset"], seed, env)
        for folder, accuracy, seconds in zip(folders, (59.0 + seed, 39.0 + seed), (10.0, 2.0)):
            Path(folder).mkdir(parents=True, exist_ok=True)
            record = {
                "status": "finished",
                "accuracy": accuracy,
                "seconds": {"train": seconds, "test": 1.0},
                "peak_memory_mb": 500.0 + seed,
            }
            (Path(folder) / "result.json").write_text(json.dumps({**record, "fewshot_digest": "0"}))
        assert env["OMP_NUM_THREADS"] == "1" and env["BACKBONE"] == "tiny" and env["SHOTS"] == "16"
        return 0

    monkeypatch.setattr("clusterprompt.running.runner.Runner.call", run)
    return commands


def test_table(demo, runs, capsys, tmp_path):
    """Catches: a method or seed left out, wrong means, an HM of means, no CSV or JSON, numbers shown without saying
    what they are of.
    """
    demo.main([])
    assert len(runs) == len(demo.METHODS) * len(demo.DEMO.seeds) == 12
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if line.startswith("TAC "))
    assert row.split() == ["TAC", "61.0", "+-", "0.8", "41.0", "+-", "0.8", "49.0", "+-", "0.8", "14", "503"]
    assert "small drawn world" in said
    table = list(csv.DictReader((tmp_path / "demo" / "table.csv").open()))
    assert [line["trainer"] for line in table] == ["ZeroshotCLIP", "CoOp", "TAC", "AttriPrompt"]
    written = json.loads((tmp_path / "demo" / "table.json").read_text())
    assert len(written["runs"]) == 12 and written["table"][2]["base_mean"] == 61.0


def test_finished_runs_are_kept(demo, runs, capsys):
    """Catches: minutes of work repeated, or other numbers the second time; --fresh that runs nothing."""
    demo.main([])
    first = capsys.readouterr().out
    demo.main([])
    second = capsys.readouterr().out
    assert len(runs) == 12 and "12 of 12 runs are finished already" in second
    assert first[first.index("trainer  ") :] == second[second.index("trainer  ") :]
    demo.main(["--fresh"])
    assert len(runs) == 24 and all("--overwrite" in command for command in runs[12:])


def test_an_interrupted_demo_goes_on(demo, runs):
    """Catches: a half-finished demo that starts again, or refuses its own unfinished run."""
    demo.main([])
    base, new = demo.DEMO.places("CoOp", 2)
    (Path(base) / "result.json").write_text('{"status": "training"}')
    (Path(new) / "result.json").unlink()
    demo.main([])
    (again,) = runs[12:]
    assert again[3] == "CoOp" and again[7] == "2" and "--resume" in again


def test_a_failed_run_is_shown(demo, monkeypatch, capsys):
    """Catches: a demo that hides why it failed, or prints a table of half the runs."""
    monkeypatch.setattr(
        "clusterprompt.running.runner.Runner.call",
        lambda self, command, env, log: log.write(b"a\nerror: the disk is full\n") and log.flush() or 2,
    )
    with pytest.raises(SystemExit) as stop:
        demo.main([])
    shown = capsys.readouterr()
    assert stop.value.code == 1 and "error: the disk is full" in shown.err and "peak MB" not in shown.out
