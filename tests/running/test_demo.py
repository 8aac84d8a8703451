"""`clusterprompt demo`: what it runs, keeps, shows and writes. The runs themselves are stood in for."""

import csv

import pytest
from stand_ins import read, write_training

from clusterprompt.commands import demo


@pytest.fixture
def calls(calls, monkeypatch):
    """Runs with base 60, 61, 62 and new 40, 41, 42 for seeds 1, 2, 3."""
    for name in ("SHOTS", "CFG", "BACKBONE", "EPOCHS"):  # not the demo's business
        monkeypatch.setenv(name, "3")
    calls.accuracy = lambda spec, number: 59.0 + spec.seed - 20 * number
    return calls


def test_table(calls, capsys, output):
    """Catches: a method or seed left out, wrong means, no CSV or JSON, numbers shown without saying what they are of,
    settings that a shell has for something else.
    """
    assert demo.main([]) == 0
    assert len(calls) == len(demo.METHODS) * 3 == 12
    for call in calls:
        assert call.environment["OMP_NUM_THREADS"] == "1" and call.job.specs[0].backbone == "tiny"
        assert call.pairs["DATASET.NUM_SHOTS"] == "16" and call.job.specs[0].cfg == "basetonovel"
    assert {call.pairs.get("OPTIM.MAX_EPOCH") for call in calls} == {None, "50", "10", "8"}
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if line.startswith("TAC "))
    assert row.split() == ["TAC", "61.0", "+-", "0.8", "41.0", "+-", "0.8", "49.0", "+-", "0.8", "18", "700"]
    assert "small drawn world" in said
    table = list(csv.DictReader((output / "demo" / "table.csv").open()))
    assert {line["trainer"] for line in table} == {"ZeroshotCLIP", "CoOp", "TAC", "AttriPrompt"}
    written = read(output / "demo" / "table.json")
    assert len(written["runs"]) == 12
    assert next(row for row in written["table"] if row["trainer"] == "TAC")["base_mean"] == 61.0


def test_hm_is_that_of_the_means(calls, capsys):
    """Catches: the mean of the seeds' HMs, 54.5, under the name that the papers give to the HM of the means, 55.0."""
    calls.accuracy = lambda spec, number: {1: (50.0, 60.0), 2: (60.0, 50.0)}[spec.seed][number]
    demo.main(["--seeds", "1", "2"])
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("TAC "))
    assert row.split()[7] == "55.0"


def test_finished_runs_are_kept(calls, capsys):
    """Catches: minutes of work repeated, or other numbers the second time; --overwrite that runs nothing."""
    demo.main([])
    first = capsys.readouterr().out
    demo.main([])
    second = capsys.readouterr().out
    assert len(calls) == 12 and "12 of 12 runs are finished already" in second
    assert first[first.index("trainer  ") :] == second[second.index("trainer  ") :]
    demo.main(["--fresh"])
    assert len(calls) == 24 and all(call.overwrite for call in calls[12:])


def test_an_interrupted_demo_goes_on(calls):
    """Catches: a half-finished demo that starts again, or refuses its own unfinished run."""
    demo.main([])
    job = next(call.job for call in calls if (call.job.specs[0].trainer, call.job.specs[0].seed) == ("CoOp", 2))
    write_training(job.specs[0])
    demo.main([])
    (again,) = calls[12:]
    assert again.job == job and not again.overwrite


def test_a_short_demo(calls):
    """Catches: --epochs and --shots without effect."""
    demo.main(["--epochs", "1", "--shots", "2", "--seeds", "1"])
    assert len(calls) == 4 and {call.pairs["OPTIM.MAX_EPOCH"] for call in calls} == {"1"}
    assert {call.pairs["DATASET.NUM_SHOTS"] for call in calls} == {"2"}


def test_a_failed_run_is_shown(calls, capsys):
    """Catches: a demo that hides why it failed, or prints a table of half the runs."""
    calls.broken = "TAC"
    assert demo.main([]) == 1
    shown = capsys.readouterr()
    assert "ValueError: no such thing" in shown.err and "peak MB" not in shown.out
