"""The training loop: order, lines, files, resuming."""

import json
import os
import random
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn as nn
from dassl.data import DataManager
from dassl.engine import TRAINER_REGISTRY, SimpleTrainer, TrainerX, build_trainer
from dassl.utils import load_checkpoint, set_random_seed
from toolbox_toys import ToyTrainer, environment, toolbox_only


def trained(cfg, seed=1, **kwargs):
    set_random_seed(seed)
    trainer = build_trainer(cfg)
    trainer.train()
    return trainer


def generators():
    return (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        np.random.get_state()[2],
        torch.get_rng_state().tolist(),
    )


# Construction


def test_order_of_construction(cfg):
    """Fault: build_model runs without the data, or check_cfg after a minute of loading."""
    seen = []

    class Recorder(ToyTrainer):
        def check_cfg(self, cfg):
            seen.append(("check_cfg", cfg.TRAINER.NAME, hasattr(self, "cfg"), self._models == {}))

        def build_data_loader(self):
            super().build_data_loader()
            seen.append(("data", self.device.type, self.epoch, self.start_epoch, self.max_epoch))

        def build_model(self):
            super().build_model()
            seen.append(("model", self.num_classes, hasattr(self, "evaluator"), self.dm.dataset.classnames))

    trainer = Recorder(cfg())
    assert seen == [
        ("check_cfg", "ToyTrainer", False, True),
        ("data", "cpu", 0, 0, 4),
        ("model", 3, False, ["crimson", "lime", "navy"]),
    ]
    assert (
        trainer.best_result == -float("inf")
        and trainer.output_dir == trainer.cfg.OUTPUT_DIR
        and trainer._writer is None
    )
    assert trainer.lab2cname == {0: "crimson", 1: "lime", 2: "navy"} and trainer.train_loader_u is None
    assert trainer.num_source_domains == 0 and len(trainer.val_loader) == 2


def test_unknown_trainer(cfg):
    """Fault: an error that does not list the trainers there are."""
    with pytest.raises(ValueError, match="ToyTrainer"):
        build_trainer(cfg("TRAINER.NAME", "ToyTrainr"))
    assert "ToyTrainer" in TRAINER_REGISTRY.registered_names()


@toolbox_only
def test_trainer_without_model(cfg):
    """Fault: a default network of somebody else's."""
    with pytest.raises(NotImplementedError, match="TrainerX has no build_model.*not in this toolbox"):
        TrainerX(cfg())


# Models


def test_bookkeeping(cfg):
    """Fault: modes, steps or names that reach the wrong modules."""
    trainer = ToyTrainer(cfg())
    frozen = nn.Linear(1, 1)
    trainer.register_model("frozen", frozen)
    assert trainer.get_model_names() == ["classifier", "frozen"] and trainer.get_model_names("frozen") == ["frozen"]
    trainer.set_model_mode("eval", "classifier")
    assert not trainer.model.training and frozen.training
    trainer.set_model_mode("train")
    trainer.set_model_mode("test", ["frozen"])
    assert trainer.model.training and not frozen.training
    for wrong, error in (
        (lambda: trainer.set_model_mode("trian"), KeyError),
        (lambda: trainer.get_model_names("none"), AssertionError),
        (lambda: trainer.register_model("frozen", frozen), AssertionError),
    ):
        with pytest.raises(error):
            wrong()
    assert trainer.get_current_lr() == 1e-5
    trainer.optim.step()
    trainer.update_lr()
    assert trainer.get_current_lr() == 0.01

    class TooEarly(SimpleTrainer):
        def __init__(self):
            self.register_model("x", nn.Linear(1, 1))

    with pytest.raises(AttributeError):
        TooEarly()


def test_backward_and_update(cfg):
    """Fault: gradients pile up over steps, or a model without an optimiser breaks them."""
    trainer = ToyTrainer(cfg("OPTIM.MOMENTUM", 0.0, "OPTIM.WEIGHT_DECAY", 0.0, "OPTIM.WARMUP_EPOCH", -1))
    trainer.register_model("frozen", nn.Linear(1, 1))
    weight = trainer.model[2].weight
    start = weight.detach().clone()
    for _ in range(2):
        trainer.model_backward_and_update(weight.sum())
    assert torch.allclose(weight, start - 2 * 0.01)


@toolbox_only
def test_loss_that_is_not_finite(cfg):
    """Fault: NaN weights saved as a result; an error that does not say when."""

    class Diverges(ToyTrainer):
        def forward_backward(self, batch):
            loss = self.model[2].weight.sum() * (float("nan") if (self.epoch, self.batch_idx) == (1, 2) else 1)
            self.model_backward_and_update(loss)

    trainer = Diverges(cfg())
    with pytest.raises(FloatingPointError, match="epoch 2, batch 3.*OPTIM.LR"):
        trainer.train()
    assert torch.isfinite(trainer.model[2].weight).all()


def test_anomaly_without_loop(cfg):
    """Fault: infinity taken for a loss."""
    with pytest.raises(FloatingPointError):
        ToyTrainer(cfg()).detect_anomaly(torch.tensor([1.0, float("inf")]))


@toolbox_only
def test_prograd(cfg):
    """Fault: conflicting gradients added, agreeing ones changed."""
    trainer = ToyTrainer(cfg("OPTIM.MOMENTUM", 0.0, "OPTIM.WEIGHT_DECAY", 0.0, "OPTIM.WARMUP_EPOCH", -1))
    weight, bias = trainer.model[2].weight, trainer.model[2].bias
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(weight.shape, generator=generator) for _ in range(2))
    if (a * b).sum() > 0:
        b = -b
    old = weight.detach().clone(), bias.detach().clone()
    trainer.prograd_backward_and_update((weight * a).sum() + bias.sum(), (weight * b).sum() + 2 * bias.sum(), 0.7)
    step = (old[0] - weight.detach()) / 0.01
    want = a - 0.7 * (a * b).sum() / (b * b).sum() * b
    assert torch.allclose(step, want, atol=1e-4) and torch.allclose(old[1] - bias.detach(), torch.full((3,), 0.01))


# The loop


def test_hooks_are_called_in_order(cfg):
    """Fault: a hook missed; resume cannot change the first epoch."""
    calls = []

    class Hooks(ToyTrainer):
        def before_train(self):
            super().before_train()
            calls.append("before_train")
            self.start_epoch = 2

        def before_epoch(self):
            calls.append(f"before_epoch {self.epoch}")

        def run_epoch(self):
            super().run_epoch()
            calls.append(f"run_epoch {self.num_batches} {self.batch_idx}")

        def after_epoch(self):
            super().after_epoch()
            calls.append("after_epoch")

        def after_train(self):
            super().after_train()
            calls.append("after_train")

    Hooks(cfg()).train()
    epoch = ["run_epoch 3 2", "after_epoch"]
    assert calls == ["before_train", "before_epoch 2", *epoch, "before_epoch 3", *epoch, "after_train"]


def test_run_draws_nothing_of_its_own(cfg):
    """Fault: a draw on a global generator shifts every later one: other few shots, batches, pixels than Dassl's."""
    c = cfg("DATASET.NUM_SHOTS", 6)
    trainer = trained(c)
    got = generators()

    set_random_seed(1)
    dm = DataManager(c)
    nn.Linear(3 * 16 * 16, 3)
    order = []
    for _ in range(4):
        for batch in dm.train_loader_x:
            order.append(batch["index"].tolist())
            nn.functional.dropout(batch["img"].flatten(1), 0.2)
    list(dm.test_loader)
    assert [indices for _, _, indices, _ in trainer.trace] == order
    assert got == generators()


def test_first_epoch_is_the_same_for_any_number_of_workers(cfg):
    """Fault: an own generator or worker_init_fn for the loader."""
    none, two = (
        trained(cfg("DATALOADER.NUM_WORKERS", n, "OPTIM.MAX_EPOCH", 1, "TEST.NO_TEST", True, out=f"w{n}"))
        for n in (0, 2)
    )
    assert [t[2] for t in none.trace] == [t[2] for t in two.trace]


def test_rates_and_steps(cfg):
    """Fault: the loop steps the schedule as well, or not at all."""
    trainer = trained(cfg())
    rates = [lr for _, lr, _, _ in trainer.trace]
    want = [1e-5, 0.01, 0.01 * (1 + 2**-0.5) / 2, 0.005]
    assert rates == pytest.approx([lr for lr in want for _ in range(3)])


def test_files_of_a_run(cfg, tmp_path, log_to):
    """Fault: names that scripts, parsers or load_model do not find; extra files where trainers parse all names."""
    log_to(str(tmp_path / "out"))
    trained(cfg("TEST.FINAL_MODEL", "best_val", "TRAIN.CHECKPOINT_FREQ", 2))
    out = tmp_path / "out"
    assert (
        {"log.txt", "tensorboard", "classifier"}
        <= set(os.listdir(out))
        <= {"log.txt", "tensorboard", "classifier", "results.json", "resume_state.pt"}
    )
    assert sorted(os.listdir(out / "classifier")) == [
        "checkpoint",
        "model-best.pth.tar",
        "model.pth.tar-2",
        "model.pth.tar-4",
    ]
    assert (out / "classifier" / "checkpoint").read_text() == "model.pth.tar-4\n"
    assert os.listdir(tmp_path) == ["out"] and os.listdir(out / "tensorboard")
    last, best = (
        torch.load(out / "classifier" / name, weights_only=False) for name in ("model.pth.tar-4", "model-best.pth.tar")
    )
    assert set(last) == set(best) == {"state_dict", "epoch", "optimizer", "scheduler", "val_result"}
    assert last["epoch"] == 4 and last["val_result"] is None and type(best["val_result"]) is float


def fixed_results(results):
    class Fixed(ToyTrainer):
        tested = []

        def test(self, split=None):
            self.tested.append(split)
            return results[self.epoch] if split == "val" else 0.0

    return Fixed


def test_best_model_is_the_first_of_the_highest(cfg, tmp_path):
    """Fault: a tie replaces the best model; the last one is deployed instead."""
    trainer = fixed_results([10.0, 30.0, 30.0, 20.0])(cfg("TEST.FINAL_MODEL", "best_val"))
    trainer.train()
    best = torch.load(tmp_path / "out" / "classifier" / "model-best.pth.tar", weights_only=False)
    assert best["epoch"] == 2 and best["val_result"] == 30.0 and trainer.best_result == 30.0
    assert trainer.tested == ["val"] * 4 + [None]
    assert torch.equal(trainer.model[2].weight, best["state_dict"]["2.weight"])


@pytest.mark.parametrize("final", ["best_val", "last_step"])
def test_no_test_means_none(cfg, tmp_path, final):
    """Fault: validation in a run that asked for none."""
    trainer = fixed_results([1.0] * 4)(cfg("TEST.FINAL_MODEL", final, "TEST.NO_TEST", True))
    trainer.tested.clear()
    trainer.train()
    assert trainer.tested == [] and sorted(os.listdir(tmp_path / "out" / "classifier")) == [
        "checkpoint",
        "model.pth.tar-4",
    ]


def test_evaluation(cfg, capsys):
    """Fault: the wrong split, training mode, gradients, or a result that is not the accuracy."""

    class Checks(ToyTrainer):
        def model_inference(self, input):
            assert not self.model.training and not torch.is_grad_enabled()
            self.images = getattr(self, "images", 0) + len(input)
            return super().model_inference(input)

    trainer = Checks(cfg())
    for split, images, name in ((None, 12, "test"), ("val", 9, "val"), ("anything", 12, "test")):
        trainer.images = 0
        accuracy = trainer.test(split=split)
        assert trainer.images == images and 0 <= accuracy <= 100 and type(accuracy) is float
        assert f"*{name}*" in capsys.readouterr().out


@toolbox_only
def test_no_validation_set_is_said(cfg, capsys):
    """Fault: split "val" that means the test images."""
    trainer = ToyTrainer(cfg())
    trainer.val_loader = None
    with pytest.raises(ValueError, match="has no validation set; set TEST.SPLIT test"):
        trainer.test("val")
    assert "=> result" not in capsys.readouterr().out


@toolbox_only
def test_the_epoch_is_never_chosen_on_the_test_set(cfg):
    """Fault: without a validation set, best_val keeps the epoch that is best on the test images."""
    trainer = ToyTrainer(cfg("TEST.FINAL_MODEL", "best_val"))
    trainer.val_loader = None
    with pytest.raises(ValueError, match="FINAL_MODEL is best_val, but 'ToyPictures' has no validation set"):
        trainer.train()
    assert trainer.epoch == 0


@toolbox_only
def test_keyword_of_a_fork_is_accepted(cfg):
    """Fault: a train.py that passes is_final stops with a TypeError."""
    assert ToyTrainer(cfg()).test(is_final=True) >= 0


# Lines and logs

PROGRESS = (
    r"epoch \[(\d+)/4\] batch \[(\d+)/3\] time [\d.]+ \([\d.]+\) data [\d.]+ \([\d.]+\) "
    r"loss [\d.]+ \([\d.]+\) acc [\d.]+ \([\d.]+\) lr (\d\.\d{4}e-\d\d) eta \d+:\d\d:\d\d"
)


@pytest.mark.parametrize("freq, batches", [(1, [1, 2, 3]), (2, [2]), (3, [3]), (4, [1, 2, 3])])
def test_progress_lines(cfg, capsys, freq, batches):
    """Fault: lines that people's scripts cannot read; none at all in short epochs."""
    trained(cfg("TRAIN.PRINT_FREQ", freq, "TEST.NO_TEST", True))
    lines = [re.fullmatch(PROGRESS, line) for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert all(lines)
    assert [(int(m[1]), int(m[2])) for m in lines] == [(e, b) for e in (1, 2, 3, 4) for b in batches]
    if freq == 3:  # the schedule has been stepped before the last line of an epoch
        assert lines[0][3] == "1.0000e-02"


def parse(path, end_signal, keyword="accuracy"):
    """Read a log as the family's parsers do: after the signal, the last line with the keyword counts."""
    regex, good, value = re.compile(rf"\* {keyword}: ([\.\deE+-]+)%"), False, None
    for line in path.read_text().splitlines():
        if line.strip() == end_signal:
            good = True
        match = regex.search(line)
        if match and good:
            value = float(match[1])
    return value


def test_first_family_of_parsers(cfg, tmp_path, log_to):
    """Fault: a finished run that parse_test_res.py does not see, or whose validation it takes for the result."""
    log_to(str(tmp_path / "out"))
    trainer = trained(cfg("TEST.FINAL_MODEL", "best_val", "TEST.PER_CLASS_RESULT", True))
    accuracy = trainer.evaluator.evaluate()["accuracy"]
    sys.stdout.flush()
    log = tmp_path / "out" / "log.txt"
    assert parse(log, "Finish training") == pytest.approx(accuracy, abs=0.051)
    assert parse(log, "Finish training", "macro_f1") is not None and parse(log, "Finish training", "error") is not None
    lines = log.read_text().splitlines()
    assert lines.count("Finish training") == 1
    assert not any("* accuracy" in line for line in lines[: lines.index("=> result")])

    log_to(str(tmp_path / "eval"))
    trainer.test()
    sys.stdout.flush()
    assert parse(tmp_path / "eval" / "log.txt", "=> result") == pytest.approx(accuracy, abs=0.051)


@toolbox_only
def test_second_family_of_parsers(cfg, tmp_path, log_to):
    """Fault: runs of MaPLe-like checkouts parsed as unfinished."""
    log_to(str(tmp_path / "out"))
    trainer = trained(cfg())
    assert parse(tmp_path / "out" / "log.txt", "Finished training") == pytest.approx(
        trainer.evaluator.evaluate()["accuracy"], abs=0.051
    )


@toolbox_only
def test_no_progress_bar_in_a_pipe(cfg, capfd):
    """Fault: job logs full of progress bars."""
    trained(cfg())
    assert "it/s" not in capfd.readouterr().err


@toolbox_only
@pytest.mark.parametrize(
    "final, epoch, name", [("best_val", 2, "model-best.pth.tar"), ("last_step", 4, "model.pth.tar-4")]
)
def test_results_file(cfg, tmp_path, final, epoch, name):
    """Fault: a number whose weights nobody can tell."""
    validation = iter([10.0, 50.0, 50.0, 40.0])

    class Scripted(ToyTrainer):
        def test(self, split=None, is_final=False):
            result = super().test(split)
            return next(validation) if split == "val" else result

    Scripted(cfg("TEST.FINAL_MODEL", final)).train()
    records = json.loads((tmp_path / "out" / "results.json").read_text())
    if final == "best_val":
        assert [(r["split"], r["epoch"]) for r in records[:-1]] == [("val", e) for e in (1, 2, 3, 4)]
    last = records[-1]
    assert (last["split"], last["epoch"]) == ("test", epoch) and last["checkpoint"].endswith(
        os.path.join("classifier", name)
    )
    assert {"time", "accuracy", "error_rate", "macro_f1"} <= set(last)


@toolbox_only
def test_results_of_trainers_with_their_own_test_and_loading(cfg, tmp_path):
    """Fault: the best model's result recorded as the last epoch's."""

    class Own(ToyTrainer):
        def test(self, split=None):
            self.evaluator.reset()
            for batch in self.val_loader if split == "val" else self.test_loader:
                image, label = self.parse_batch_test(batch)
                self.evaluator.process(self.model(image), label)
            return next(iter(self.evaluator.evaluate().values()))

        def load_model(self, directory, epoch=None):
            path = os.path.join(directory, "classifier", "model-best.pth.tar")
            self.model.load_state_dict(load_checkpoint(path)["state_dict"])

    Own(cfg("TEST.FINAL_MODEL", "best_val")).train()
    records = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (
        len(records) == 5 and records[-1]["checkpoint"].endswith("model-best.pth.tar") and records[-1]["epoch"] is None
    )


# Scalars


def test_tensorboard(cfg, tmp_path):
    """Fault: curves under other names or steps."""
    pytest.importorskip("tensorboard")
    trained(cfg("TEST.FINAL_MODEL", "best_val"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "out" / "tensorboard")).Reload()
    assert {"train/loss", "train/acc", "train/lr", "val/accuracy", "test/accuracy"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("train/lr")] == list(range(12))
    assert [e.step for e in events.Scalars("val/accuracy")] == [0, 1, 2, 3]


@toolbox_only
def test_without_tensorboard(cfg, tmp_path, monkeypatch, capsys):
    """Fault: an import error after the model has been built, for curves nobody asked for."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    trained(cfg("TEST.NO_TEST", True))
    said = [line for line in capsys.readouterr().out.replace(str(tmp_path), "").splitlines() if "tensorboard" in line]
    assert len(said) == 1 and "tensorboard is not installed" in said[0]
    rows = [json.loads(line) for line in (tmp_path / "out" / "tensorboard" / "scalars.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if r["tag"] == "train/lr"] == list(range(12))
    assert all(isinstance(r["value"], float) for r in rows)


def test_scalars_without_a_writer(cfg):
    """Fault: eval-only needs a writer."""
    trainer = ToyTrainer(cfg())
    trainer.write_scalar("a", 1.0, 1)
    trainer.close_writer()


# Loading and resuming


def test_load_model(cfg, tmp_path, capsys):
    """Fault: another run's or epoch's weights evaluated."""
    trainer = trained(cfg("TRAIN.CHECKPOINT_FREQ", 1))
    fresh = ToyTrainer(cfg(out="other"))
    fresh.load_model("")
    for epoch in (1, 4):
        checkpoint = torch.load(tmp_path / "out" / "classifier" / f"model.pth.tar-{epoch}", weights_only=False)
        if getattr(trainer, "_note_weights", None):  # Dassl.pytorch fails to print a missing val_result
            fresh.load_model(str(tmp_path / "out"), epoch=epoch)
            assert torch.equal(fresh.model[2].weight, checkpoint["state_dict"]["2.weight"])
    with pytest.raises(FileNotFoundError, match="model-best.pth.tar"):
        fresh.load_model(str(tmp_path / "out"))


class Stopped(Exception):
    pass


def stops_before(epoch):
    class Stops(ToyTrainer):
        def before_epoch(self):
            if self.epoch == epoch:
                raise Stopped

    return Stops


CASES = {
    "no workers": (),
    "two workers": ("DATALOADER.NUM_WORKERS", 2),
    "best_val, linear": ("TEST.FINAL_MODEL", "best_val", "OPTIM.WARMUP_TYPE", "linear", "OPTIM.WARMUP_EPOCH", 2),
    "all generators": (
        "INPUT.TRANSFORMS",
        ("random_translation", "random_flip", "cutout", "gaussian_noise", "normalize"),
    ),
}


@pytest.mark.slow
@toolbox_only
@pytest.mark.parametrize("case", CASES)
def test_resumed_run_equals_an_uninterrupted_one(cfg, tmp_path, case):
    """Fault: a state that does not survive: generators, schedule, momentum, best result, the trainer's own."""
    options = ("TRAIN.CHECKPOINT_FREQ", 2, *CASES[case])
    whole = trained(cfg(*options, out="whole"))
    want = generators()

    set_random_seed(1)
    with pytest.raises(Stopped):
        stops_before(3)(cfg(*options, out="cut")).train()
    pointer = (tmp_path / "cut" / "classifier" / "checkpoint").read_text().strip()
    start = torch.load(tmp_path / "cut" / "classifier" / pointer, weights_only=True)["epoch"]
    assert 0 < start < 4
    resumed = trained(cfg(*options, out="cut"), seed=99)
    assert resumed.trace == [step for step in whole.trace if step[0] >= start]
    for key, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value)
    assert torch.equal(resumed.weight_sum, whole.weight_sum) and resumed.best_result == whole.best_result
    assert generators() == want

    other = trained(cfg(*options, out="other"), seed=99)
    assert not torch.equal(other.model[2].weight, whole.model[2].weight), "seeds have no effect, so nothing was tested"


@toolbox_only
def test_resume_from_another_folder(cfg, tmp_path):
    """Fault: RESUME ignored, or its run overwritten."""
    trained(cfg("TRAIN.CHECKPOINT_FREQ", 1, "OPTIM.MAX_EPOCH", 2, out="first"))
    before = sorted(os.listdir(tmp_path / "first" / "classifier"))
    second = trained(cfg("RESUME", str(tmp_path / "first"), out="second"))
    assert second.trace[0][0] == 2 and sorted(os.listdir(tmp_path / "first" / "classifier")) == before
    assert os.listdir(tmp_path / "second" / "classifier")


@toolbox_only
def test_resume_at_the_end_only_tests(cfg, capsys):
    """Fault: a finished run started again trains on."""
    trained(cfg())
    capsys.readouterr()
    again = trained(cfg())
    assert again.trace == [] and "* accuracy" in capsys.readouterr().out


@toolbox_only
def test_resume_without_its_state(cfg, tmp_path, capsys):
    """Fault: a run of Dassl.pytorch, or one whose state is of another epoch, cannot go on, or takes the wrong state."""

    def cut():
        set_random_seed(1)
        with pytest.raises(Stopped):
            stops_before(2)(cfg("TRAIN.CHECKPOINT_FREQ", 1)).train()

    cut()
    path = tmp_path / "out" / "resume_state.pt"
    state = torch.load(path, weights_only=True)
    del state["models"]  # as older versions wrote it
    torch.save({**state, "epoch": 1, "best_result": 77.0}, path)
    trainer = trained(cfg())
    assert trainer.trace[0][0] == 2 and trainer.best_result == -float("inf") and "epoch 1" in capsys.readouterr().out


@toolbox_only
@pytest.mark.parametrize("missing", ["pointer", "folder", "models"])
def test_nothing_to_resume(cfg, tmp_path, missing):
    """Fault: an empty model folder, or a trainer without models, stops the run."""
    trainer = ToyTrainer(cfg())
    if missing == "pointer":
        os.makedirs(tmp_path / "out" / "classifier")
    if missing == "models":
        trainer._models.clear()
    assert trainer.resume_model_if_exist(str(tmp_path / "out")) == 0


@toolbox_only
def test_models_of_different_epochs_do_not_resume(cfg, tmp_path):
    """Fault: two halves of different epochs of an older run trained on as one model."""

    class Two(ToyTrainer):
        def build_model(self):
            super().build_model()
            self.register_model("second", nn.Linear(1, 1))

    c = cfg("TRAIN.CHECKPOINT_FREQ", 1)
    Two(c).train()
    (tmp_path / "out" / "resume_state.pt").unlink()
    (tmp_path / "out" / "second" / "checkpoint").write_text("model.pth.tar-3\n")
    with pytest.raises(ValueError, match="'classifier': 4, 'second': 3"):
        Two(c).train()


KILLED = """
import os, signal, sys, torch
from toolbox_toys import ToyTrainer, toy_cfg
from dassl.utils import set_random_seed
class Killed(ToyTrainer):
    def save_model(self, epoch, *args, **kwargs):
        if epoch == 2:
            real = torch.save
            def save(state, path):
                real(state, path)
                os.truncate(path, os.path.getsize(path) // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            torch.save = save
        super().save_model(epoch, *args, **kwargs)
torch.set_num_threads(1)
set_random_seed(1)
Killed(toy_cfg(sys.argv[1], sys.argv[2], "TRAIN.CHECKPOINT_FREQ", 1, "TEST.NO_TEST", True)).train()
"""


@pytest.mark.slow
@toolbox_only
def test_run_killed_while_saving_resumes_to_the_same_weights(cfg, pictures, tmp_path):
    """Fault: kill -9 between two files of a checkpoint leaves a run that cannot go on."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, pictures, str(tmp_path / "killed")], env=environment(), stdout=subprocess.DEVNULL
    )
    assert done.returncode == -9
    options = ("TRAIN.CHECKPOINT_FREQ", 1, "TEST.NO_TEST", True)
    resumed = trained(cfg(*options, out="killed"), seed=5)
    whole = trained(cfg(*options, out="whole"))
    assert resumed.trace == whole.trace[6:] and torch.equal(resumed.model[2].weight, whole.model[2].weight)


@toolbox_only
@pytest.mark.parametrize("lost", range(4))
def test_run_stopped_between_two_files_of_a_checkpoint(cfg, tmp_path, monkeypatch, lost):
    """Fault: the state of one epoch beside the checkpoint of another, after which the run ends with other weights."""
    options = ("TRAIN.CHECKPOINT_FREQ", 1, "TEST.NO_TEST", True)
    whole = trained(cfg(*options, out="whole"))
    real, done = os.replace, []

    def replace(source, target):
        done.append(target)
        if len(done) > 3 + lost:  # three files an epoch: the model, its pointer, the state
            raise Stopped
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(Stopped):
        trained(cfg(*options, out="cut"))
    monkeypatch.undo()
    resumed = trained(cfg(*options, out="cut"), seed=99)
    assert resumed.trace[0][0] == (2 if lost == 3 else 1)
    assert torch.equal(resumed.model[2].weight, whole.model[2].weight)
    assert torch.equal(resumed.weight_sum, whole.weight_sum)


@toolbox_only
def test_full_disk_is_named(cfg, tmp_path, monkeypatch):
    """Fault: torch's "unexpected pos 27328 vs 27216" and a traceback, without the file and the room on the disk."""

    def full(state, path):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 27328 vs 27216")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"MiB are free.*model.pth.tar-1") as caught:
        trained(cfg("TRAIN.CHECKPOINT_FREQ", 1))
    assert caught.value.errno == 28


@toolbox_only
def test_gradient_scaler_is_kept(cfg):
    """Fault: a resumed mixed-precision run starts from the default scale."""

    class Scaled(ToyTrainer):
        def build_model(self):
            super().build_model()
            self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
            self.scaler.scale(torch.zeros(()))

    first = Scaled(cfg())
    first.scaler.update(32.0)
    first.train()
    again = Scaled(cfg())
    again.train()
    assert again.scaler.get_scale() == 32.0
