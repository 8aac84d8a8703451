"""The ablation script: its variants are settings that exist, its table says what the runs' records say."""

import csv
import importlib
import json
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def ablation():
    module = importlib.import_module("clusterprompt.commands.ablation")
    return module


def test_variants_are_settings(ablation):
    """Catches: a variant that renames a key, or sets what is the default anyway."""
    from clusterprompt.registration import own_trainers

    options = {cls.__name__: cls.options for cls in own_trainers()}
    for method, variants in ablation.VARIANTS.items():
        assert variants["full"] == {}
        changes = list(variants.values())
        assert all(changes.count(change) == 1 for change in changes)
        for name, change in variants.items():
            for key, value in change.items():
                assert key in options[method] and options[method][key] != value, name
                assert type(value) is type(options[method][key]), name


def fake_run(halves, base, new, retrieval=None):
    for folder, accuracy in zip(halves, (base, new)):
        Path(folder).mkdir(parents=True)
        record = {
            "status": "finished",
            "accuracy": accuracy,
            "seconds": {"train": 2.0, "test": 1.0},
            "peak_memory_mb": 1.0,
        }
        record["fewshot_digest"] = ""
        if retrieval:
            record["retrieval"] = {"train": retrieval}
        Path(folder, "result.json").write_text(json.dumps(record))


def test_table(ablation, tmp_path, monkeypatch, capsys):
    """Catches: a wrong mean, a run counted for another variant, finished runs done again, files that differ from the
    print.
    """
    monkeypatch.setenv("OUTPUT", str(tmp_path))
    monkeypatch.setattr(
        "clusterprompt.running.runner.Runner.call", lambda *args: pytest.fail("a finished run was run again")
    )
    args = ablation.parse_args(["AttriPrompt", "shapes"])
    usage = {"pool_size": 8, "used": [8, 4], "dead": [0, 4], "top_share": [0.25, 0.5]}
    for seed, base in ((1, 60.0), (2, 80.0)):
        fake_run(ablation.comparison(args, "full").places("AttriPrompt", seed), base, base, usage)
        fake_run(ablation.comparison(args, "without retrieval").places("AttriPrompt", seed), base - 10, base - 10)
    rows = ablation.main(["AttriPrompt", "shapes", "--seeds", "1", "2", "--only", "full", "without retrieval"])
    assert [(r["base"], r["base std"], r["HM"], r["to full"], r["seconds"]) for r in rows] == [
        (70, 10, 70, 0, 6),
        (60, 10, 60, -10, 6),
    ]
    assert rows[0]["used"] == 0.75 and rows[0]["top share"] == 0.5 and "used" not in rows[1]
    printed, path = capsys.readouterr().out, tmp_path / "ablation" / "AttriPrompt_shapes"
    assert path.with_suffix(".txt").read_text() in printed and "-10.0" in printed and "75%" in printed
    assert [row["HM"] for row in csv.DictReader(open(path.with_suffix(".csv")))] == ["70.0", "60.0"]
    assert json.loads(path.with_suffix(".json").read_text())["runs"][0] == {
        "variant": "full",
        "seed": 1,
        "base": 60.0,
        "new": 60.0,
        "HM": 60.0,
        "seconds": 6.0,
        "used": 0.75,
        "top share": 0.5,
    }


@pytest.mark.parametrize(
    "argv, message",
    [
        (["CoOp", "shapes"], "invalid choice: 'CoOp'"),
        (["TAC", "shapez"], "no data set 'shapez'; there are .*shapes"),
        (["TAC", "shapes", "--only", "without masks"], "TAC has no variant 'without masks'; there are full"),
    ],
)
def test_bad_arguments(ablation, argv, message, capsys):
    """Catches: a traceback, or an hour of runs, for a slip of the pen."""
    import re

    with pytest.raises(SystemExit) as stop:
        ablation.parse_args(argv)
    assert stop.value.code == 2 and re.search(message, capsys.readouterr().err)


def test_bad_environment(ablation, monkeypatch, capsys):
    """Catches: a traceback for EPOCHS=two."""
    monkeypatch.setenv("EPOCHS", "two")
    with pytest.raises(SystemExit) as stop:
        ablation.parse_args(["TAC", "shapes"])
    assert stop.value.code == 2 and "EPOCHS is 'two'" in capsys.readouterr().err


def test_failing_run_is_shown(ablation, tmp_path, monkeypatch, capsys):
    """Catches: a table of what is left, or silence, when a run fails."""
    monkeypatch.setenv("OUTPUT", str(tmp_path))
    monkeypatch.setattr("clusterprompt.running.runner.draw_data", lambda names: None)
    monkeypatch.setattr(
        "clusterprompt.running.runner.Runner.call",
        lambda self, command, env, log: log.write(b"error: no disk\n") and log.flush() or 2,
    )
    with pytest.raises(SystemExit) as stop:
        ablation.main(["TAC", "shapes", "--seeds", "1", "--only", "full"])
    assert stop.value.code == 1 and "TAC full, seed 1: error: no disk\n" in capsys.readouterr().err
