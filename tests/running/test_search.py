"""`clusterprompt search`: cells are what was asked for, scores are of validation images, and a search goes on."""

import csv
import re
from pathlib import Path

import pytest
from stand_ins import read, write_record

from clusterprompt.commands import search as command
from clusterprompt.record.result import RunRecord
from clusterprompt.results.runs import collect_runs
from clusterprompt.running.search import Search, read_grid
from clusterprompt.running.train import make_cfg

NODE = "TRAINER.ATTRIPROMPT"
# HM by settings; base and new are equal.
WORTH = {"as configured": 50.0, "TOP_K 3": 60.0, "N_CLUSTERS 8": 45.0, "TOP_K 3, N_CLUSTERS 8": 70.0}


@pytest.fixture
def runs(output, monkeypatch):
    """The runs that were made, as (settings, data set, seed); accuracy is WORTH, one more for each seed."""
    made = []

    def leave(engine, job, overwrite, environment, log):
        settings = re.search(r"\((.*)\)", job.name)[1]
        for spec in job.specs:
            cfg = make_cfg(spec.train_options())
            write_record(spec, WORTH[settings] + spec.seed - 1, config={"TEST": {"SPLIT": cfg.TEST.SPLIT}})
        made.append((settings, job.specs[0].leg.dataset, job.specs[0].seed))
        return 0

    monkeypatch.setattr("clusterprompt.running.engine.LocalEngine.call", leave)
    return made


def words(*more):
    """A search over two keys; TOP_K 3 and N_CLUSTERS 8 are not the yaml's."""
    usual = make_cfg(search_of().jobs(search_of().cells()[0])[0].specs[0].train_options()).TRAINER.ATTRIPROMPT
    grid = [f"TOP_K={usual.TOP_K},3", f"N_CLUSTERS={usual.N_CLUSTERS},8"]
    return ["--trainers", "AttriPrompt", "--datasets", "shapes_select", "--grid", *grid, *more]


def search_of(**changes):
    """A search by `Search` itself."""
    from clusterprompt.trainers.attriprompt import AttriPrompt

    usual = dict(trainers=[AttriPrompt], datasets=["shapes_select"], grid={"TOP_K": ["3"]}, seeds=[1], shots=16)
    return Search(**{**usual, "output": "out", **changes})


def test_grid_table_and_resuming(runs, output, capsys):
    """Catches: a missing or repeated combination, a wrong score or order, finished runs that are made again."""
    assert command.main(words("--seeds", "1", "2")) == 0
    assert {run[0] for run in runs} == set(WORTH) and len(runs) == 8
    table = (output / "search" / "table.txt").read_text()
    assert table in capsys.readouterr().out
    rows = [re.split(r"  +", line) for line in table.splitlines()[2:6]]
    assert [row[1] for row in rows] == sorted(WORTH, key=lambda name: -WORTH[name])
    assert rows[0][2:] == ["70.5 +- 0.5", "70.5 +- 0.5", "70.5 +- 0.5", "+20.0"]
    assert f"Best of AttriPrompt: {NODE}.TOP_K 3 {NODE}.N_CLUSTERS 8" in table
    flat = list(csv.DictReader(open(output / "search" / "table.csv")))
    assert [float(line["HM"]) for line in flat] == [70.5, 60.5, 50.5, 45.5]
    assert len(read(output / "search" / "table.json")["table"]) == 4
    assert command.main(words("--seeds", "1", "2")) == 0 and len(runs) == 8
    assert command.main(words("--seeds", "1", "2", "3")) == 0 and len(runs) == 12


def test_one_at_a_time(runs, capsys):
    """Catches: combinations where single changes were asked for, or a usual value that is run a second time."""
    assert command.main(words("--one-at-a-time", "--seeds", "1")) == 0
    assert sorted(run[0] for run in runs) == ["N_CLUSTERS 8", "TOP_K 3", "as configured"]  # two run at a time


def test_sets_of_many_and_of_few_classes_by_default():
    """Catches: settings chosen by tasks of one size, or by a data set of a table."""
    args = command.build_parser().parse_args(["--trainers", "AttriPrompt", "--grid", "TOP_K=1"])
    assert args.datasets == ["shapes_select", "shapes_select_few"]


def test_validation_images_only(runs, output, capsys):
    """Catches: a run of a search that is scored on test images, or that gets into the tables of results."""
    assert command.main(words("--seeds", "1", "--one-at-a-time", "TEST.SPLIT", "test")) == 0
    folders = [path.parent for path in Path(output).rglob("result.json")]
    assert len(folders) == 6 and all(RunRecord.read(folder).is_validation for folder in folders)
    with pytest.raises(ValueError, match=r"Scored on validation images, left out \(6\)"):
        collect_runs(output)


def test_method_with_a_teacher(output):
    """Catches: the teacher's runs scored or configured in place of the method's."""
    from clusterprompt.running.budget import chosen_trainers

    search = search_of(
        trainers=chosen_trainers(["PromptKD"]), grid={"OPTIM.LR": ["0.123"]}, seeds=[1], output=str(output)
    )
    usual, changed = search.cells()
    assert [job.specs[0].trainer for job in search.jobs(changed)] == ["PromptSRC", "PromptKD"]
    for job, accuracy in zip(search.jobs(changed), (90.0, 40.0)):
        for spec in job.specs:
            write_record(spec, accuracy)
    assert search.score(changed).value == 40.0 and search.score(usual) is None


def test_failed_cell(runs, output, monkeypatch, capsys):
    """Catches: a search that stops at a cell that cannot run, or shows a number for it."""
    from clusterprompt.running.engine import LocalEngine

    leave = LocalEngine.call
    monkeypatch.setattr(
        LocalEngine, "call", lambda engine, job, *rest: 1 if "TOP_K" in job.name else leave(engine, job, *rest)
    )
    assert command.main(words("--one-at-a-time", "--seeds", "1")) == 1
    table = (output / "search" / "table.txt").read_text()
    assert "N_CLUSTERS 8" in table and "TOP_K 3" not in table


def test_several_data_sets(runs, output, capsys):
    """Catches: a score of one data set alone."""
    assert command.main(words("--datasets", "shapes_select", "shapes", "--seeds", "1", "--one-at-a-time")) == 0
    assert len(runs) == 6
    search = search_of(datasets=["shapes_select", "shapes"], output=str(output / "search"))
    cell = search.cells()[0]
    for job, (base, new) in zip(search.jobs(cell), [(60.0, 40.0), (80.0, 80.0)]):
        for spec, accuracy in zip(job.specs, (base, new)):
            write_record(spec, accuracy)
    assert search.score(cell).value == (48.0 + 80.0) / 2


def test_optuna(runs, output, monkeypatch, capsys):
    """Catches: another number of trials than asked for, a study that starts anew, or one that an interrupt breaks."""
    optuna = pytest.importorskip("optuna")
    asked = words("--seeds", "1", "--trials", "3", "--jobs", "1")
    assert command.main(asked) == 0
    storage = f"sqlite:///{(output / 'search' / 'study.db').resolve()}"
    (study,) = optuna.get_all_study_summaries(storage)
    assert study.n_trials == 3
    first = optuna.load_study(study_name=study.study_name, storage=storage)
    assert all(trial.value == WORTH[named(trial.params)] for trial in first.trials)
    left = first.ask()  # as a call leaves it that is killed
    left.suggest_categorical("TOP_K", first.trials[0].distributions["TOP_K"].choices)
    left.suggest_categorical("N_CLUSTERS", first.trials[0].distributions["N_CLUSTERS"].choices)
    asked[asked.index("3")] = "4"
    assert command.main(asked) == 0
    trials = optuna.load_study(study_name=study.study_name, storage=storage).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3 + ["FAIL", "COMPLETE"]
    assert trials[4].params == trials[3].params
    assert len({run[0] for run in runs}) == len(runs), "a cell was run twice"


def named(params):
    """The name of a cell of :func:`words`."""
    changes = [f"{key} {value}" for key, value in params.items() if value == {"TOP_K": "3", "N_CLUSTERS": "8"}[key]]
    return ", ".join(changes) or "as configured"


def test_without_optuna(output, monkeypatch, capsys):
    """Catches: a traceback where the optional package is missing."""
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    assert command.main(words("--trials", "2")) == 2
    assert 'pip install "clusterprompt[search]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    "grid, message",
    [
        (["top_k=1"], "--grid takes KEY=value,value such as TOP_K=1,2,4, not 'top_k=1'"),
        (["TOP_K="], "not 'TOP_K='"),
        (["TOP_K=1", "TOP_K=2"], "--grid has TOP_K twice"),
        (["TOP_Q=1"], f"unknown config key '{NODE}.TOP_Q'. Did you mean '{NODE}.TOP_K'"),
        (["TOP_K=1,0"], f"{NODE}.TOP_K is 0; allowed: a whole number from 1"),
        (["SEED=1,2"], "unknown config key"),
        (["TEST.SPLIT=val,test"], "TEST.SPLIT cannot be searched"),
        (["DATASET.NUM_SHOTS=1,2"], "DATASET.NUM_SHOTS cannot be searched"),
    ],
)
def test_grids_that_cannot_be(grid, message, runs, capsys):
    """Catches: runs for a slip of the pen."""
    assert command.main(["--trainers", "AttriPrompt", "--grid", *grid]) == 2
    assert message in capsys.readouterr().err and not runs


@pytest.mark.parametrize(
    "more, message",
    [
        (["--datasets", "shapez"], "no data set 'shapez'"),
        (["--trials", "0"], "--trials take numbers from 1 on"),
        (["--trials", "2", "--one-at-a-time"], "--trials and --one-at-a-time are two ways"),
    ],
)
def test_bad_arguments(more, message, runs, capsys):
    """Catches: a traceback or a run for arguments that cannot be."""
    assert command.main(words(*more)) == 2
    assert message in capsys.readouterr().err and not runs


def test_brackets_hold_commas():
    """Catches: a tuple that is cut in two."""
    assert read_grid(["INPUT.RRCROP_SCALE=(0.08, 1.0),(0.7, 1.0)"]) == {
        "INPUT.RRCROP_SCALE": ["(0.08, 1.0)", "(0.7, 1.0)"]
    }


def test_folders_differ():
    """Catches: two cells in one folder, such as of -1 and 1."""
    search = search_of(grid={"PROMPT_DEPTH": ["1", "-1", "2"], "OPTIM.LR": ["0.01", "0.1"]})
    folders = [cell.folder for cell in search.cells()]
    assert len(folders) == len(set(folders)) == 7 and not any("/" in folder for folder in folders)
