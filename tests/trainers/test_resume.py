"""Resuming: states of this version and of older ones, what is refused, checkpoint files, on either Dassl."""

import json

import dassl
import hostile_files
import pytest
import torch
from dassl.engine import TrainerX

from clusterprompt.registration import own_trainers
from clusterprompt.trainers.parts.checkpoints import checkpoint_path, learner_weights

pytestmark = pytest.mark.slow

FAST = ("OPTIM.MAX_EPOCH", 2, "TRAIN.CHECKPOINT_FREQ", 1, "TEST.NO_TEST", True)
WARM = ("OPTIM.MAX_EPOCH", 4, "OPTIM.WARMUP_EPOCH", 2, "TEST.NO_TEST", False)
CASES = {cls.__name__: (cls.__name__,) for cls in own_trainers() if cls.__name__ != "ZeroshotCLIP"} | {
    "kept views": ("AttriPrompt", "TRAINER.ATTRIPROMPT.CACHE_VIEWS", 2),
    "best epoch": ("PromptSRC", "TEST.FINAL_MODEL", "best_val", "OPTIM.WARMUP_TYPE", "linear"),
    "no warm-up": ("CoOp", "OPTIM.WARMUP_EPOCH", -1, "OPTIM.NAME", "adam"),
    "steps": ("CoOp", "OPTIM.LR_SCHEDULER", "multi_step", "OPTIM.STEPSIZE", (2, 3), "OPTIM.WARMUP_RECOUNT", False),
    "workers": ("CoOp", "DATALOADER.NUM_WORKERS", 2),
    "no checkpoints": ("KgCoOp", "TRAIN.CHECKPOINT_FREQ", 0),
}


class Stopped(Exception):
    pass


@pytest.fixture
def small(build, clip_file):
    """A function that builds a trainer on a CLIP that is small enough to train in a second."""

    def make(name, output, *pairs):
        return build(name, *FAST, "MODEL.BACKBONE.NAME", clip_file, *pairs, output=output)

    return make


def weights(trainer):
    return {name: value.clone() for name, value in trainer.learner.state_dict().items()}


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def cut(trainer, epoch=1):
    """Train until an epoch (from 0) and stop there."""

    def stop():
        if trainer.epoch == epoch:
            raise Stopped

    trainer.before_epoch = stop
    with pytest.raises(Stopped):
        trainer.train()


def cut_inside(trainer, epoch, batch):
    """Train until a batch of an epoch, both from 0, and stop before its step."""
    step = trainer.forward_backward

    def stop(data):
        if (trainer.epoch, trainer.batch_idx) == (epoch, batch):
            raise Stopped
        return step(data)

    trainer.forward_backward = stop
    with pytest.raises(Stopped):
        trainer.train()


def left_by(folder):
    """Return what a run leaves: its record without times, and its predictions."""
    record = json.loads((folder / "result.json").read_text())
    history = [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in record["history"]]
    scores = [record[key] for key in ("status", "accuracy", "macro_f1", "per_class")]
    return history, scores, (folder / "predictions.csv").read_text()


def as_older_version(folder, name, pointer):
    """Rewrite a folder as the version before wrote it: the state without the weights, the pointer as after a kill."""
    path = folder / "resume_state.pt"
    state = torch.load(path, weights_only=True)
    kept = {key: state[key] for key in ("epoch", "best_result", "scaler", "trainer")}
    torch.save({**kept, "rng": state["generators"]}, path)
    (folder / name / "checkpoint").write_text(pointer)


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_is_the_uninterrupted_one(small, tmp_path, case):
    """Catches: a rate that stands still after the warm-up, lost averages of epochs, moments, caches or best results,
    other random draws, epochs done twice: whatever makes the weights of a run that was stopped twice differ in a bit.
    """
    name, *options = CASES[case]
    whole = small(name, tmp_path / "whole", *WARM, *options)
    whole.train()
    for stop in ((1, 2), (3, 1)):
        cut_inside(small(name, tmp_path / "cut", *WARM, *options), *stop)
        assert json.loads((tmp_path / "cut" / "result.json").read_text())["status"] == "training"
    resumed = small(name, tmp_path / "cut", *WARM, *options)
    resumed.train()
    assert resumed.start_epoch == (0 if case == "no checkpoints" else 3)
    assert equal(weights(resumed), weights(whole))
    assert left_by(tmp_path / "cut") == left_by(tmp_path / "whole")
    rates = [epoch["lr"] for epoch in left_by(tmp_path / "cut")[0]]
    assert len(rates) == 4 and len(set(rates)) > 1


@pytest.mark.parametrize("method", ["TAC", "CoOp"])
@pytest.mark.parametrize("pointer", ["model.pth.tar-1\n", ""])
def test_runs_of_older_versions_go_on(small, tmp_path, method, pointer):
    """Catches: a run killed between its state and its pointer that can never finish, or ends with other weights."""
    whole = small(method, tmp_path / "whole", "OPTIM.MAX_EPOCH", 3)
    whole.train()
    cut(small(method, tmp_path / "cut", "OPTIM.MAX_EPOCH", 3), epoch=2)
    as_older_version(tmp_path / "cut", whole.checkpoint_folder, pointer)
    resumed = small(method, tmp_path / "cut", "OPTIM.MAX_EPOCH", 3)
    resumed.train()
    assert resumed.start_epoch == 2 and equal(weights(resumed), weights(whole))


def test_nothing_in_an_older_checkpoint_is_run(small, tmp_path):
    """Catches: real Dassl's full unpickling of the checkpoint that a run of an older version goes on from."""
    cut(small("CoOp", tmp_path))
    as_older_version(tmp_path, "prompt_learner", "model.pth.tar-1\n")
    path = tmp_path / "prompt_learner" / "model.pth.tar-1"
    checkpoint = torch.load(path, weights_only=False)
    hostile_files.evil_pickle(path, tmp_path / "owned", around=lambda call: {**checkpoint, "note": call})
    resumed = small("CoOp", tmp_path)
    resumed.train()
    assert resumed.start_epoch == 1 and not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "lost, message",
    [
        ("resume_state.pt", "has no resume_state.pt, so the run cannot go on as if it had never stopped"),
        ("result.json", "no readable result.json, so the settings"),
        ("prompt_learner/model.pth.tar-1", "holds no checkpoint of the epoch of its resume_state.pt"),
    ],
)
def test_incomplete_runs_of_older_versions_are_refused(small, tmp_path, lost, message):
    """Catches: an inexact resume with no word but a line in the log."""
    cut(small("CoOp", tmp_path))
    as_older_version(tmp_path, "prompt_learner", "model.pth.tar-1\n")
    (tmp_path / lost).unlink()
    with pytest.raises(ValueError, match=message):
        small("CoOp", tmp_path).train()


def unfit(state, kind):
    """Return a state that does not fit."""
    learner = dict(state["learner"])
    if kind == "shape":
        learner = {name: value[..., :1] for name, value in learner.items()}
    elif kind == "names":
        learner = {f"x.{name}": value for name, value in learner.items()}
    elif kind == "nan":
        learner["ctx"] = learner["ctx"] * float("nan")
    elif kind == "optimizer":
        return {**state, "optimizer": {"param_groups": [], "state": {}}}
    elif kind == "schedule":
        return {**state, "scheduler": {**state["scheduler"], "successor_state": None}}
    elif kind == "no schedule":
        return {key: value for key, value in state.items() if key != "scheduler"}
    return {**state, "learner": learner}


@pytest.mark.parametrize("kind", ["shape", "names", "nan", "optimizer", "schedule", "no schedule"])
def test_unfit_states_are_one_line(small, tmp_path, kind):
    """Catches: torch's RuntimeError or a KeyError for a state of another shape, method or content; NaN trained on."""
    cut(small("CoOp", tmp_path))
    path = tmp_path / "resume_state.pt"
    torch.save(unfit(torch.load(path, weights_only=True), kind), path)
    with pytest.raises(ValueError, match="--resume: the state in .*--overwrite") as caught:
        small("CoOp", tmp_path).train()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\3\4half", None])
def test_damaged_states_are_one_line(small, tmp_path, content):
    """Catches: a traceback of pickle's, or a run that silently starts again."""
    cut(small("CoOp", tmp_path))
    path = tmp_path / "resume_state.pt"
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(ValueError, match="resume_state.pt is damaged"):
        small("CoOp", tmp_path).train()


def test_the_last_checkpoint_is_written_after_a_kill(small, tmp_path, monkeypatch):
    """Catches: a run with best_val, killed between its best and its last checkpoint, that never gets the last one."""
    options = ("TEST.FINAL_MODEL", "best_val", "TEST.NO_TEST", False, "TRAIN.CHECKPOINT_FREQ", 0, "OPTIM.MAX_EPOCH", 1)
    trainer = small("CoOp", tmp_path, *options)
    save = trainer.save_model

    def killed(*args, model_name="", **kwargs):
        if not model_name:
            raise Stopped
        save(*args, model_name=model_name, **kwargs)

    trainer.save_model = killed
    with pytest.raises(Stopped):
        trainer.train()
    resumed = small("CoOp", tmp_path, *options)
    resumed.train()
    assert resumed.start_epoch == 1 and (tmp_path / "prompt_learner" / "model.pth.tar-1").is_file()


def test_an_optimiser_without_the_learners_tensors(small, tmp_path):
    """Catches: a learner that is never trained, with STAGED_LR on real Dassl, and "finished" all the same."""
    trainer = small("CoOp", tmp_path)
    trainer.optim.param_groups[0]["params"].clear()
    with pytest.raises(ValueError, match="Dassl's optimiser would not train ctx"):
        trainer._check_optimizer()
    if not hasattr(dassl, "IMPLEMENTATION"):
        with pytest.raises(ValueError, match="would not train ctx; OPTIM.STAGED_LR True"):
            small("CoOp", tmp_path, "OPTIM.STAGED_LR", True)


def test_a_dassl_without_a_writer(small, tmp_path, monkeypatch):
    """Catches: AttributeError close_writer at the end of --eval-only."""
    trainer = small("CoOp", tmp_path)
    for cls in TrainerX.__mro__:
        for name in ("close_writer", "write_scalar"):
            if name in vars(cls):
                monkeypatch.delattr(cls, name)
    trainer.write_scalar("train/loss", 1.0, 1)
    trainer.close_writer()


def test_both_spellings_of_the_end(small, tmp_path, capsys):
    """Catches: "Nothing found" by MaPLe's or by CoOp's log parser."""
    small("CoOp", tmp_path, "OPTIM.MAX_EPOCH", 1).train()
    said = capsys.readouterr().out.splitlines()
    assert "Finish training" in said and "Finished training" in said


def test_where_a_checkpoint_is_looked_for(small, tmp_path):
    """Catches: "it does not exist" for the model's folder or the file itself; `module.` taken for another method."""
    trainer = small("CoOp", tmp_path)
    trainer.save_model(0, str(tmp_path))
    file = tmp_path / "prompt_learner" / "model.pth.tar-1"
    assert {checkpoint_path(place, "prompt_learner") for place in (tmp_path, file.parent, file)} == {file}
    saved = {f"module.{name}": value for name, value in weights(trainer).items()}
    assert equal(learner_weights(saved, trainer.learner, trainer.clip), weights(trainer))


def test_a_truncated_checkpoint_is_one_line(small, tmp_path):
    """Catches: real Dassl's traceback for half a file."""
    trainer = small("CoOp", tmp_path)
    trainer.save_model(0, str(tmp_path))
    file = tmp_path / "prompt_learner" / "model.pth.tar-1"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises((ValueError, RuntimeError), match="it is cut short or damaged"):
        trainer.load_model(str(tmp_path))
