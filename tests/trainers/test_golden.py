"""The trainers against the recorded numbers of the official implementations (tests/golden/README.md)."""

import os

import numpy as np
import pytest
import torch
from recordings import GRADS, LOGITS, LOSS, TRAINERS, Recording, logits, official_state, start
from support import decode, rename

from clusterprompt.clip_patches.clustering import spherical_kmeans

pytestmark = pytest.mark.slow


def draws_dropout_as_recorded() -> bool:
    """Tell whether dropout masks are drawn as in the recording; older versions of torch and GPUs draw others."""
    if os.environ.get("CLUSTERPROMPT_TEST_DEVICE") == "cuda":
        return False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return int((torch.nn.functional.dropout(torch.ones(32, 128), 0.3) != 0).sum()) == 2895


@pytest.fixture(params=TRAINERS)
def recorded(request, build):
    """A trainer in the recording's initial state, and the recording."""
    if request.param in ("tac_dropout", "clip_lora") and not draws_dropout_as_recorded():
        pytest.skip(
            "dropout masks are drawn here otherwise than in the recording; "
            "the recording without dropout is replayed all the same"
        )
    return start(request.param, build)


def close(actual, expected, tolerance):
    """Assert that two dicts of tensors agree."""
    assert set(expected) <= set(actual) and expected
    for name, value in expected.items():
        torch.testing.assert_close(
            actual[name].detach().cpu(), value, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_training_and_logits(recorded):
    """Any departure from the official loss, gradient, update, schedule or weight average shows here."""
    trainer, recording = recorded
    if "eval_base_logits_before" in recording:
        torch.testing.assert_close(
            logits(trainer, recording["eval_base_img_u8"]), recording["eval_base_logits_before"], rtol=0, atol=LOGITS
        )
    if recording.steps:
        replay(trainer, recording)
    if "eval_base_logits_after" in recording:
        torch.testing.assert_close(
            logits(trainer, recording["eval_base_img_u8"]), recording["eval_base_logits_after"], rtol=0, atol=LOGITS
        )


def replay(trainer, recording):
    """Feed the recorded batches and compare what comes out, step by step."""
    trainer.set_model_mode("train")
    trainer.num_batches = sum(step["epoch"] == 0 for step in recording.steps) if recording.steps[-1]["epoch"] else 10**9
    for i, step in enumerate(recording.steps):
        trainer.epoch, trainer.batch_idx = step["epoch"], i % trainer.num_batches
        assert trainer.get_current_lr() == pytest.approx(step["lr"], rel=1e-6)
        if "description_index" in step:
            trainer.begin_step = lambda drawn=step["description_index"]: setattr(trainer, "described", drawn)
        if "rng" in step:
            torch.set_rng_state(step["rng"])
        batch = {
            "img": [decode(view) for view in step["img_u8"]] if step["img_u8"].dim() == 5 else decode(step["img_u8"]),
            "label": step["label"],
        }
        if "img0_u8" in step:
            batch["img0"] = decode(step["img0_u8"])
        assert trainer.forward_backward(batch)["loss"] == pytest.approx(step["loss"], abs=LOSS), f"iteration {i}"
        parameters = dict(trainer.learner.named_parameters())
        gradients = recording.below(f"iters/{i}/grads/")
        if gradients:
            tolerance = recording.info.get("tolerance", {}).get("grads", GRADS)
            close({name: p.grad for name, p in parameters.items()}, rename(trainer, gradients), tolerance)
        for key in (f"after_iter_{i}", f"raw_after_epoch_{step['epoch']}"):
            weights = recording.below(f"snaps/{key}/")
            if weights and (key.startswith("after") or trainer.batch_idx + 1 == trainer.num_batches):
                close(parameters, rename(trainer, weights), recording.weights)
        if trainer.batch_idx + 1 == trainer.num_batches:
            trainer.end_epoch()
    final = recording.below("final_trainable/")
    if final:
        final.update({name: value.float() for name, value in recording.below("final_buffers/").items()})
        ours = {name: value.float() for name, value in trainer.learner.state_dict().items()}
        close(ours, rename(trainer, final), recording.weights)


# Without a checkpoint, of another method's layout, or of no use on new classes; these have tests of their own.
OTHER_CHECKPOINTS = (
    "zeroshotclip",
    "tac_dropout",
    "taskres",
    "clip_lora_p0",
    "clip_lora",
    "clip_lora_zero",
    "tip_adapter_f",
)


@pytest.mark.parametrize("name", [name for name in TRAINERS if name not in OTHER_CHECKPOINTS])
def test_official_checkpoint_on_new_classes(name, build, tmp_path):
    """Catches: a checkpoint in the official layout, whole model included, with other logits on unseen classes."""
    trainer, recording = start(name, build, "new")
    state = official_state(trainer, recording)
    path = tmp_path / "official" / recording.info["checkpoint"]
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": state, "epoch": 2, "optimizer": None, "scheduler": None, "val_result": None}, path)
    trainer.load_model(str(tmp_path / "official"), epoch=2)
    torch.testing.assert_close(
        logits(trainer, recording["eval_new_img_u8"]), recording["eval_new_logits_after"], rtol=0, atol=LOGITS
    )


def test_zero_shot_text_features(build):
    """The hand-written prompt must be the data set's, and the features those of stock CLIP."""
    trainer, recording = start("zeroshotclip", build)
    torch.testing.assert_close(trainer.text_features().cpu(), recording["text_features_base"], rtol=0, atol=1e-5)


def test_kmeans_gives_the_official_centers():
    """Seed 1 of numpy must give the recorded centres in the recorded order."""
    recording = Recording("tac")
    np.random.seed(1)
    torch.testing.assert_close(spherical_kmeans(recording["fixed_embeddings"], 5), recording["topk"], rtol=0, atol=1e-6)
