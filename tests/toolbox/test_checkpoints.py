"""Files of weights: whole, safe to read, and readable from and by Dassl.pytorch."""

import os
import pickle
import signal
import subprocess
import sys
from collections import OrderedDict

import pytest
import torch
import torch.nn as nn
from dassl.config import get_cfg_default
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import load_checkpoint, load_pretrained_weights, resume_from_checkpoint, save_checkpoint
from toolbox_toys import environment, toolbox_only

KEYS = {"state_dict", "epoch", "optimizer", "scheduler", "val_result"}


def parts(**options):
    cfg = get_cfg_default().OPTIM
    cfg.merge_from_list(
        [
            x
            for pair in {
                "NAME": "sgd",
                "LR": 0.01,
                "LR_SCHEDULER": "cosine",
                "WARMUP_EPOCH": 1,
                "MAX_EPOCH": 6,
                "WARMUP_TYPE": "constant",
                **options,
            }.items()
            for x in pair
        ]
    )
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    optimizer = build_optimizer(model, cfg)
    return model, optimizer, build_lr_scheduler(optimizer, cfg)


def advance(model, optimizer, scheduler, epochs):
    lrs = []
    for _ in range(epochs):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        scheduler.step()
    return lrs


def state_of(model, optimizer, scheduler, epoch):
    return {
        "state_dict": model.state_dict(),
        "epoch": epoch,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "val_result": 12.5,
    }


def test_save_and_resume(tmp_path):
    """Fault: another file name, pointer or content than scripts and trainers look for."""
    trio = parts(WARMUP_EPOCH=-1)  # resumed after a warm-up, real Dassl trains on at one rate: test_optim.py
    advance(*trio, 2)
    save_dir = str(tmp_path / "run" / "learner")
    save_checkpoint(state_of(*trio, 2), save_dir)
    assert sorted(os.listdir(save_dir)) == ["checkpoint", "model.pth.tar-2"]
    assert (tmp_path / "run" / "learner" / "checkpoint").read_text() == "model.pth.tar-2\n"
    assert os.listdir(tmp_path / "run") == ["learner"], "no temporary file stays"
    checkpoint = load_checkpoint(os.path.join(save_dir, "model.pth.tar-2"))
    assert set(checkpoint) == KEYS and checkpoint["epoch"] == 2 and checkpoint["val_result"] == 12.5
    del checkpoint["state_dict"]["bias"]  # trainers do this

    other = parts(WARMUP_EPOCH=-1)
    assert resume_from_checkpoint(save_dir, *other) == 2
    assert torch.equal(other[0].weight, trio[0].weight)
    assert advance(*other, 4) == advance(*trio, 4) and torch.equal(other[0].weight, trio[0].weight)


def test_names_best_and_module_prefix(tmp_path):
    """Fault: keys with module. load nowhere; the best model is not where load_model looks."""
    state = {
        "state_dict": OrderedDict([("module.weight", torch.ones(1)), ("weight.module.x", torch.ones(1))]),
        "epoch": 3,
    }
    save_checkpoint(dict(state), str(tmp_path), is_best=True)
    assert (tmp_path / "model.pth.tar-3").is_file()
    best = load_checkpoint(str(tmp_path / "model-best.pth.tar"))
    assert list(best["state_dict"]) == ["weight", "weight.module.x"]
    save_checkpoint(dict(state), str(tmp_path), remove_module_from_keys=False, model_name="mine.pth")
    assert list(load_checkpoint(str(tmp_path / "mine.pth"))["state_dict"])[0] == "module.weight"
    assert (tmp_path / "checkpoint").read_text() == "mine.pth\n"


def test_missing_files(tmp_path):
    """Fault: a wrong path reported as something else."""
    with pytest.raises(ValueError):
        load_checkpoint(None)
    with pytest.raises(FileNotFoundError):
        load_checkpoint(str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        resume_from_checkpoint(str(tmp_path), nn.Linear(1, 1))


@toolbox_only
@pytest.mark.parametrize("part", [0, 10, 0.5, 0.98])
def test_truncated_file_is_named(tmp_path, part):
    """Fault: 'failed finding central directory' without the file's name."""
    path = tmp_path / "model.pth.tar-1"
    torch.save({"state_dict": nn.Linear(50, 50).state_dict()}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data)) if isinstance(part, float) else part])
    with pytest.raises(RuntimeError, match="model.pth.tar-1.*cut short, damaged or.* Copy it again"):
        load_checkpoint(str(path))


class RunsCode:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


@toolbox_only
@pytest.mark.parametrize("legacy", [False, True])
def test_loading_runs_no_code(tmp_path, monkeypatch, legacy):
    """Fault: a downloaded checkpoint takes over the machine."""
    path, target = str(tmp_path / "evil.pth"), str(tmp_path / "owned")
    torch.save({"state_dict": {}, "scheduler": RunsCode(target)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(RuntimeError, match="evil.pth.*mkdir.*DASSL_UNSAFE_LOAD"):
        load_checkpoint(path)
    assert not os.path.exists(target)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # meant for other code than this
    with pytest.raises(RuntimeError, match="evil.pth"):
        load_checkpoint(path)
    assert not os.path.exists(target)
    monkeypatch.setenv("DASSL_UNSAFE_LOAD", "1")
    load_checkpoint(path)
    assert os.path.isdir(target), "the opt-in has no effect, or this test could not fail"


@toolbox_only
def test_plain_pickle_runs_no_code(tmp_path):
    """Fault: the fall-back for files that are no archives unpickles them."""
    path, target = tmp_path / "evil.pkl", str(tmp_path / "owned")
    path.write_bytes(pickle.dumps(RunsCode(target)))
    with pytest.raises(RuntimeError, match="evil.pkl"):
        load_checkpoint(str(path))
    assert not os.path.exists(target)


def old_scheduler_state(scheduler):
    """Return what Dassl.pytorch saves of a warm-up: all fields but the optimiser, the inner scheduler as an object."""
    state = {k: v for k, v in vars(scheduler).items() if k != "optimizer"}
    return {**state, "verbose": False}


@toolbox_only
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("schedule", ["cosine", "single_step", "multi_step"])
def test_checkpoints_with_scheduler_objects(tmp_path, name, schedule):
    """Fault: checkpoints of the official code cannot be read, or freeze the learning rate when resumed."""
    options = dict(NAME=name, LR_SCHEDULER=schedule, STEPSIZE=(2, 4))
    trio = parts(**options)
    advance(*trio, 3)
    state = {**state_of(*trio, 3), "scheduler": old_scheduler_state(trio[2])}
    assert isinstance(state["scheduler"]["successor"], torch.optim.lr_scheduler.LRScheduler)
    torch.save(state, tmp_path / "model.pth.tar-3")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "model.pth.tar-3", weights_only=True)
    (tmp_path / "checkpoint").write_text("model.pth.tar-3\n")

    other = parts(**options)
    assert resume_from_checkpoint(str(tmp_path), *other) == 3
    assert other[2].successor.optimizer is other[1]
    assert advance(*other, 3) == advance(*trio, 3) and torch.equal(other[0].weight, trio[0].weight)


@toolbox_only
def test_stand_ins_stay_inside(tmp_path):
    """Fault: reading our checkpoint widens what every torch.load of the process accepts."""
    before = set(torch.serialization.get_safe_globals())  # torch returns them in any order
    torch.save({"state_dict": {}}, tmp_path / "a")
    load_checkpoint(str(tmp_path / "a"))
    assert set(torch.serialization.get_safe_globals()) == before


@toolbox_only
def test_own_files_load_with_torchs_default(tmp_path):
    """Fault: our checkpoints need our loader."""
    trio = parts(LR_SCHEDULER="multi_step", STEPSIZE=(2, 4))
    save_checkpoint(state_of(*trio, 1), str(tmp_path / "x"))
    assert set(torch.load(tmp_path / "x" / "model.pth.tar-1", weights_only=True)) == KEYS


KILLED = """
import io, os, signal, sys, torch
from dassl.utils import save_checkpoint
real = torch.save
def dies_halfway(state, path):
    buffer = io.BytesIO()
    real(state, buffer)
    with open(path, "wb") as f:
        f.write(buffer.getvalue()[:len(buffer.getvalue()) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
folder = sys.argv[1]
save_checkpoint({"state_dict": {"w": torch.full((999,), 1.0)}, "epoch": 1}, folder, model_name="model-best.pth.tar")
torch.save = dies_halfway
save_checkpoint({"state_dict": {"w": torch.full((999,), 2.0)}, "epoch": 2}, folder, model_name="model-best.pth.tar")
"""


@pytest.mark.slow
@toolbox_only
def test_kill_during_save_leaves_the_old_checkpoint(tmp_path):
    """Fault: a job killed while it writes over its checkpoint loses the run."""
    folder = str(tmp_path / "run" / "learner")
    done = subprocess.run([sys.executable, "-c", KILLED, folder], env=environment(), stdout=subprocess.DEVNULL)
    assert done.returncode == -signal.SIGKILL
    assert sorted(os.listdir(folder)) == ["checkpoint", "model-best.pth.tar"], "trainers parse every name here"
    assert load_checkpoint(os.path.join(folder, "model-best.pth.tar"))["state_dict"]["w"][0] == 1.0
    assert len(os.listdir(tmp_path / "run")) == 2, "the process was not killed while writing"


@toolbox_only
def test_failed_save_leaves_nothing(tmp_path, monkeypatch):
    """Fault: a full disk leaves half a file under the right name."""

    def full(state, path):
        open(path, "wb").write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint({"state_dict": {}, "epoch": 1}, str(tmp_path / "run" / "learner"))
    assert os.listdir(tmp_path / "run" / "learner") == [] and os.listdir(tmp_path / "run") == ["learner"]


@pytest.mark.parametrize("wrap", [True, False])
def test_pretrained_weights(tmp_path, capsys, wrap):
    """Fault: one misfitting entry keeps all others from loading."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    old = model[1].weight.clone()
    weights = {"module.0.weight": torch.ones(2, 2), "1.weight": torch.ones(3, 2), "extra": torch.ones(1)}
    torch.save({"state_dict": weights} if wrap else weights, tmp_path / "w")
    load_pretrained_weights(model, str(tmp_path / "w"))
    assert torch.equal(model[0].weight, torch.ones(2, 2)) and torch.equal(model[1].weight, old)
    assert "1.weight" in capsys.readouterr().out
    with pytest.warns(UserWarning):
        load_pretrained_weights(nn.Linear(7, 7), str(tmp_path / "w"))
