"""What every trainer promises, over all that are registered: a new one is covered by existing."""

import json

import pytest
import torch
from support import node_of

from clusterprompt.registration import own_trainers

METHODS = [cls.__name__ for cls in own_trainers()]
LEARNING = [name for name in METHODS if name != "ZeroshotCLIP"]
IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def steps(trainer, count=2):
    """Run some training steps on the same batches whatever ran before; the summary of the last."""
    torch.manual_seed(0)
    trainer.set_model_mode("train")
    trainer.num_batches, trainer.epoch = len(trainer.train_loader_x), 0
    for number, batch in zip(range(count), trainer.train_loader_x):
        trainer.batch_idx = number
        summary = trainer.forward_backward(batch)
    return summary


def logits(trainer):
    """Logits of fixed images."""
    trainer.set_model_mode("eval")
    with torch.no_grad(), trainer.fixed_classes():
        return trainer.classify(IMAGES.to(trainer.device)).cpu()


def set_lr(trainer, lr=0.01):
    """Skip the warm-up's tiny rate."""
    for group in trainer.optim.param_groups:
        group["lr"] = lr


@pytest.mark.parametrize("name", LEARNING)
def test_two_steps(name, build):
    """The loss is finite, only the learner learns, CLIP stays as it was bit for bit, every learned tensor moves."""
    trainer = build(name)
    clip = {key: value.clone() for key, value in trainer.clip.state_dict().items()}
    before = {key: value.detach().clone() for key, value in trainer.learner.named_parameters() if value.requires_grad}
    set_lr(trainer)
    summary = steps(trainer)
    assert all(torch.isfinite(torch.tensor(v)) for v in summary.values()) and {"loss", "acc"} <= set(summary)
    assert all(torch.equal(value, clip[key]) for key, value in trainer.clip.state_dict().items())
    assert all(p.grad is None for p in trainer.clip.parameters())
    now = trainer.learner.state_dict()
    still = [key for key, value in before.items() if torch.equal(value, now[key])]
    assert not still, f"not learned: {still}"


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_evaluation_is_repeatable_and_in_order(name, build):
    """Evaluating twice gives the same logits, with and without the classes' features kept, and one row an image."""
    trainer = build(name)
    first = logits(trainer)
    assert first.shape == (3, len(trainer.classnames)) and first.dtype == torch.float32
    assert torch.equal(first, logits(trainer))
    with torch.no_grad():
        torch.testing.assert_close(trainer.classify(IMAGES.to(trainer.device)).cpu(), first, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNING)
def test_save_and_load_on_other_classes(name, build, tmp_path):
    """What was learned on base reaches a trainer for the new classes: all of the learner, and nothing else, travels;
    or it is refused, where it serves no other classes.
    """
    trainer = build(name, output=tmp_path / "run")
    set_lr(trainer)
    steps(trainer)
    trainer.save_model(0, str(tmp_path / "run"))
    size = (tmp_path / "run" / trainer.checkpoint_folder / "model.pth.tar-1").stat().st_size
    assert size < 3 * 4 * sum(v.numel() for v in trainer.learner.state_dict().values()) + 50_000, (
        "more than the learner is saved"
    )
    other = build(name, "DATASET.SUBSAMPLE_CLASSES", "new", "SEED", 2)
    assert set(other.classnames).isdisjoint(trainer.classnames)
    if other.tied_to_classes:
        trainer.recorder.write()
        with pytest.raises(ValueError, match="serves no other classes|not those of|is .* in the file and .* here"):
            other.load_model(str(tmp_path / "run"), epoch=1)
    else:
        other.load_model(str(tmp_path / "run"), epoch=1)
        assert all(
            torch.equal(value, other.learner.state_dict()[key]) for key, value in trainer.learner.state_dict().items()
        )
    same = build(name, "SEED", 2)
    same.load_model(str(tmp_path / "run"))
    torch.testing.assert_close(logits(same), logits(trainer), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["amp", "fp16"])
@pytest.mark.parametrize("name", METHODS)
def test_precisions(name, precision, build):
    """Every mode trains and evaluates close to fp32, with fp32 learned weights (the official AMP cannot run)."""
    single, low = build(name), build(name, f"TRAINER.{node_of(name)}.PREC", precision)
    if name in LEARNING:
        count = 1 if low.device.type == "cuda" else 2  # on a GPU, amp leaves out updates until its scale fits
        a, b = steps(single, count), steps(low, count)
        assert b["loss"] == pytest.approx(a["loss"], rel=0.05)
        assert all(p.dtype == torch.float32 for p in low.learner.parameters())
    assert (logits(single) - logits(low)).abs().max() < 3


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_run_to_the_end(name, build, tmp_path):
    """Training and testing through Dassl's own loop leaves the record that scripts read."""
    trainer = build(name, output=tmp_path)
    trainer.train()
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["status"] == "finished" and record["trainer"] == name and record["n_test"] == 16
    assert set(record["per_class"]) == set(trainer.classnames)
    assert record["accuracy"] == pytest.approx(sum(record["per_class"].values()) / len(trainer.classnames))
    assert len(record["fewshot_digest"]) == 64 and record["seed"] == 1
    assert record["learned_parameters"] == (
        sum(p.numel() for p in trainer.learner.parameters() if p.requires_grad) if name in LEARNING else 0
    )
