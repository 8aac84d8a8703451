"""Runs from strangers: what their records name is not opened, and what their checkpoints hold is checked."""

import json
import os
import shutil

import pytest
import torch
from hostile_files import evil_script

from clusterprompt import load_run
from clusterprompt.commands import convert, export, pictures, predict
from clusterprompt.trainers.parts.checkpoints import read_with_notes

pytestmark = pytest.mark.slow


@pytest.fixture
def stranger(finished_run, tmp_path):
    """A function that copies a run of CoOp and changes its record: ``stranger(backbone)``."""

    def make(backbone="tiny", **dataset):
        folder = tmp_path / f"run{len(os.listdir(tmp_path))}"
        shutil.copytree(finished_run("CoOp")[0], folder)
        record = json.loads((folder / "result.json").read_text())
        record["config"]["MODEL"]["BACKBONE"]["NAME"] = record["backbone"] = str(backbone)
        record["config"]["DATASET"].update(dataset)
        (folder / "result.json").write_text(json.dumps(record))
        return folder

    return make


@pytest.mark.parametrize("command", [predict, export], ids=["predict", "export"])
def test_a_record_opens_no_file(command, stranger, tmp_path, capsys, monkeypatch):
    """Catches: a file that is opened, or code that runs, because the record of a stranger names it."""
    canary = tmp_path / "canary"
    monkeypatch.setenv("HIDDEN", str(tmp_path))
    evil_script(tmp_path / "clip.pt", canary)
    for named in (tmp_path / "clip.pt", "$HIDDEN/clip.pt", "/dev/zero", "clip.pt"):
        out = tmp_path / "out.onnx"
        capsys.readouterr()
        assert command.main(["--run", str(stranger(named)), str(out)]) == 2
        said = capsys.readouterr().err
        assert f"names CLIP {named}" in said and "--trust-record" in said and "--backbone" in said
        assert said.count("\n") == 1 and not canary.exists() and not out.exists()


def test_word_of_the_user(stranger, backbone, tmp_path):
    """Catches: a run of one's own that cannot be used: the CLIP is named, or the record is trusted."""
    folder = stranger(backbone)
    assert load_run(folder, backbone=str(backbone)).classnames == load_run(folder, trust_record=True).classnames
    described = stranger(backbone, DESCRIPTIONS="/dev/zero")  # only trainings need them
    assert load_run(described, backbone=str(backbone)).classnames


def test_template_is_no_program(stranger, backbone):
    """Catches: a template that asks for gigabytes, or for attributes of objects."""
    folder = stranger(backbone)
    record = json.loads((folder / "result.json").read_text())
    for template in ("{:>2000000000}", "{0.__class__}", "{name}", "no braces", "{} {}"):
        (folder / "result.json").write_text(json.dumps({**record, "template": template}))
        with pytest.raises(ValueError, match="its template .* must hold {} once"):
            load_run(folder, backbone=str(backbone))


@pytest.mark.parametrize(
    "value, message",
    [
        (torch.full((16, 32), float("nan")), "tensor 'ctx' holds NaN or infinite"),
        (torch.full((16, 32), float("inf")), "tensor 'ctx' holds NaN or infinite"),
        (torch.ones(16, 32, dtype=torch.int64), "tensor 'ctx' holds int64"),
        (torch.ones(16, 32, dtype=torch.complex64), "tensor 'ctx' holds complex64"),
        ("text", "entry 'ctx' is no tensor but a str"),
        (None, "empty state dict"),
    ],
)
def test_weights_that_cannot_be_used(value, message, stranger, backbone, tmp_path, capsys):
    """Catches: NaN, infinite, integer, complex or no weights that are evaluated or converted without a word."""
    folder = stranger(backbone)
    (file,) = folder.glob("prompt_learner/model*")
    torch.save({"state_dict": {} if value is None else {"ctx": value}, "epoch": 1}, file)
    for command, words in (
        (predict, ["--run", str(folder), "--backbone", str(backbone), "x.jpg"]),
        (convert, [str(folder), str(tmp_path / "small")]),
    ):
        capsys.readouterr()
        assert command.main(words) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1 and not (tmp_path / "small").exists(), said


@pytest.mark.parametrize(
    "method, entries, message",
    [
        ("TAC", {"ctx": torch.ones(4, 32)}, "it lacks centers"),
        ("CoOp", {"../../x": torch.ones(1), "ctx": torch.ones(1)}, "it also holds '../../x'"),
        ("CoOp", {"keys": torch.ones(1)}, "it also holds 'keys'; it lacks ctx"),
    ],
)
def test_convert_takes_only_entries_of_the_method(method, entries, message, tmp_path, capsys):
    """Catches: any entries that are written as those of the method that the file says."""
    torch.save({"state_dict": entries, "method": method, "epoch": 1}, tmp_path / "model.pth.tar-1")
    assert convert.main([str(tmp_path / "model.pth.tar-1"), str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_pointer_stays_in_its_folder(stranger, backbone, tmp_path, capsys):
    """Catches: a file elsewhere that is read because a pointer names it; no way out where its checkpoint is missing."""
    folder = stranger(backbone)
    (file,) = folder.glob("prompt_learner/model*")
    for named in (f"../../{file.name}x", "/etc/passwd", "model.pth.tar-9", ""):
        (folder / "prompt_learner" / "checkpoint").write_text(named + "\n")
        assert predict.main(["--run", str(folder), "--backbone", str(backbone), "x.jpg"]) == 2
        said = capsys.readouterr().err
        assert f"{folder}/prompt_learner/" in said and f"holds {file.name}" in said and "root:" not in said


def test_notes_of_other_kinds(tmp_path):
    """Catches: notes of a checkpoint that are of another kind, and end in a traceback later."""
    notes = {"method": ["TAC"], "epoch": [1], "trained_on": "x", "classes": [1, 2]}
    torch.save({"state_dict": {"module.ctx": torch.ones(1)}, **notes}, tmp_path / "x")
    assert read_with_notes(tmp_path / "x") == ({"ctx": torch.ones(1)}, {})


def test_names_are_printed_as_one_line(finished_run, backbone, tmp_path, capsys):
    """Catches: a newline in a file's name that makes one result look like two; terminal codes that are carried out."""
    folder, trainer = finished_run("CoOp")
    names = ["a\nb.jpg", "c\x1b[2Jd.jpg"]
    for name in names:
        shutil.copy(trainer.dm.dataset.test[0].impath, tmp_path / name)
    words = ["--run", str(folder), "--backbone", str(backbone), *(str(tmp_path / name) for name in names)]
    assert predict.main([*words, str(tmp_path / "gone\x1b[2J")]) == 1
    said, error = capsys.readouterr()
    assert said.count("\n") == 2 and "a\\nb.jpg\t" in said and "c\\x1b[2Jd.jpg\t" in said
    assert "\x1b" not in said + error
    predict.main([*words, "--json"])
    assert [json.loads(line)["path"] for line in capsys.readouterr().out.splitlines()] == words[4:]


def test_pictures_ask_too(finished_run, capsys):
    """Catches: pictures that open what the record names."""
    pytest.importorskip("matplotlib")
    assert pictures.main(["--run", str(finished_run("TAC")[0]), "--images", "x.jpg"]) == 2
    assert "names CLIP" in capsys.readouterr().err
