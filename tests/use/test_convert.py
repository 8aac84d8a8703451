"""clusterprompt convert: official checkpoints and our own into the small forms, and back into a trainer."""

import json
import subprocess
import sys

import pytest
import torch
from recordings import LOGITS, logits, start, write_official
from safetensors import safe_open

from clusterprompt.commands import convert

OFFICIAL = ("coop", "cocoop", "kgcoop", "vpt", "ivlp", "maple", "promptsrc", "tac", "clip_adapter")


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFICIAL)
def test_official_checkpoints(name, build, tmp_path, capsys):
    """Catches: a method guessed wrongly, an entry lost or misnamed, CLIP left in; the recorded logits must come out of
    both forms.
    """
    trainer, recording = start(name, build, "new")
    path = write_official(tmp_path / "official", name, trainer)
    method = ["--trainer", "CoOp"] if name == "coop" else []
    assert convert.main([str(tmp_path / "official"), str(tmp_path / "small"), *method]) == 0
    said = capsys.readouterr().out
    assert f": {type(trainer).__name__}, " in said
    small = tmp_path / "small" / trainer.checkpoint_folder / "model.pth.tar-2"
    assert set(torch.load(small, weights_only=True)["state_dict"]) == set(trainer.learner.state_dict())
    words = [*method, "--classes", "a cat", "dog", "--backbone", "ViT-B/16"]
    assert convert.main([str(path), str(tmp_path / "one.safetensors"), *words]) == 0
    with safe_open(tmp_path / "one.safetensors", "pt") as file:
        about = file.metadata()
    assert (
        about["method"] == type(trainer).__name__
        and json.loads(about["classes"]) == ["a cat", "dog"]
        and about["backbone"] == "ViT-B/16"
    )
    for place in (tmp_path / "small", tmp_path / "one.safetensors"):
        for p in trainer.learner.parameters():
            p.data.zero_()
        trainer.load_model(str(place))
        torch.testing.assert_close(
            logits(trainer, recording["eval_new_img_u8"]), recording["eval_new_logits_after"], rtol=0, atol=LOGITS
        )


@pytest.mark.slow
def test_own_run(build, tmp_path):
    """Catches: metadata that are not the run's, or a file that MODEL.INIT_WEIGHTS does not take."""
    trainer = build("TAC", output=tmp_path / "run")
    trainer.train()
    assert convert.main([str(tmp_path / "run"), str(tmp_path / "tac"), "--safetensors"]) == 0
    with safe_open(tmp_path / "tac.safetensors", "pt") as file:
        about = file.metadata()
    assert (
        about["method"] == "TAC" and about["epoch"] == "2" and json.loads(about["classes"]) == list(trainer.classnames)
    )
    assert json.loads(about["config"])["TRAINER"]["TAC"]["PROMPT_DEPTH_TEXT"] == 2
    other = build("TAC", "SEED", 2, "MODEL.INIT_WEIGHTS", str(tmp_path / "tac.safetensors"))
    assert all(
        torch.equal(value, other.learner.state_dict()[name]) for name, value in trainer.learner.state_dict().items()
    )


def test_class_aware_prompts_are_told_from_conditional_ones(build, tmp_path, capsys):
    """Catches: TCP taken for CoCoOp, whose entries have the same names."""
    trainer = build("TCP")
    state = {**trainer.learner.state_dict(), "token_prefix": torch.zeros(1), "token_suffix": torch.zeros(1)}
    (tmp_path / "prompt_learner").mkdir()
    torch.save({"state_dict": state, "epoch": 50}, tmp_path / "prompt_learner" / "model.pth.tar-50")
    assert convert.main([str(tmp_path / "prompt_learner" / "model.pth.tar-50"), str(tmp_path / "out")]) == 0
    assert ": TCP, " in capsys.readouterr().out


def fails(capsys, *words):
    """Run a command line that has to be refused; what it said."""
    assert convert.main([str(word) for word in words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said


def test_what_cannot_be_converted(build, tmp_path, capsys):
    """Catches: a traceback, or a wrong guess, where the user has to say more or has named the wrong thing."""
    trainer, _ = start("coop", build, "new")
    path = write_official(tmp_path / "official", "coop", trainer)
    assert "candidates: CoOp, ProGrad. Name it with --trainer" in fails(capsys, path, tmp_path / "out")
    assert "no such method; allowed are" in fails(capsys, path, tmp_path / "out", "--trainer", "Coop")
    assert "does not exist" in fails(capsys, tmp_path / "nowhere", tmp_path / "out")
    assert "holds no checkpoint" in fails(capsys, tmp_path, tmp_path / "out")
    assert "model.pth.tar-9 does not exist" in fails(
        capsys, tmp_path / "official", tmp_path / "out", "--trainer", "CoOp", "--epoch", "9"
    )
    tac = write_official(tmp_path / "tac", "tac", trainer)
    assert "VPT_topk_t.bias" in fails(capsys, tac, tmp_path / "out", "--trainer", "IVLP")
    assert not (tmp_path / "out").exists()
    assert convert.main([str(path), str(tmp_path / "out"), "--trainer", "CoOp"]) == 0
    assert "exists already" in fails(capsys, path, tmp_path / "out", "--trainer", "CoOp")


@pytest.mark.slow
def test_nothing_in_a_checkpoint_is_run(tmp_path):
    """Catches: full unpickling of a file from the internet."""
    (tmp_path / "prompt_learner").mkdir()
    path = tmp_path / "prompt_learner" / "model.pth.tar-1"
    torch.save({"state_dict": {"ctx": Bomb(str(tmp_path / "exploded"))}}, path)
    ran = subprocess.run(
        [sys.executable, "-m", "clusterprompt.convert", str(path), str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 2 and ran.stderr.startswith("error: ") and not (tmp_path / "exploded").exists()


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)
