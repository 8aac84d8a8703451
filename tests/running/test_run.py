"""`clusterprompt run` and the engine below it: what is planned, skipped, resumed, refused, shown.

Most runs are stood in for; the last test trains.
"""

import fcntl
import os
import sys
import threading
import time
from pathlib import Path

import pytest
from stand_ins import write_record, write_training

from clusterprompt.commands import run, worker
from clusterprompt.commands.options import split_pairs
from clusterprompt.running import engine, machine, schedule
from clusterprompt.running.spec import RunSpec


def campaign(*words):
    words, pairs = split_pairs(words)
    return run.campaign_of(run.build_parser().parse_args(words), pairs)


def plans(*words):
    return campaign(*words).jobs()


def pairs_of(job):
    opts = job.specs[0].train_options().opts
    return dict(zip(opts[::2], opts[1::2]))


# ------------------------------------------------------------------ the plan


def test_protocols_on_real_data(output):
    """Catches: a target forgotten, a test that takes 16 shots of its target, training in half of the classes, settings
    of the embedded world.
    """
    words = "--protocol all --trainers CoOp --datasets caltech101 dtd --seeds 1 USE_CUDA False"
    base2new, cross, dg, few_shot = plans(*words.split()).values()
    assert [job.specs[0].train_options().dataset_config_file for job in base2new] == [
        "configs/datasets/caltech101.yaml",
        "configs/datasets/dtd.yaml",
    ]
    assert len(cross) == 1 + 10 and len(dg) == 1 + 4 and cross[0] == dg[0] and len(few_shot) == 2 * 5
    shown = (cross[0], cross[1], few_shot[0], few_shot[4])
    assert [pairs_of(job)["DATASET.NUM_SHOTS"] for job in shown] == ["16", "-1", "1", "16"]
    options = [job.specs[0].train_options() for job in shown]
    assert [Path(each.config_file).name for each in options] == ["crossdatasets.yaml"] * 2 + ["fewshot.yaml"] * 2
    # CoOp's authors train less with one shot.
    assert [pairs_of(job).get("OPTIM.MAX_EPOCH") for job in shown] == [None, None, "50", None]
    for job in shown:
        assert pairs_of(job)["DATASET.SUBSAMPLE_CLASSES"] == "all" and pairs_of(job)["USE_CUDA"] == "False"
        assert "TRAINER.COOP.PREC" not in pairs_of(job)
    assert cross[1].after == cross[0].folders[0] == options[1].model_dir and options[1].eval_only
    for job in base2new:
        base, new = (spec.train_options() for spec in job.specs)
        assert new.model_dir == base.output_dir and new.eval_only and not base.eval_only
        assert base.opts[-1] == "base" and new.opts[-1] == "new"


def test_methods_that_serve_no_new_classes(output):
    """Catches: jobs that can only fail; a method left out without a word, or out of protocols that it can run."""
    words = ["--protocol", "all", "--trainers", "CoOp", "TaskRes", "--datasets", "shapes", "--seeds", "1"]
    trainers = {name: {job.specs[0].trainer for job in jobs} for name, jobs in plans(*words).items()}
    both = {"CoOp", "TaskRes"}
    assert trainers == {
        "base2new": {"CoOp"},
        "cross_dataset": {"CoOp"},
        "domain_generalisation": both,
        "few_shot": both,
    }
    said = campaign(*words).headline()
    for name in ("base2new", "cross_dataset"):
        assert (
            f"Left out of {name}, as they serve no new classes: TaskRes (each class has a residual of its own)" in said
        )
    words = ["--protocol", "cross_dataset", "--trainers", "TaskRes", "--source", "shapes", "--seeds", "1"]
    assert len(plans(*words, "--targets")["cross_dataset"]) == 1  # training alone
    with pytest.raises(ValueError, match="cross_dataset tests on other classes than it trains on"):
        plans(*words)


def test_protocols_on_the_embedded_world(output, monkeypatch):
    """Catches: ImageNet asked for, 200 epochs of CoOp, 9 layers of a CLIP that has 4, the environment's epochs lost."""
    words = ["--protocol", "all", "--trainers", "CoOp", "MaPLe", "--seeds", "1"]
    _, cross, dg, few_shot = plans(*words).values()
    names = [f"CoOp, shapes -> shapes_{name}, seed 1" for name in ("textures", "colours", "counts")]
    assert [job.name for job in cross[1:4]] == names
    shifts = [f"{name}, seed 1" for name in ("outline", "noise", "background", "lowres")]
    assert [job.name.split("_")[1] for job in dg[6:]] == shifts
    for job in [*cross, *few_shot]:
        spec, pairs = job.specs[0], pairs_of(job)
        assert spec.backbone == "tiny" and job.environment["OMP_NUM_THREADS"] == "1"
        assert pairs["DATALOADER.NUM_WORKERS"] == "0"
        assert pairs["OPTIM.MAX_EPOCH"] == {"CoOp": "20", "MaPLe": "5"}[spec.trainer]
        assert pairs[f"TRAINER.{spec.trainer.upper()}.PREC"] == "fp32"
        deep = spec.trainer == "MaPLe" and spec.cfg == "fewshot"  # crossdatasets.yaml has 3 layers
        assert pairs.get("TRAINER.MAPLE.PROMPT_DEPTH") == ("-1" if deep else None)
    monkeypatch.setenv("EPOCHS", "2")
    monkeypatch.setenv("SHOTS", "4")
    base2new, cross, _, few_shot = plans(*words).values()
    assert len(few_shot) == 2 and all("shots_4" in job.folders[0] for job in [*base2new, *cross, *few_shot])
    assert all(pairs_of(job)["OPTIM.MAX_EPOCH"] == "2" for job in base2new)


@pytest.mark.parametrize(
    "words, protocols, targets",
    [
        (["--targets"], ["cross_dataset", "domain_generalisation"], [[], []]),
        (["--targets", "shapes_noise"], ["domain_generalisation"], [["shapes_noise"]]),
        (
            ["--targets", "shapes_counts", "caltech101", "--source", "shapes"],
            ["cross_dataset"],
            [["shapes_counts", "caltech101"]],
        ),
    ],
)
def test_targets(output, words, protocols, targets):
    """Catches: a shifted copy counted as another data set, an unlisted target lost, xd_train that tests, a model
    trained for nothing.
    """
    both = ["--protocol", "cross_dataset", "domain_generalisation", "--trainers", "TAC", "--seeds", "1"]
    asked = campaign(*both, *words)
    assert [protocol.name for protocol in asked.protocols] == protocols and asked.source == "shapes"
    assert [[job.specs[0].leg.dataset for job in jobs if job.after] for jobs in asked.jobs().values()] == targets


@pytest.mark.parametrize(
    "target, source", [("shapes_noise", "shapes"), ("dtd", "imagenet"), ("imagenet_a", "imagenet")]
)
def test_source_of_a_target(output, target, source):
    """Catches: real data tested with a model of drawn ones."""
    words = ["--protocol", "cross_dataset", "domain_generalisation", "--trainers", "TAC", "--targets", target]
    assert campaign(*words).source == source
    assert campaign(*words, "--source", "caltech101", "--protocol", "cross_dataset").source == "caltech101"


def test_a_user_yaml_is_not_a_drawn_one(output, tmp_path, monkeypatch):
    """Catches: "shapes" at the start of a name that gives somebody's own images the embedded CLIP."""
    monkeypatch.chdir(tmp_path)
    Path("shapes_of_leaves.yaml").write_text('DATASET:\n  NAME: "ImageFolder"\n  ROOT: "leaves"\n')
    words = ["--protocol", "base2new", "--trainers", "TAC", "--seeds", "1", "--datasets"]
    (own,) = plans(*words, "shapes_of_leaves.yaml")["base2new"]
    (drawn,) = plans(*words, "shapes")["base2new"]
    assert not own.drawn and own.specs[0].backbone == "" and "TRAINER.TAC.PREC" not in pairs_of(own)
    assert drawn.drawn == ("shapes",) and drawn.specs[0].backbone == "tiny"
    assert "shapes_of_leaves/shots_16" in own.folders[0]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--trainers", "Tac"], "no trainer 'Tac'; there are ATPrompt, AttriPrompt"),
        (["--trainers", "TAC", "--datasets", "shape"], "no data set 'shape'; there are"),
        (["--trainers", "TAC", "--datasets", "own.yaml"], "no such file: own.yaml"),
        (["--trainers", "TAC", "--targets", "imagenet_v2"], "no data set 'imagenet_v2'"),
        (
            ["--trainers", "TAC", "--protocol", "domain_generalisation", "--targets", "shapes_counts"],
            "no protocol that was asked for tests on these",
        ),
        (["--trainers", "TAC", "--shots", "4", "8"], "--shots takes one number for base2new"),
        (["--trainers", "TAC", "--shots", "0"], "--shots takes numbers from 1 on"),
        (
            ["--trainers", "TAC", "TRAINER.TAC.N_CENTRES", "4"],
            "unknown config key 'TRAINER.TAC.N_CENTRES'. Did you mean 'TRAINER.TAC.N_CENTERS'",
        ),
        (["--trainers", "TAC", "OPTIM.LR"], "pairs"),
        (["--trainers", "TAC", "DATASET.NUM_SHOTS", "4"], "set by SHOTS=<number>"),
    ],
)
def test_bad_arguments(calls, words, message, capsys):
    """Catches: a traceback, or hours of runs, for a slip of the pen."""
    assert run.main(["--protocol", "base2new", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and len(said.splitlines()) == 1 and message in said and not calls


def test_words_that_are_no_pairs(calls, capsys):
    """Catches: a lower-case key that is dropped without a word."""
    words = ["--trainers", "TAC", "--protocol", "base2new", "--seeds", "1", "--jobs", "1", "optim.lr", "1"]
    assert run.main(words) == 2
    assert "optim.lr" in capsys.readouterr().err and not calls


def test_bad_environment(calls, monkeypatch, capsys):
    """Catches: a traceback for EPOCHS=two."""
    monkeypatch.setenv("EPOCHS", "two")
    assert run.main(["--protocol", "base2new", "--trainers", "TAC"]) == 2
    assert "EPOCHS is 'two'" in capsys.readouterr().err


# ------------------------------------------------------------------ running it

ALL = ["--protocol", "all", "--trainers", "CoOp", "TAC", "--seeds", "1"]


def test_everything(calls, capsys):
    """Catches: a test before its training, a model trained once for each protocol, runs repeated, another table the
    second time.
    """
    assert run.main(ALL) == 0
    assert len(calls) == len(set(calls.names())) == 2 * (1 + 1 + 3 + 4 + 5)
    for trainer in ("CoOp", "TAC"):
        names = calls.names()
        tests = [i for i, name in enumerate(names) if name.startswith("xd/test") and name.endswith(trainer)]
        assert len(tests) == 7 and min(tests) > names.index(f"xd/train/shapes/{trainer}")
    assert all(call.overwrite == ("xd/test" in call.name) for call in calls)
    first = capsys.readouterr().out
    assert "60.0 +- 0.0  40.0 +- 0.0  48.0 +- 0.0" in first and "1 shot " in first
    assert "average" in first and "synthetic world" in first and "clusterprompt results" in first
    assert run.main(ALL) == 0
    second = capsys.readouterr().out
    assert len(calls) == 28 and "28 of 28 runs are finished already" in second
    assert first[first.index("\nBase to new") :] == second[second.index("\nBase to new") :]
    assert run.main([*ALL, "--fresh"]) == 0
    assert len(calls) == 56 and all(call.overwrite for call in calls[28:])


def test_one_failure(calls, capsys):
    """Catches: a failure that stops the rest, hides its reason, lets its tests run, or ends with code 0."""
    calls.broken = "xd/train/shapes/shots_16/CoOp"
    assert run.main(ALL) == 1
    said = capsys.readouterr()
    assert len(calls) == 28 - 7 and not [n for n in calls.names() if "xd/test" in n and n.endswith("CoOp")]
    assert "1 run failed:\n  CoOp, trained on shapes, seed 1: ValueError: no such thing\n    log: " in said.err
    log = Path(said.err.split("log: ")[1].splitlines()[0])
    assert "a traceback" in log.read_text() and said.err.count("not run, CoOp, trained on shapes, seed 1 failed") == 7
    assert "[28/28]" in said.out
    assert [line.split()[0] for line in said.out.splitlines() if line.startswith(("CoOp ", "TAC "))].count("CoOp") == 2
    calls.broken = ""
    calls.clear()
    assert run.main(ALL) == 0 and len(calls) == 8


def test_what_is_done_again(calls, output):
    """Catches: a test of a model that was retrained since; an unfinished run taken for a finished one, or started
    again.
    """
    words = ["--protocol", "cross_dataset", "--trainers", "CoOp", "--seeds", "1"]
    run.main(words)
    trained = calls[0].job.specs[0]
    calls.clear()
    write_record(trained, 61.0)
    os.utime(Path(trained.folder, "result.json"), (time.time() + 5, time.time() + 5))
    run.main(words)
    # Two run side by side.
    assert sorted(calls.names()) == [f"xd/test/shapes_{name}/CoOp" for name in ("colours", "counts", "textures")]
    calls.clear()
    write_training(trained)
    run.main(words)
    assert len(calls) == 4 and calls[0].job.folders == [trained.folder] and not calls[0].overwrite


def test_a_test_of_a_retrained_model_is_not_shown(calls, capsys):
    """Catches: a retrained model whose test fails, beside it in the table the test of the old one."""
    words = ["--protocol", "cross_dataset", "--trainers", "CoOp", "--seeds", "1"]
    run.main(words)
    trained = calls[0].job.specs[0]
    for call in calls[1:]:
        os.utime(Path(call.job.folders[0], "result.json"), (1, 1))
    write_record(trained, 61.0)
    calls.broken = "xd/test/shapes_counts"
    capsys.readouterr()
    assert run.main(words) == 1
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if line.startswith("CoOp "))
    assert row.split()[1:] == ["61.0", "+-", "0.0", *["60.0", "+-", "0.0"] * 3]  # two targets, and their average
    assert "average is over 2 of the 3 usual targets" in said


def test_other_settings(calls, output, capsys):
    """Catches: numbers of 9 epochs, or of another source's model, in the table of 5."""
    words = ["--protocol", "cross_dataset", "--trainers", "TAC", "--seeds", "1"]
    train, *tests = plans(*words)["cross_dataset"]
    test = next(job for job in tests if job.specs[0].leg.dataset == "shapes_counts").specs[0]
    write_record(train.specs[0], 60.0, config={"OPTIM": {"MAX_EPOCH": 9}, "TRAINER": {}})
    write_record(test, 60.0, trained_on={"dataset": "ImageNet"})
    assert run.main(words) == 2
    said = capsys.readouterr().err
    assert not calls and "2 of 4 runs" in said and "--overwrite" in said and len(said.splitlines()) == 1
    assert "OPTIM.MAX_EPOCH 9 -> 5" in said and "trained on ImageNet -> Shapes" in said
    assert run.main([*words, "--plan"]) == 0
    assert capsys.readouterr().out.count("other settings") == 4  # two rows, two explanations
    assert run.main([*words, "--overwrite"]) == 0 and len(calls) == 4


def test_a_plan_is_only_shown(calls, capsys):
    """Catches: a dry run that trains, or that does not say what is there."""
    run.main(["--protocol", "base2new", "--trainers", "CoOp", "--seeds", "1"])
    capsys.readouterr()
    run.main(["--protocol", "base2new", "--trainers", "CoOp", "TAC", "--seeds", "1", "--plan"])
    said = capsys.readouterr().out
    rows = [line.split()[:3] for line in said.splitlines()[3:5]]
    assert len(calls) == 1 and rows == [["done", "CoOp,", "shapes"], ["to", "do", "TAC,"]]
    assert "1 of 2 runs have to be run" in said


def test_a_long_plan_is_counted(calls, output, capsys):
    """Catches: a dry run of hundreds of runs that prints a line for each; a count that leaves some of them out."""
    words = "--protocol base2new few_shot --trainers CoOp TAC --datasets caltech101 dtd --seeds 1 2".split()
    both = plans(*words)
    for job in both["base2new"][:3]:
        for spec in job.specs:
            write_record(spec, 60.0)
    write_training(both["few_shot"][0].specs[0])
    assert run.main([*words, "--plan"]) == 0
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines() if " CoOp " in line or " TAC " in line]
    cells = {tuple(row[:3]): row[3:] for row in rows}
    assert len(rows) == len(cells) == 8  # protocols, methods, data sets
    assert cells["base2new", "CoOp", "caltech101"][:2] == ["2", "2"]  # seeds, runs
    assert cells["few_shot", "CoOp", "caltech101"] == ["2", "10", "9", "1"]  # to do, go on
    assert sum(int(row[4]) for row in rows) == 48 and "45 of 48 runs have to be run" in said
    assert run.main([*words, "--plan", "full"]) == 0
    listed = capsys.readouterr().out
    assert all(job.folders[0] in listed for jobs in both.values() for job in jobs)
    assert len(listed.splitlines()) > 48 > len(said.splitlines())


def test_a_run_of_another_process(calls, output, capsys):
    """Catches: two processes in one folder, after the runner was killed and its run went on alone; its result not
    taken.
    """
    words = ["--protocol", "base2new", "--trainers", "CoOp", "--seeds", "1"]
    (job,) = plans(*words)["base2new"]
    job.log.parent.mkdir(parents=True)
    held = open(job.log, "ab")
    fcntl.flock(held, fcntl.LOCK_EX)

    def finish():
        for spec in job.specs:
            write_record(spec, 77.0)
        held.close()

    other = threading.Timer(0.5, finish)
    other.start()
    assert run.main(words) == 0
    other.join()
    said = capsys.readouterr().out
    assert not calls and "is being run by another process: waiting" in said and "77.0" in said


def test_gpus_in_turn(calls, monkeypatch):
    """Catches: all runs on the first GPU; one that the environment does not offer."""
    import torch

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert machine.default_jobs(drawn=False) == 2
    run.main([*ALL, "--jobs", "2"])
    assert {call.environment["CUDA_VISIBLE_DEVICES"] for call in calls} == {"2", "5"}


def test_interrupt(output, monkeypatch, capsys):
    """Catches: Ctrl-C that ends in a traceback, or leaves processes behind."""
    started, popen = [], engine.subprocess.Popen

    def sleep(command, **kwargs):
        started.append(time.time())
        return popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], **kwargs)

    def wait(*_, **__):
        while not started:
            time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(engine.subprocess, "Popen", sleep)
    monkeypatch.setattr(schedule, "wait", wait)
    assert run.main(["--protocol", "base2new", "--trainers", "CoOp", "TAC", "--jobs", "1"]) == 130
    assert len(started) == 1 and time.time() - started[0] < 20
    assert "goes on from here" in capsys.readouterr().err


@pytest.mark.parametrize(
    "code, said, expected",
    [
        (2, "x\nerror: no disk\n\n", "error: no disk"),
        (3, "", "it ended with code 3"),
        (-9, "epoch 3\n", "ended by SIGKILL (out of memory?)"),
    ],
)
def test_reasons(code, said, expected, tmp_path):
    """Catches: a failure shown as the last epoch's line, or as nothing."""
    (tmp_path / "log").write_text(said)
    assert engine.why(tmp_path / "log", code) == expected


def test_numbers_of_tables(calls, capsys):
    """Catches: a mean over other seeds than those that are there without saying so; the mean of the seeds' HMs under
    the name HM.
    """
    calls.accuracy = lambda spec, number: {1: (50.0, 60.0), 2: (60.0, 50.0)}[spec.seed][number]
    calls.broken = "caltech101/shots_16/CoOp/basetonovel/seed2"
    words = "--protocol base2new --trainers CoOp --datasets caltech101 dtd --seeds 1 2"
    assert run.main(words.split()) == 1
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("CoOp ")]
    assert any("55.0 +- 5.0  55.0 +- 5.0  55.0 +- 0.0" in row for row in rows)  # dtd: HM of the means, not 54.5
    assert any("50.0 +- 0.0 (1 of 2)" in row for row in rows)  # caltech101


def test_a_run_without_accuracy(output):
    """Catches: TEST.NO_TEST ends the engine, and with it all other runs."""
    (job,) = plans(*"--protocol few_shot --trainers CoOp --seeds 1 --shots 1".split())["few_shot"]
    write_record(job.specs[0], None)
    assert job.outcome() == "finished, not tested"


# ------------------------------------------------------------------ a run as a value


def test_spec_survives_json(output):
    """Catches: a job that its process understands otherwise."""
    words = ["--protocol", "all", "--trainers", "TAC", "--seeds", "1", "OPTIM.LR", "0.1"]
    for jobs in plans(*words).values():
        for job in jobs:
            for spec in job.specs:
                assert RunSpec.of_json(spec.to_json()) == spec


def test_spec_and_command_line_agree(output):
    """Catches: a printed command that does something else than the run."""
    from clusterprompt.commands import train

    for jobs in plans("--protocol", "all", "--trainers", "MaPLe", "--seeds", "3").values():
        for job in jobs:
            for spec in job.specs:
                options = spec.train_options(overwrite=True)
                again = train.train_options(train.parse(options.argv()))
                assert {**vars(again), "opts": tuple(again.opts)} == vars(options)


# ------------------------------------------------------------------ real runs


@pytest.mark.slow
def test_interrupted_twice(output, caltech_root, clip_file, monkeypatch, tmp_path, capsys):
    """Catches: other numbers after interrupts in the middle of training and between training and test than without
    them.
    """
    for key, value in {"DATA": caltech_root, "BACKBONE": clip_file, "EPOCHS": 2, "SHOTS": 2}.items():
        monkeypatch.setenv(key, str(value))
    from dassl.engine import TrainerX

    died = []

    def call(self, job, overwrite, environment, log):
        """Do in this process what the worker does in its own."""
        return worker.main(["--overwrite" if overwrite else "--resume", *(spec.to_json() for spec in job.specs)])

    def dying(method, when):
        def wrapped(self, *args):
            if not died and when(self):
                died.append(method)
                raise KeyboardInterrupt
            return real(self, *args)

        real = getattr(TrainerX, method)
        return wrapped

    def go(out):
        monkeypatch.setenv("OUTPUT", str(tmp_path / out))
        words = (
            "--protocol base2new cross_dataset --trainers CoOp --datasets caltech101 --source caltech101 "
            "--targets caltech101 --seeds 1 --jobs 1 DATALOADER.NUM_WORKERS 0 TRAIN.CHECKPOINT_FREQ 1"
        )
        code = run.main(words.split())
        said = capsys.readouterr().out
        return code, said[said.index("\nBase to new") :].replace(str(tmp_path / out), "")

    monkeypatch.setattr("clusterprompt.running.engine.LocalEngine.call", call)
    whole = go("whole")
    assert whole[0] == 0
    for method, when in (
        ("before_epoch", lambda self: self.epoch == 1),
        ("test", lambda self: self.cfg.DATASET.SUBSAMPLE_CLASSES == "new"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(TrainerX, method, dying(method, when))
            died.clear()
            assert go("interrupted")[0] == 1 and died == [method]
    assert go("interrupted") == whole


def test_targets_are_checked_before_training(output, monkeypatch, caltech_root, capsys):
    """Catches: a transfer that trains for hours before the missing data of a target are named."""
    from clusterprompt.running import preflight, sweep

    monkeypatch.setattr(sweep, "check_tests", preflight.check_tests)
    monkeypatch.setattr("clusterprompt.running.engine.LocalEngine.call", lambda *args: pytest.fail("something was run"))
    monkeypatch.setenv("DATA", str(caltech_root))
    words = "--protocol cross_dataset --source caltech101 --targets dtd --trainers CoOp --seeds 1"
    assert run.main([*words.split(), "MODEL.BACKBONE.NAME", "tiny"]) == 2
    said = capsys.readouterr().err
    assert "could not be tested: Folder not found" in said and "dtd" in said and said.count("\n") == 1
