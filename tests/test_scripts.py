"""The scripts: shell syntax, one implementation behind the doors, base-to-new, log parsing, the choice of a Python."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
SCRIPTS = CHECKOUT / "scripts"
SHELL = [*sorted(SCRIPTS.rglob("*.sh")), CHECKOUT / ".ci" / "run"]
DOORS = sorted(SCRIPTS.glob("*/base2new_train.sh"))

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")


def load(name):
    return importlib.import_module(
        {"base2new": "clusterprompt.running.base2new", "parse_test_res": "clusterprompt.commands.logs"}[name]
    )


@pytest.fixture(scope="module")
def base2new():
    return load("base2new")


@pytest.fixture(scope="module")
def parser():
    return load("parse_test_res")


@pytest.mark.parametrize("path", SHELL, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_shell_syntax(path):
    """Catches: a shell file that does not parse, or does not run in the folder of the caller."""
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert path.read_text().startswith("#") and os.access(path, os.X_OK)


# ------------------------------------------------------------------ the Python that scripts use


def run_setup(cwd, **environment):
    code = f'set -euo pipefail; source "{SCRIPTS}/setup_env.sh"; echo "uses $PYTHON"'
    ran = subprocess.run(
        ["bash", "-c", code], cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}
    )
    return ran.returncode, ran.stdout, ran.stderr


def test_an_environment_with_everything_is_used(tmp_path):
    """Catches: gigabytes installed although everything is there; set-up work on every call."""
    assert run_setup(tmp_path, PYTHON=sys.executable) == (0, f"uses {sys.executable}\n", "")
    assert not list(tmp_path.iterdir())


def test_a_dassl_that_is_none(tmp_path):
    """Catches: DASSL that points nowhere, silently ignored."""
    code, _, errors = run_setup(tmp_path, PYTHON=sys.executable, DASSL=str(tmp_path))
    assert code == 1 and "holds no folder 'dassl'" in errors


def test_a_given_dassl_comes_first(tmp_path):
    """Catches: DASSL=... that still runs on the stand-in."""
    (tmp_path / "dassl").mkdir()
    (tmp_path / "dassl" / "__init__.py").write_text("")
    code = f'source "{SCRIPTS}/setup_env.sh"; "$PYTHON" -c "import dassl; print(dassl.__file__)"'
    environment = {**os.environ, "PYTHON": sys.executable, "DASSL": "."}
    ran = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert ran.stdout.strip() == str(tmp_path / "dassl" / "__init__.py"), ran.stderr


# ------------------------------------------------------------------ the doors


def asked(tmp_path, *words, **environment):
    """What Python is asked to run by a shell script and its arguments."""
    fake = tmp_path / "python"  # passes for a complete Python, and writes down what it is asked to run
    fake.write_text('#!/bin/sh\n[ "$1" = - ] && exit 0\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(fake), **environment}
    return subprocess.run(
        ["bash", *map(str, words)], cwd=tmp_path, capture_output=True, text=True, env=environment
    ).stdout.splitlines()


@pytest.mark.parametrize("door", DOORS, ids=lambda path: path.parent.name)
def test_doors(door, tmp_path):
    """Catches: a door to the wrong trainer, or one that loses arguments."""
    script, *passed = asked(tmp_path, door, "shapes", "3", "--resume", "TRAINER.X.INIT", "a photo of a")
    assert script == str(SCRIPTS / "base2new.py")
    trainer = passed[1]
    assert (CHECKOUT / "configs" / "trainers" / trainer / "basetonovel.yaml").is_file()
    assert CHECKOUT / load("base2new").door(trainer) == door
    expected = [
        "--trainer",
        trainer,
        "--dataset",
        "shapes",
        "--seed",
        "3",
        "--resume",
        "TRAINER.X.INIT",
        "a photo of a",
    ]
    assert passed == expected


STEPS = {
    "xd_train": "--protocol cross_dataset --source {0} --targets",
    "xd_test": "--protocol cross_dataset domain_generalisation --source {1} --targets {0}",
    "few_shot": "--protocol few_shot --datasets {0}",
}


@pytest.mark.parametrize("step", STEPS)
def test_doors_of_the_other_protocols(step, tmp_path):
    """Catches: a method without this door, one to another trainer or step, a source that is not the target's."""
    script, *passed = asked(
        tmp_path, SCRIPTS / "tac" / f"{step}.sh", "shapes_noise", "3", "--fresh", "TRAINER.X.INIT", "a photo of a"
    )
    assert script == str(SCRIPTS / "run.py")
    assert passed == [
        *STEPS[step].format("shapes_noise", "shapes").split(),
        "--trainers",
        "TAC",
        "--seeds",
        "3",
        "--fresh",
        "TRAINER.X.INIT",
        "a photo of a",
    ]
    for base in DOORS:  # the same line as the one that was run, but for the trainer
        trainer = base.read_text().split()[-2]
        assert (
            base.with_name(f"{step}.sh")
            .read_text()
            .splitlines()[-1]
            .endswith(f'/../protocol.sh" {step} {trainer} "$@"')
        )


def test_source_of_a_target(tmp_path):
    """Catches: SOURCE ignored, or real data tested with a model of drawn ones."""
    door = SCRIPTS / "tac" / "xd_test.sh"
    for environment, source in (({}, "imagenet"), ({"SOURCE": "caltech101"}, "caltech101")):
        passed = asked(tmp_path, door, "dtd", "1", **environment)
        assert passed[passed.index("--source") + 1] == source


def test_every_trainer_has_a_way_in(base2new):
    """Catches: a hint that names a script that does not exist."""
    assert base2new.door("TAC") == "scripts/tac/base2new_train.sh"
    assert base2new.door("Brand") == "scripts/base2new.sh Brand"


def test_doors_say_how_they_are_used():
    """Catches: a door called without arguments that starts installing, or dies of an unbound variable."""
    ran = subprocess.run(["bash", str(DOORS[0])], capture_output=True, text=True)
    assert ran.returncode == 2 and "usage:" in ran.stderr and "shapes 1" in ran.stderr


# ------------------------------------------------------------------ base to new


@pytest.fixture
def world(monkeypatch, caltech_root, clip_file, tmp_path):
    """The environment of a base-to-new run of a second."""
    for key, value in {
        "DATA": caltech_root,
        "BACKBONE": clip_file,
        "EPOCHS": 1,
        "SHOTS": 2,
        "OUTPUT": tmp_path / "out",
    }.items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.delenv("CFG", raising=False)
    return tmp_path / "out" / "base2new"


def call(base2new, *words, trainer="CoOp", dataset="caltech101"):
    return base2new.main(
        ["--trainer", trainer, "--dataset", dataset, "--seed", "1", *words, "DATALOADER.NUM_WORKERS", "0"]
    )


@pytest.mark.slow
def test_base_to_new(base2new, parser, world, capsys):
    """Catches: folders that the family's scripts do not find, halves mixed up, a log that is not parsed, a second call
    that trains again.
    """
    scores = call(base2new)
    base, new = (
        world / half / "caltech101" / "shots_2" / "CoOp" / "basetonovel" / "seed1"
        for half in ("train_base", "test_new")
    )
    results = [json.loads((folder / "result.json").read_text()) for folder in (base, new)]
    assert [result["subsample"] for result in results] == ["base", "new"]
    assert [result["n_test"] for result in results] == [9, 6]
    assert scores["base"] == results[0]["accuracy"] and scores["new"] == results[1]["accuracy"]
    assert scores["hm"] == pytest.approx(base2new.harmonic_mean(scores["base"], scores["new"]))
    table = capsys.readouterr().out.splitlines()[-3:]
    assert table[0].split() == ["trainer", "dataset", "seed", "base", "new", "HM"]
    assert f"{scores['hm']:.2f}" in table[2]

    assert parser.read_log(base / "log.txt", "accuracy", parser.TRAINED) == pytest.approx(scores["base"], abs=0.06)
    assert parser.read_log(new / "log.txt", "accuracy", parser.TESTED) == pytest.approx(scores["new"], abs=0.06)

    before = [(folder / "result.json").stat().st_mtime_ns for folder in (base, new)]
    assert call(base2new, "--resume") == scores
    assert [(folder / "result.json").stat().st_mtime_ns for folder in (base, new)] == before

    call(base2new, "--overwrite")
    assert all((folder / "result.json").stat().st_mtime_ns > old for folder, old in zip((base, new), before))

    shutil.rmtree(base / "prompt_learner")
    shutil.rmtree(new)
    with pytest.raises(SystemExit) as stop:  # an untrained model would be tested in its place
        call(base2new)
    assert (
        stop.value.code == 2
        and "has no folder prompt_learner/ to load from" in capsys.readouterr().err
        and not new.exists()
    )


def test_other_settings_are_not_passed_off(base2new, world, monkeypatch, capsys):
    """Catches: the numbers of one epoch printed as those of two."""
    call(base2new)
    monkeypatch.setenv("EPOCHS", "2")
    with pytest.raises(SystemExit) as stop:
        call(base2new)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "OPTIM.MAX_EPOCH 1 -> 2" in said and "--overwrite" in said


def test_a_method_that_learns_nothing(base2new, world):
    """Catches: an evaluation that insists on a checkpoint that zero-shot CLIP has not."""
    assert set(call(base2new, trainer="ZeroshotCLIP")) == {"base", "new", "hm"}


def test_a_base_half_that_is_not_tested(base2new, world, capsys):
    """Catches: a traceback after the training, for want of one of the two accuracies."""
    scores = call(base2new, "TEST.NO_TEST", "True")
    assert scores["base"] is scores["hm"] is None and scores["new"] >= 0
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row[3] == row[5] == "-"


def test_missing_data_and_weights(base2new, world, monkeypatch, capsys, tmp_path):
    """Catches: a newcomer without data or weights who is not told what works without."""
    for key, value in (("DATA", tmp_path / "none"), ("BACKBONE", tmp_path / "none.pt")):
        with monkeypatch.context() as patch:
            patch.setenv(key, str(value))
            with pytest.raises(SystemExit) as stop:
                call(base2new)
        said = capsys.readouterr().err
        assert stop.value.code == 2 and str(value) in said
        assert "bash scripts/coop/base2new_train.sh shapes 1" in said
    assert not world.exists()


def test_embedded_data_use_the_embedded_clip(base2new, monkeypatch):
    """Catches: 350 MB of weights downloaded for 64 px drawings."""
    monkeypatch.delenv("BACKBONE", raising=False)
    arguments = base2new.argparse.Namespace(trainer="TAC", dataset="shapes", seed=1)
    options = base2new.common_options(arguments)
    assert options[options.index("--backbone") + 1] == "tiny"
    arguments.dataset = "caltech101"
    assert "--backbone" not in base2new.common_options(arguments)


@pytest.mark.parametrize(
    "backbone, trainer, given, expected",
    [
        ("tiny", "MaPLe", [], ["TRAINER.MAPLE.PROMPT_DEPTH", "-1"]),
        ("tiny", "IVLP", ["TRAINER.IVLP.PROMPT_DEPTH_TEXT", "2"], ["TRAINER.IVLP.PROMPT_DEPTH_VISION", "-1"]),
        ("tiny", "TAC", [], []),
        ("tiny", "CoOp", [], []),
        ("ViT-B/16", "MaPLe", [], []),
    ],
)
def test_depths_fit_the_embedded_clip(base2new, backbone, trainer, given, expected, monkeypatch, capsys):
    """Catches: a yaml of 9 layers that fails on the embedded 4, a depth that the user chose lost, or another backbone's
    changed.
    """
    monkeypatch.setenv("BACKBONE", backbone)
    monkeypatch.delenv("CFG", raising=False)
    options = base2new.common_options(base2new.argparse.Namespace(trainer=trainer, dataset="shapes", seed=1))
    assert base2new.fitting_depths(options, given) == expected
    assert bool(capsys.readouterr().out) == bool(expected)


@pytest.mark.parametrize("base, new, expected", [(60, 40, 48), (50, 50, 50), (0, 0, 0), (80, 0, 0)])
def test_harmonic_mean(base2new, base, new, expected):
    """Catches: the arithmetic mean, or a division by zero."""
    assert base2new.harmonic_mean(base, new) == pytest.approx(expected)


# ------------------------------------------------------------------ logs

LOG = """* accuracy: 11.1%
{signal}
* total: 2,465
* accuracy: 50.0%
* accuracy: {value}%
* error: 1.0%
"""


def write_logs(folder, values, signal="Finish training"):
    for i, value in enumerate(values, 1):
        (folder / f"seed{i}").mkdir(parents=True)
        (folder / f"seed{i}" / "log.txt").write_text(LOG.format(signal=signal, value=value))


@pytest.mark.parametrize(
    "signal, option", [("Finish training", []), ("Finished training", []), ("=> result", ["--test-log"])]
)
def test_mean_over_seeds(parser, tmp_path, capsys, signal, option):
    """Catches: numbers before the signal counted, the first instead of the last match, a deviation other than the
    family's.
    """
    write_logs(tmp_path, ["90.0", "91.0", "95.0"], signal)
    parser.main([str(tmp_path), *option])
    said = capsys.readouterr().out
    assert "* accuracy: 92.00% +- 2.16%" in said  # sqrt(14 / 3)
    assert "95 % interval 85.43 to 98.57" in said  # 92 +- 4.3027 * 2.6458 / sqrt(3)


def test_unfinished_seeds_are_left_out(parser, tmp_path, capsys):
    """Catches: a run without a result that counts as 0, or stops the parser."""
    write_logs(tmp_path, ["90.0", "80.0"])
    (tmp_path / "seed2" / "log.txt").write_text("epoch [1/2]\n* accuracy: 10.0%\n")
    parser.main([str(tmp_path)])
    said = capsys.readouterr().out
    assert "seed2: not finished" in said and "accuracy: 90.00% +- 0.00%  (1 runs)" in said


def test_several_experiments(parser, tmp_path, capsys):
    """Catches: seeds of different experiments thrown into one mean."""
    write_logs(tmp_path / "a", ["90.0", "92.0", "94.0"])
    write_logs(tmp_path / "b", ["50.0"])
    parser.main([str(tmp_path), "--multi-exp"])
    assert "Average of 2 experiments: 71.00%" in capsys.readouterr().out


def test_other_keyword(parser, tmp_path, capsys):
    """Catches: --keyword ignored."""
    write_logs(tmp_path, ["90.0"])
    parser.main([str(tmp_path), "--keyword", "error"])
    assert "* error: 1.00%" in capsys.readouterr().out


def test_nothing_to_parse(parser, tmp_path, capsys):
    """Catches: "nan +- nan" for a wrong folder or a forgotten --test-log."""
    write_logs(tmp_path, ["90.0"], "=> result")
    for words in ([str(tmp_path)], [str(tmp_path / "no")]):
        with pytest.raises(SystemExit) as stop:
            parser.main(words)
        assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "add --test-log" in said and "no such folder" in said
