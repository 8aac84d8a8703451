"""run.py and the runner below it: what is planned, skipped, resumed, refused, shown.

Most runs are stood in for; the last test trains.
"""

import fcntl
import importlib
import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """The script as a module, with results below the test's folder, without data to draw and without settings of the
    environment.
    """
    monkeypatch.setenv("OUTPUT", str(tmp_path / "out"))
    for name in ("SHOTS", "CFG", "BACKBONE", "EPOCHS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    module = importlib.import_module("clusterprompt.commands.run")
    monkeypatch.setattr("clusterprompt.running.runner.draw_data", lambda names: None)
    return module


class Calls(list):
    """Stands in for the processes: (what, folders, option) of each; leaves results, unless ``broken`` is part of its
    folder.
    """

    broken = ""

    def __call__(self, runner, command, environment, log):
        from clusterprompt.running.base2new import folders

        words = dict(zip(command, command[1:]))
        if command[1].endswith("train.py"):
            filled = [words["--output-dir"]]
        else:
            filled = folders(words["--trainer"], words["--dataset"], int(words["--seed"]), environment)
        (option,) = {"--resume", "--overwrite"} & set(command)
        self.append((Path(filled[0]), option, environment))
        if self.broken and self.broken in filled[0]:
            log.write(b"a traceback\nValueError: no such thing\n")
            log.flush()
            return 1
        for number, folder in enumerate(filled):
            write_result(folder, 60.0 - 20 * number)
        return 0

    def names(self):
        """Folders that were filled, below out/, without what is the same everywhere."""
        return [str(folder).split("/out/")[1].replace("/shots_16", "").rsplit("/", 2)[0] for folder, _, _ in self]


def write_result(folder, accuracy, **more):
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "result.json").write_text(json.dumps({"status": "finished", "accuracy": accuracy, **more}))


@pytest.fixture
def calls(run, monkeypatch):
    made = Calls()
    monkeypatch.setattr("clusterprompt.running.runner.Runner.call", lambda *args: made(*args))
    return made


def plan_of(run, *words):
    return run.planned(run.parse_args(list(words)))


# ------------------------------------------------------------------ the plan


def test_protocols_on_real_data(run):
    """Catches: a target forgotten, a test that takes 16 shots of its target, training in half of the classes, settings
    of the embedded world.
    """
    plans = plan_of(
        run,
        "--protocol",
        "all",
        "--trainers",
        "CoOp",
        "--datasets",
        "caltech101",
        "dtd",
        "--seeds",
        "1",
        "USE_CUDA",
        "False",
    )
    base2new, cross, dg, few_shot = plans.values()
    assert [each.words[0][each.words[0].index("--dataset-config-file") + 1] for each in base2new] == [
        "configs/datasets/caltech101.yaml",
        "configs/datasets/dtd.yaml",
    ]
    assert len(cross) == 1 + 10 and len(dg) == 1 + 4 and cross[0] == dg[0] and len(few_shot) == 2 * 5
    pairs = [dict(zip(each.words[0], each.words[0][1:])) for each in (cross[0], cross[1], few_shot[0], few_shot[4])]
    assert [p["DATASET.NUM_SHOTS"] for p in pairs] == ["16", "-1", "1", "16"]
    assert [p["--config-file"].split("/")[-1] for p in pairs] == ["crossdatasets.yaml"] * 2 + ["fewshot.yaml"] * 2
    assert [p.get("OPTIM.MAX_EPOCH") for p in pairs] == [
        None,
        None,
        "50",
        None,
    ]  # CoOp's authors train less with one shot
    assert all(
        p["DATASET.SUBSAMPLE_CLASSES"] == "all" and p["USE_CUDA"] == "False" and "TRAINER.COOP.PREC" not in p
        for p in pairs
    )
    assert cross[1].after == cross[0].folders[0] == pairs[1]["--model-dir"] and "--eval-only" in pairs[1]


def test_protocols_on_the_embedded_world(run, monkeypatch):
    """Catches: ImageNet asked for, 200 epochs of CoOp, 9 layers of a CLIP that has 4, the environment's epochs lost."""
    words = ["--protocol", "all", "--trainers", "CoOp", "MaPLe", "--seeds", "1"]
    _, cross, dg, few_shot = plan_of(run, *words).values()
    assert [each.name for each in cross[1:4]] == [
        f"CoOp, shapes -> shapes_{name}, seed 1" for name in ("textures", "colours", "counts")
    ]
    assert [each.name.split("_")[1] for each in dg[6:]] == [
        f"{name}, seed 1" for name in ("outline", "noise", "background", "lowres")
    ]
    for each in [*cross, *few_shot]:
        pairs = dict(zip(each.words[0], each.words[0][1:]))
        assert (
            pairs["--backbone"] == "tiny"
            and each.environment["OMP_NUM_THREADS"] == "1"
            and pairs["DATALOADER.NUM_WORKERS"] == "0"
        )
        trainer = pairs["--trainer"]
        assert (
            pairs["OPTIM.MAX_EPOCH"] == {"CoOp": "20", "MaPLe": "5"}[trainer]
            and pairs[f"TRAINER.{trainer.upper()}.PREC"] == "fp32"
        )
        deep = trainer == "MaPLe" and "fewshot" in pairs["--config-file"]  # crossdatasets.yaml has 3 layers
        assert pairs.get("TRAINER.MAPLE.PROMPT_DEPTH") == ("-1" if deep else None)
    monkeypatch.setenv("EPOCHS", "2")
    monkeypatch.setenv("SHOTS", "4")
    base2new, cross, _, few_shot = plan_of(run, *words).values()
    assert len(few_shot) == 2 and all("shots_4" in each.folders[0] for each in [*base2new, *cross, *few_shot])
    assert all(each.environment["EPOCHS"] == "2" for each in base2new)


@pytest.mark.parametrize(
    "words, protocols, targets",
    [
        (["--targets"], ["cross_dataset", "domain_generalisation"], [[], []]),
        (["--targets", "shapes_noise"], ["domain_generalisation"], [["shapes_noise"]]),
        (["--targets", "shapes_counts", "caltech101"], ["cross_dataset"], [["shapes_counts", "caltech101"]]),
    ],
)
def test_targets(run, words, protocols, targets):
    """Catches: a shifted copy counted as another data set, an unlisted target lost, xd_train that tests, a model
    trained for nothing.
    """
    args = run.parse_args(
        ["--protocol", "cross_dataset", "domain_generalisation", "--trainers", "TAC", *words, "--seeds", "1"]
    )
    assert args.protocol == protocols
    assert [
        [Path(each.words[0][each.words[0].index("--dataset-config-file") + 1]).stem for each in plan if each.after]
        for plan in run.planned(args).values()
    ] == targets


@pytest.mark.parametrize(
    "words, message",
    [
        (["--trainers", "Tac"], "no trainer 'Tac'; there are AttriPrompt"),
        (["--trainers", "TAC", "--datasets", "shape"], "no data set 'shape'; there are"),
        (["--trainers", "TAC", "--datasets", "own.yaml"], "no such file: own.yaml"),
        (["--trainers", "TAC", "--targets", "imagenet_v2"], "no data set 'imagenet_v2'"),
        (
            ["--trainers", "TAC", "--protocol", "domain_generalisation", "--targets", "shapes_counts"],
            "no protocol that was asked for tests on these",
        ),
        (["--trainers", "TAC", "--shots", "4"], "--shots is for few_shot"),
        (
            ["--trainers", "TAC", "TRAINER.TAC.N_CENTRES", "4"],
            "unknown config key 'TRAINER.TAC.N_CENTRES'. Did you mean 'TRAINER.TAC.N_CENTERS'",
        ),
        (["--trainers", "TAC", "OPTIM.LR"], "pairs"),
    ],
)
def test_bad_arguments(run, calls, words, message, capsys):
    """Catches: a traceback, or hours of runs, for a slip of the pen."""
    with pytest.raises(SystemExit) as stop:
        run.main(["--protocol", "base2new", *words])
    assert stop.value.code == 2 and message in capsys.readouterr().err and not calls


def test_bad_environment(run, monkeypatch, capsys):
    """Catches: a traceback for EPOCHS=two."""
    monkeypatch.setenv("EPOCHS", "two")
    with pytest.raises(SystemExit):
        run.main(["--protocol", "base2new", "--trainers", "TAC"])
    assert "EPOCHS is 'two'" in capsys.readouterr().err


# ------------------------------------------------------------------ running it

ALL = ["--protocol", "all", "--trainers", "CoOp", "TAC", "--seeds", "1", "--shots", "1", "16"]


@pytest.mark.slow
def test_everything(run, calls, capsys):
    """Catches: a test before its training, a model trained once for each protocol, runs repeated, another table the
    second time.
    """
    assert run.main(ALL) == 0
    assert len(calls) == len(set(calls.names())) == 2 * (1 + 1 + 3 + 4 + 2)
    for trainer in ("CoOp", "TAC"):
        names = calls.names()
        tests = [i for i, name in enumerate(names) if name.startswith("xd/test") and name.endswith(trainer)]
        assert len(tests) == 7 and min(tests) > names.index(f"xd/train/shapes/{trainer}")
    assert {option for folder, option, _ in calls if "xd/test" in str(folder)} == {"--overwrite"}
    assert {option for folder, option, _ in calls if "xd/test" not in str(folder)} == {"--resume"}
    first = capsys.readouterr().out
    assert (
        "TAC        60.0 +- 0.0  40.0 +- 0.0  48.0 +- 0.0" in first
        and "1 shot " in first
        and "shapes (source)" in first
    )
    assert first.count("average") == 3 and "no published ones" in first and "python scripts/results.py" in first
    assert run.main(ALL) == 0
    second = capsys.readouterr().out
    assert len(calls) == 22 and "22 of 22 runs are finished already" in second
    assert first[first.index("\nbase2new,") :] == second[second.index("\nbase2new,") :]
    assert (
        run.main([*ALL, "--fresh"]) == 0
        and len(calls) == 44
        and {option for _, option, _ in calls[22:]} == {"--overwrite"}
    )


@pytest.mark.slow
def test_one_failure(run, calls, capsys):
    """Catches: a failure that stops the rest, hides its reason, lets its tests run, or ends with code 0."""
    calls.broken = "xd/train/shapes/shots_16/CoOp"
    assert run.main(ALL) == 1
    said = capsys.readouterr()
    assert len(calls) == 22 - 7 and not [name for name in calls.names() if "xd/test" in name and name.endswith("CoOp")]
    assert "1 run failed:\n  CoOp, trained on shapes, seed 1: ValueError: no such thing\n    log: " in said.err
    log = Path(said.err.split("log: ")[1].splitlines()[0])
    assert "a traceback" in log.read_text() and said.err.count("not run, CoOp, trained on shapes, seed 1 failed") == 7
    assert "[22/22]" in said.out and [
        line.split()[1] for line in said.out.splitlines() if line.startswith("CoOp ")
    ] == ["60.0", "-", "-", "60.0"]
    calls.broken = ""
    calls.clear()
    assert run.main(ALL) == 0 and len(calls) == 8


def test_what_is_done_again(run, calls, tmp_path):
    """Catches: a test of a model that has been trained anew since; an unfinished run taken for a finished one, or begun
    anew.
    """
    words = ["--protocol", "cross_dataset", "--trainers", "CoOp", "--seeds", "1"]
    run.main(words)
    calls.clear()
    trained = tmp_path / "out/xd/train/shapes/shots_16/CoOp/crossdatasets/seed1"
    write_result(trained, 61.0)
    os.utime(trained / "result.json", (time.time() + 5, time.time() + 5))
    run.main(words)
    assert sorted(calls.names()) == [
        f"xd/test/shapes_{name}/CoOp" for name in ("colours", "counts", "textures")
    ]  # two go side by side
    calls.clear()
    (trained / "result.json").write_text('{"status": "training"}')
    run.main(words)
    assert len(calls) == 4 and calls[0][:2] == (trained, "--resume")


def test_other_settings(run, calls, tmp_path, capsys):
    """Catches: numbers of 9 epochs, or of another source's model, in the table of 5."""
    words = ["--protocol", "cross_dataset", "--trainers", "TAC", "--seeds", "1"]
    train, test = (
        tmp_path / "out/xd/train/shapes/shots_16/TAC/crossdatasets/seed1",
        tmp_path / "out/xd/test/shapes_counts/shots_16/TAC/crossdatasets/seed1",
    )
    write_result(train, 60.0, dataset="Shapes", config={"OPTIM": {"MAX_EPOCH": 9}, "TRAINER": {}})
    write_result(test, 60.0, trained_on={"dataset": "ImageNet"})
    with pytest.raises(SystemExit) as stop:
        run.main(words)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and not calls and "2 of 4 runs" in said and "--fresh" in said
    assert "OPTIM.MAX_EPOCH 9 -> 5" in said and "trained on ImageNet -> Shapes" in said
    assert run.main([*words, "--plan"]) == 0
    assert capsys.readouterr().out.count("other settings") == 4  # two rows, two explanations
    assert run.main([*words, "--fresh"]) == 0 and len(calls) == 4


def test_a_plan_is_only_shown(run, calls, capsys):
    """Catches: a dry run that trains, or that does not say what is there."""
    run.main(["--protocol", "base2new", "--trainers", "CoOp", "--seeds", "1"])
    capsys.readouterr()
    run.main(["--protocol", "base2new", "--trainers", "CoOp", "TAC", "--seeds", "1", "--plan"])
    said = capsys.readouterr().out
    assert len(calls) == 1 and [line.split()[:3] for line in said.splitlines()[3:5]] == [
        ["done", "CoOp,", "shapes"],
        ["to", "do", "TAC,"],
    ]
    assert "1 of 2 runs have to be run" in said


def test_a_run_of_another_process(run, calls, tmp_path, capsys):
    """Catches: two processes in one folder, after the runner was killed and its run went on alone; its result not
    taken.
    """
    log = tmp_path / "out/logs/base2new/train_base/shapes/shots_16/CoOp/basetonovel/seed1.txt"
    log.parent.mkdir(parents=True)
    held = open(log, "ab")
    fcntl.flock(held, fcntl.LOCK_EX)

    def finish():
        from clusterprompt.record import protocols

        for folder in protocols.base2new_folders(tmp_path / "out", "shapes", 16, "CoOp", 1):
            write_result(folder, 77.0)
        held.close()

    other = threading.Timer(0.5, finish)
    other.start()
    assert run.main(["--protocol", "base2new", "--trainers", "CoOp", "--seeds", "1"]) == 0
    other.join()
    said = capsys.readouterr().out
    assert not calls and "is being run by another process: waiting" in said and "CoOp       77.0" in said


def test_gpus_in_turn(run, calls, monkeypatch):
    """Catches: all runs on the first GPU; one that the environment does not offer."""
    import torch

    from clusterprompt.running import runner

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert runner.default_jobs(embedded=False) == 2
    run.main([*ALL, "--jobs", "2"])
    assert {environment["CUDA_VISIBLE_DEVICES"] for _, _, environment in calls} == {"2", "5"}


def test_interrupt(run, monkeypatch, capsys):
    """Catches: Ctrl-C that ends in a traceback, or leaves processes behind."""
    from clusterprompt.running import runner

    began, call = [], runner.Runner.call

    def sleep(self, command, environment, log):
        began.append(time.time())
        return call(self, [sys.executable, "-S", "-c", "import time; time.sleep(60)"], environment, log)

    def wait(*_, **__):
        while not began:
            time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.Runner, "call", sleep)
    monkeypatch.setattr(runner, "wait", wait)
    with pytest.raises(SystemExit) as stop:
        run.main(["--protocol", "base2new", "--trainers", "CoOp", "TAC", "--jobs", "1"])
    assert stop.value.code == 130 and len(began) == 1 and time.time() - began[0] < 20
    assert "goes on from here" in capsys.readouterr().err


@pytest.mark.parametrize(
    "code, said, expected",
    [
        (2, "x\nerror: no disk\n\n", "error: no disk"),
        (3, "", "it ended with code 3"),
        (-9, "epoch 3\n", "ended by SIGKILL (out of memory?)"),
    ],
)
def test_reasons(run, code, said, expected, tmp_path):
    """Catches: a failure shown as the last epoch's line, or as nothing."""
    from clusterprompt.running import runner

    (tmp_path / "log").write_text(said)
    assert runner.why(tmp_path / "log", code) == expected


def test_numbers_of_tables(run, tmp_path):
    """Catches: a mean over other seeds than those that are there without saying so, the average of base and new over
    HMs.
    """
    from clusterprompt.running.protocol_tables import Results

    for dataset, base in (("a", 60.0), ("b", 80.0)):
        for seed in (1, 2):
            for folder, accuracy in zip(
                run.protocols.base2new_folders(tmp_path, dataset, 16, "X", seed), (base + seed, 40.0)
            ):
                if (dataset, seed, accuracy) != ("b", 2, 40.0):
                    write_result(folder, accuracy)
    headers, rows = Results(tmp_path, ["X"], [1, 2]).base2new(["a", "b"], 16)
    assert headers == ["data set", "trainer", "base", "new", "HM"]
    assert rows[0][:4] == ["a", "X", "61.5 +- 0.5", "40.0 +- 0.0"]
    assert rows[1][2:] == ["81.5 +- 0.5", "40.0 +- 0.0 (1 of 2)", "53.6 +- 0.0 (1 of 2)"]
    assert rows[2] == ["average", "X", "71.5 +- 0.5", "40.0 +- 0.0 (1 of 2)", "51.2 +- 0.0 (1 of 2)"]  # of 71 and 40


def test_tests_of_a_model_that_is_no_more(run, tmp_path):
    """Catches: a model trained anew whose test fails, beside it in the table the test of the old one."""
    from clusterprompt.running.protocol_tables import Results

    for folders in (
        run.protocols.base2new_folders(tmp_path, "a", 16, "X", 1),
        (
            run.protocols.xd_train_folder(tmp_path, "a", 16, "X", 1),
            run.protocols.xd_test_folder(tmp_path, "b", 16, "X", 1),
        ),
    ):
        for folder in folders:
            write_result(folder, 60.0)
        os.utime(folders[1] / "result.json", (1, 1))
    results = Results(tmp_path, ["X"], [1])
    assert results.base2new(["a"], 16)[1] == [["X", "60.0 +- 0.0", "-", "-"]] and results.cross("a", ["b"], 16)[1] == [
        ["X", "60.0 +- 0.0", "-"]
    ]


def test_a_run_without_accuracy(run):
    """Catches: TEST.NO_TEST ends the runner, and with it all other runs."""
    (only,) = plan_of(run, "--protocol", "few_shot", "--trainers", "CoOp", "--seeds", "1", "--shots", "1")["few_shot"]
    write_result(only.folders[0], None)
    assert only.numbers() == "finished, not tested"


# ------------------------------------------------------------------ real runs


@pytest.mark.slow
def test_interrupted_twice(run, caltech_root, clip_file, monkeypatch, tmp_path, capsys):
    """Catches: other numbers after interrupts in the middle of training and between training and test than without
    them.
    """
    from clusterprompt.running import base2new

    for key, value in {"DATA": caltech_root, "BACKBONE": clip_file, "EPOCHS": 2, "SHOTS": 2}.items():
        monkeypatch.setenv(key, str(value))
    train = base2new.load_train()
    from dassl.engine import TrainerX

    died = []

    def call(self, command, environment, log):
        """Do in this process what the command does in its own."""
        with monkeypatch.context() as patch:
            for key in ("EPOCHS", "SHOTS", "CFG"):
                patch.setenv(key, environment[key])
            try:
                (train if command[1].endswith("train.py") else base2new).main(command[2:])
            except SystemExit as stop:
                return stop.code
        return 0

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
        words = "--protocol base2new cross_dataset --trainers CoOp --datasets caltech101 --source caltech101 --targets caltech101 --seeds 1 --jobs 1"
        code = run.main([*words.split(), "DATALOADER.NUM_WORKERS", "0", "TRAIN.CHECKPOINT_FREQ", "1"])
        said = capsys.readouterr().out
        return code, said[said.index("\nbase2new,") :].replace(str(tmp_path / out), "")

    monkeypatch.setattr("clusterprompt.running.runner.Runner.call", call)
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
