"""`clusterprompt ablation`: its variants are settings that exist, its table shows what the runs' records have."""

import csv
import re

import pytest
from stand_ins import read

from clusterprompt.commands import ablation


def test_variants_are_settings():
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


def test_table(calls, output, capsys, monkeypatch):
    """Catches: a wrong mean, a run counted for another variant, finished runs done again, files that differ from the
    print.
    """
    import stand_ins

    usage = {"pool_size": 8, "used": [8, 4], "dead": [0, 4], "top_share": [0.25, 0.5]}

    def leave(engine, job, overwrite, environment, log):
        calls.append(job)
        for spec in job.specs:
            full = "/full/" in spec.folder
            base = {1: 60.0, 2: 80.0}[spec.seed] - (0 if full else 10)
            stand_ins.write_record(spec, base, extra={"retrieval": {"train": usage}} if full else {})
        return 0

    from clusterprompt.running.engine import LocalEngine

    monkeypatch.setattr(LocalEngine, "call", leave)
    words = ["AttriPrompt", "shapes", "--seeds", "1", "2", "--only", "full", "without retrieval"]
    assert ablation.main(words) == 0 and len(calls) == 4
    printed, path = capsys.readouterr().out, output / "ablation" / "AttriPrompt_shapes"
    text = path.with_suffix(".txt").read_text()
    assert text in printed
    full, without = (line for line in text.splitlines() if line.startswith(("full", "without")))
    assert re.split(r"  +", full) == [
        "full",
        "70.0 +- 10.0",
        "70.0 +- 10.0",
        "70.0 +- 10.0",
        "+0.0",
        "75%",
        "50%",
        "18",
    ]
    assert re.split(r"  +", without)[3:7] == ["60.0 +- 10.0", "-10.0", "-", "-"]
    rows = list(csv.DictReader(open(path.with_suffix(".csv"))))
    assert [(row["variant"], float(row["HM_mean"]), float(row["to_full"])) for row in rows] == [
        ("full", 70.0, 0.0),
        ("without retrieval", 60.0, -10.0),
    ]
    assert read(path.with_suffix(".json"))["changes"]["without retrieval"] == {"RETRIEVAL": False}
    assert ablation.main(words) == 0 and len(calls) == 4


def test_several_data_sets(calls, output, capsys):
    """Catches: one table for several data sets, no average of them, or an average of the wrong column."""
    calls.accuracy = lambda spec, number: 60.0 - 20 * number + 20 * (spec.leg.dataset == "shapes_counts")
    words = ["AttriPrompt", "shapes", "shapes_counts", "--seeds", "1", "2", "--only", "full"]
    assert ablation.main(words) == 0 and len(calls) == 4
    folder = output / "ablation"
    assert sorted(path.stem for path in folder.glob("*.txt")) == [
        "AttriPrompt_average",
        "AttriPrompt_shapes",
        "AttriPrompt_shapes_counts",
    ]
    (row,) = read(folder / "AttriPrompt_average.json")["table"]
    halves = 2 * 60 * 40 / 100, 2 * 80 * 60 / 140
    assert (row["base_mean"], row["new_mean"]) == (70.0, 50.0)
    assert row["mean of HMs_mean"] == pytest.approx(sum(halves) / 2) and row["HM_mean"] == pytest.approx(7000 / 120)


@pytest.mark.parametrize(
    "argv, message",
    [
        (["CoOp", "shapes"], "invalid choice: 'CoOp'"),
        (["TAC", "shapez"], "no data set 'shapez'; there are .*shapes"),
        (["TAC", "shapes", "--only", "without masks"], "TAC has no variant 'without masks'; there are full"),
    ],
)
def test_bad_arguments(calls, argv, message, capsys):
    """Catches: a traceback, or an hour of runs, for a slip of the pen."""
    try:
        code = ablation.main(argv)
    except SystemExit as stop:
        code = stop.code
    assert code == 2 and re.search(message, capsys.readouterr().err) and not calls


def test_bad_environment(calls, monkeypatch, capsys):
    """Catches: a traceback for EPOCHS=two."""
    monkeypatch.setenv("EPOCHS", "two")
    assert ablation.main(["TAC", "shapes"]) == 2
    assert "EPOCHS is 'two'" in capsys.readouterr().err


def test_failing_run_is_shown(calls, capsys):
    """Catches: a table of what is left, or silence, when a run fails."""
    calls.broken = "TAC"
    assert ablation.main(["TAC", "shapes", "--seeds", "1", "--only", "full"]) == 1
    assert "TAC full, seed 1: ValueError: no such thing\n" in capsys.readouterr().err
