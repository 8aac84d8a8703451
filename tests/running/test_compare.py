"""`clusterprompt compare`: what it runs, keeps, shows and writes. The runs themselves are stood in for."""

import csv

import pytest
from stand_ins import read

from clusterprompt.commands import compare
from clusterprompt.registration import own_trainers
from clusterprompt.running.budget import class_bound

HM = {"TAC": 70.0, "MaPLe": 65.0}  # the others get 50


@pytest.fixture
def calls(calls):
    calls.accuracy = lambda spec, number: HM.get(spec.trainer, 50.0)
    return calls


def trainers(calls):
    return [call.job.specs[0].trainer for call in calls]


def test_all_methods(calls, capsys, output):
    """Catches: a registered method left out, a table in another order, the best not marked, a file not written."""
    assert compare.main(["shapes"]) == 0
    names = [cls.__name__ for cls in own_trainers() if not class_bound(cls)]
    assert len(calls) == 3 * len(names) and set(trainers(calls)) == set(names)
    said = capsys.readouterr().out
    assert "Left out of base2new, as they serve no new classes: TaskRes (each class has a residual of its own)" in said
    lines = said[said.index("\ntrainer ") :].splitlines()[3:]
    assert [line.split()[0] for line in lines[:2]] == ["TAC", "MaPLe"]
    assert lines[0].split() == ["TAC", *["70.0", "+-", "0.0"] * 3, "12,345", "1.5", "700"]
    markdown = (output / "compare" / "table_shapes.md").read_text()
    assert "**70.0 +- 0.0**" in markdown and "**65.0" not in markdown and "no published ones" in markdown
    table = {row["trainer"]: row for row in csv.DictReader((output / "compare" / "table_shapes.csv").open())}
    assert set(table) == set(names)
    assert float(table["TAC"]["HM_mean"]) == 70 and float(table["TAC"]["seconds_per_epoch"]) == 1.5
    written = read(output / "compare" / "table_shapes.json")
    assert len(written["runs"]) == 3 * len(names) and written["methods"]["MaPLe"]["epochs"] == 5


def test_settings(calls, monkeypatch):
    """Catches: PREC given to a node that the method does not have, other epochs than documented, yaml's epochs lost on
    real data.
    """
    compare.main(["shapes", "--methods", "KgCoOp", "PromptSRC", "--seeds", "1"])
    kgcoop, promptsrc = sorted(calls, key=lambda call: call.job.specs[0].trainer)
    assert kgcoop.pairs["TRAINER.COOP.PREC"] == "fp32" and kgcoop.pairs["OPTIM.MAX_EPOCH"] == "20"
    assert promptsrc.pairs["TRAINER.PROMPTSRC.GPA_MEAN"] == "4" and promptsrc.pairs["TRAINER.PROMPTSRC.PREC"] == "fp32"
    compare.main(["caltech101", "--trainers", "CoOp", "--seeds", "1"])
    assert "OPTIM.MAX_EPOCH" not in calls[-1].pairs and "TRAINER.COOP.PREC" not in calls[-1].pairs
    monkeypatch.setenv("EPOCHS", "2")
    compare.main(["caltech101", "--trainers", "CoOp", "--seeds", "2", "OPTIM.LR", "0.5"])
    assert calls[-1].pairs["OPTIM.MAX_EPOCH"] == "2" and calls[-1].pairs["OPTIM.LR"] == "0.5"


def test_finished_runs_are_kept(calls, capsys):
    """Catches: an interrupted comparison that starts again, or takes up a run it did not finish without --resume."""
    compare.main(["shapes", "--trainers", "CoOp", "--seeds", "1", "2"])
    capsys.readouterr()
    compare.main(["shapes", "--trainers", "CoOp", "TAC", "--seeds", "1", "2"])
    assert "2 of 4 runs are finished already" in capsys.readouterr().out
    assert trainers(calls) == ["CoOp", "CoOp", "TAC", "TAC"] and not any(call.overwrite for call in calls)


def test_interrupt(calls, monkeypatch, capsys):
    """Catches: Ctrl-C that ends in a traceback, that loses what is finished, or after which the rest still runs."""
    from clusterprompt.running import machine
    from clusterprompt.running.engine import LocalEngine

    monkeypatch.setattr(machine, "MOST_JOBS", 1)
    finish = LocalEngine.call

    def interrupted(*args):
        if len(calls) == 2:
            raise KeyboardInterrupt
        return finish(*args)

    monkeypatch.setattr(LocalEngine, "call", interrupted)
    assert compare.main(["shapes", "--trainers", "CoOp", "TAC"]) == 130
    assert "goes on from here" in capsys.readouterr().err and len(calls) == 2
    monkeypatch.setattr(LocalEngine, "call", finish)
    compare.main(["shapes", "--trainers", "CoOp", "TAC"])
    assert "2 of 6 runs are finished already" in capsys.readouterr().out and len(calls) == 6


def test_names_of_the_authors_codes():
    """Catches: a method run twice under two names."""
    from clusterprompt.running.budget import chosen_trainers

    assert [cls.__name__ for cls in chosen_trainers(["MultiModalAdapter", "MMA", "CoOp_ATP"])] == ["MMA", "ATPrompt"]


@pytest.mark.parametrize(
    "words, message",
    [(["shape"], "no data set 'shape'; there are"), (["shapes", "--trainers", "Coop"], "no trainer 'Coop'")],
)
def test_names_that_do_not_exist(calls, words, message, capsys):
    """Catches: minutes of work before a misspelt name is noticed."""
    assert compare.main(words) == 2 and message in capsys.readouterr().err and not calls


@pytest.mark.parametrize("name", ["SHOTS", "EPOCHS"])
def test_bad_environment(calls, monkeypatch, capsys, name):
    """Catches: a traceback for SHOTS=two."""
    monkeypatch.setenv(name, "two")
    assert compare.main(["shapes"]) == 2
    assert f"{name} is 'two'" in capsys.readouterr().err and not calls


def test_teacher_of_drawn_data(calls, output):
    """Catches: a student without a teacher, one that starts before its teacher has finished, a teacher of another seed
    or the user's own in vain.
    """
    assert compare.main(["shapes", "--trainers", "PromptKD", "--seeds", "1", "2"]) == 0
    order = [(call.job.specs[0].trainer, call.job.specs[0].seed) for call in calls]
    assert sorted(order) == [(name, seed) for name in ("PromptKD", "PromptSRC") for seed in (1, 2)]
    for call in calls:
        spec = call.job.specs[0]
        if spec.trainer == "PromptKD":
            assert order.index(("PromptSRC", spec.seed)) < order.index(("PromptKD", spec.seed))
            teacher = call.pairs["TRAINER.PROMPTKD.TEACHER_MODEL"].replace("{seed}", str(spec.seed))
            assert teacher == spec.folder.replace("PromptKD", "PromptSRC") == call.job.after
            assert call.pairs["TRAINER.PROMPTKD.TEACHER_NAME"] == ""  # the embedded CLIP, not the yaml's
    calls.clear()
    words = ["--seeds", "3", "TRAINER.PROMPTKD.TEACHER_MODEL", "zero-shot"]
    assert compare.main(["shapes", "--trainers", "PromptKD", *words]) == 0
    assert [call.job.specs[0].trainer for call in calls] == ["PromptKD"]
