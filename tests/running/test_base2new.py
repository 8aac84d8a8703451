"""`clusterprompt base2new`: both halves, their folders, what is kept, refused and shown."""

import json
import shutil

import pytest

from clusterprompt.commands import base2new
from clusterprompt.record.protocols import Request, all_protocols
from clusterprompt.record.statistics import harmonic_mean
from clusterprompt.running.spec import RunSpec

pytestmark = pytest.mark.slow


@pytest.fixture
def world(small_runs):
    """Folder of base-to-new runs of a second."""
    return small_runs / "base2new"


def call(*words, trainer="CoOp", dataset="caltech101"):
    options = ["--trainer", trainer, "--dataset", dataset, "--seed", "1"]
    return base2new.main([*options, *words, "DATALOADER.NUM_WORKERS", "0"])


def folders(world, trainer="CoOp"):
    tail = f"caltech101/shots_2/{trainer}/basetonovel/seed1"
    return [world / half / tail for half in ("train_base", "test_new")]


def read(folder):
    return json.loads((folder / "result.json").read_text())


def times(world):
    return [(folder / "result.json").stat().st_mtime_ns for folder in folders(world)]


def test_base_to_new(world, capsys):
    """Catches: folders that the family's scripts do not find, halves mixed up, a second call that trains again."""
    assert call() == 0
    results = [read(folder) for folder in folders(world)]
    assert [result["subsample"] for result in results] == ["base", "new"]
    assert [result["n_test"] for result in results] == [9, 6]
    table = capsys.readouterr().out.splitlines()[-3:]
    assert table[0].split() == ["trainer", "dataset", "seed", "base", "new", "HM"]
    base, new = (result["accuracy"] for result in results)
    assert table[2].split()[3:] == [f"{value:.2f}" for value in (base, new, harmonic_mean(base, new))]

    before = times(world)
    assert call("--resume") == 0 and times(world) == before
    assert call("--overwrite") == 0 and all(new > old for new, old in zip(times(world), before))

    base_folder, new_folder = folders(world)
    shutil.rmtree(base_folder / "prompt_learner")
    shutil.rmtree(new_folder)
    assert call() == 2  # an untrained model would be tested in its place
    assert "has no folder prompt_learner/ to load from" in capsys.readouterr().err and not new_folder.exists()


def test_logs_are_parsed(world, capsys):
    """Catches: a log that the family's parsers cannot read."""
    from clusterprompt.commands import logs

    call()
    for folder, options in zip(folders(world), ([], ["--test-log"])):
        capsys.readouterr()
        assert logs.main([str(folder.parent), *options]) == 0
        assert f"accuracy {read(folder)['accuracy']:.2f}"[:-1] in capsys.readouterr().out


def test_other_settings_are_not_passed_off(world, monkeypatch, capsys):
    """Catches: the numbers of one epoch printed as those of two."""
    call()
    monkeypatch.setenv("EPOCHS", "2")
    assert call() == 2
    said = capsys.readouterr().err
    assert "OPTIM.MAX_EPOCH 1 -> 2" in said and "--overwrite" in said


def test_a_method_that_learns_nothing(world):
    """Catches: an evaluation that insists on a checkpoint that zero-shot CLIP has not."""
    assert call(trainer="ZeroshotCLIP") == 0 and read(folders(world, "ZeroshotCLIP")[1])["accuracy"] >= 0


def test_a_method_that_serves_no_new_classes(world, capsys):
    """Catches: a run that ends with an error after its training; new classes tested with residuals of others."""
    assert call(trainer="TaskRes") == 0
    said = capsys.readouterr().out
    row = said.splitlines()[-1].split()
    assert float(row[3]) >= 0 and row[4] == row[5] == "-" and not folders(world, "TaskRes")[1].exists()
    assert "TaskRes is tested on the base classes alone: each class has a residual of its own." in said


def test_the_name_of_the_authors_code(world, capsys):
    """Catches: a name that train.py takes and that has no yaml here."""
    assert call(trainer="CoOp_ATP") == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[0] == "ATPrompt"
    assert all((folder / "result.json").is_file() for folder in folders(world, "ATPrompt"))


def test_a_base_half_that_is_not_tested(world, capsys):
    """Catches: a traceback after the training, for want of one of the two accuracies."""
    assert call("TEST.NO_TEST", "True") == 0
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row[3] == row[5] == "-" and float(row[4]) >= 0


def test_missing_data_and_weights(world, monkeypatch, capsys, tmp_path):
    """Catches: a newcomer without data or weights who is not told what works without."""
    for key, value in (("DATA", tmp_path / "none"), ("BACKBONE", tmp_path / "none.pt")):
        with monkeypatch.context() as patch:
            patch.setenv(key, str(value))
            assert call() == 2
        said = capsys.readouterr().err
        assert str(value) in said and len(said.splitlines()) == 1
        assert "clusterprompt base2new --trainer CoOp --dataset shapes --seed 1" in said
    assert not world.exists()


def test_options_of_the_protocol_are_refused(world, capsys):
    """Catches: --output-dir accepted and ignored."""
    with pytest.raises(SystemExit) as stop:
        call("--output-dir", "elsewhere")
    assert stop.value.code == 2 and "set by the protocol" in capsys.readouterr().err


def spec_of(trainer, dataset, **settings):
    protocol = all_protocols()["base2new"]
    leg = protocol.legs(Request(dataset))[0]
    return RunSpec.of(leg, trainer, 1, protocol.yaml, **settings)


def test_drawn_data_use_the_embedded_clip(monkeypatch):
    """Catches: 350 MB of weights downloaded for 64 px drawings."""
    monkeypatch.delenv("BACKBONE", raising=False)
    assert spec_of("TAC", "shapes").backbone == "tiny"
    assert spec_of("TAC", "caltech101").backbone == ""


@pytest.mark.parametrize(
    "backbone, trainer, given, expected",
    [
        ("tiny", "MaPLe", (), {"TRAINER.MAPLE.PROMPT_DEPTH": 9}),
        (
            "tiny",
            "PromptSRC",
            ("TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT", "2"),
            {"TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION": 9},
        ),
        ("tiny", "TAC", (), {}),
        ("tiny", "CoOp", (), {}),
        ("ViT-B/16", "MaPLe", (), {}),
    ],
)
def test_depths_fit_the_embedded_clip(backbone, trainer, given, expected):
    """Catches: a yaml of 9 layers that fails on the embedded 4, a depth that the user chose lost, or another backbone's
    changed.
    """
    spec = spec_of(trainer, "shapes", backbone=backbone, pairs=given)
    assert spec.deep_prompts() == expected
    opts = spec.train_options().opts
    assert {key: opts[opts.index(key) + 1] for key in expected} == {key: "-1" for key in expected}


@pytest.mark.parametrize(
    "trainer, expected", [("MMRL", {"REP_LAYERS": "[]"}), ("MMA", {"ADAPTER_START": "-1", "ADAPTER_END": "-1"})]
)
def test_other_layers_fit_the_embedded_clip(trainer, expected):
    """Catches: a list of layers, or a first layer, that fails on the embedded 4."""
    opts = spec_of(trainer, "shapes", backbone="tiny").train_options().opts
    pairs = dict(zip(opts[::2], opts[1::2]))
    assert {key.split(".")[-1]: value for key, value in pairs.items() if key.startswith("TRAINER.")} == expected
    assert not spec_of(trainer, "shapes", backbone="ViT-B/16").deep_prompts()


# ------------------------------------------------------------------ what is known before training


def test_descriptions_of_the_new_half(world, capsys, tmp_path, monkeypatch):
    """Catches: hours of training on the base half before a missing description of the new half is named."""
    (tmp_path / "d.json").write_text(
        json.dumps({name: ["it."] for name in ("face", "airplane", "anchor", "stop sign")})
    )
    monkeypatch.setattr("clusterprompt.running.chain.train", lambda options: pytest.fail("something was trained"))
    assert call("TRAINER.TAC.DESCRIPTIONS", str(tmp_path / "d.json"), trainer="TAC") == 2
    said = capsys.readouterr().err
    assert "could not be tested" in said and "no description for 1 of 2 classes: 'yin yang'" in said
    assert said.count("\n") == 1 and not (world / "train_base").exists()


def test_a_name_of_the_new_half(small_runs, own_caltech_root, capsys, monkeypatch):
    """Catches: the same, for a class name of the new half that is longer than CLIP's context."""
    split = own_caltech_root / "caltech-101" / "split_zhou_Caltech101.json"
    split.write_text(
        split.read_text().replace("yin_yang", "yin_" * 80 + "yang").replace("yin_" * 80 + "yang/", "yin_yang/")
    )
    monkeypatch.setenv("DATA", str(own_caltech_root))
    monkeypatch.setenv("BACKBONE", "tiny")
    monkeypatch.setattr("clusterprompt.running.chain.train", lambda options: pytest.fail("something was trained"))
    assert call() == 2
    said = capsys.readouterr().err
    assert "new half" in said or "could not be tested" in said
    assert "tokens with SOS, EOT" in said and "CLIP's context is 77" in said


def test_a_setting_leaves_a_finished_run_alone(world, capsys):
    """Catches: a value that fails at the first batch, after --overwrite has emptied the folder of a finished run."""
    assert call() == 0
    before = times(world)
    assert call("--overwrite", "INPUT.RRCROP_SCALE", "(0.9, 0.1)") == 2
    assert "INPUT.RRCROP_SCALE is (0.9, 0.1); allowed: 2 values" in capsys.readouterr().err
    assert times(world) == before
