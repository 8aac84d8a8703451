"""The trainers against the recorded numbers of the official implementations (tests/golden/README.md)."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support import decode, rename

from clusterprompt.clip_patches.clustering import spherical_kmeans

LOSS, LOGITS, WEIGHTS, GRADS = 5e-5, 2e-4, 1e-5, 2e-4
FOLDER = Path(__file__).parent.parent / "golden"
TRAINERS = {"zeroshotclip": "ZeroshotCLIP", "coop": "CoOp", "ivlp": "IVLP", "cocoop": "CoCoOp", "kgcoop": "KgCoOp", "vpt": "VPT",
            "maple": "MaPLe", "promptsrc": "PromptSRC", "tac": "TAC", "tac_dropout": "TAC"}


class Recording:
    """A recording with its entries below a path as dicts."""

    def __init__(self, name):
        arrays = dict(np.load(FOLDER / f"{name}.npz"))
        self.info = json.loads(arrays.pop("json").tobytes())
        self.tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
        self.steps = [{**step, **self.below(f"iters/{i}/")} for i, step in enumerate(self.info["iters"])]

    def __getitem__(self, key):
        return self.tensors[key]

    def __contains__(self, key):
        return key in self.tensors

    def below(self, prefix):
        """Return the entries whose name starts with ``prefix``, without it."""
        return {key[len(prefix):]: value for key, value in self.tensors.items() if key.startswith(prefix)}


def draws_dropout_as_recorded() -> bool:
    """Tell whether this torch draws dropout masks as the one that recorded did; older ones do not."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return int((torch.nn.functional.dropout(torch.ones(32, 128), 0.3) != 0).sum()) == 2895


@pytest.fixture(params=TRAINERS)
def recorded(request, build):
    """A trainer in the recording's initial state, and the recording."""
    if request.param == "tac_dropout" and not draws_dropout_as_recorded():
        pytest.skip("this torch draws other dropout masks than the recording's; the recording without dropout is replayed all the same")
    return start(request.param, build)


def start(name, build, subsample="base"):
    """Build the trainer of a recording and give it the recorded start."""
    recording = Recording(name)
    node = "TRAINER.COOP" if name == "kgcoop" else f"TRAINER.{TRAINERS[name].upper()}"
    pairs = [x for key, value in recording.info["config"]["node"].items() for x in (f"{node}.{key}", value)]
    if name == "tac":
        pairs += [f"{node}.IMAGE_DROPOUT", 0.0, f"{node}.TARGET_DROPOUT", 0.0]
    pairs += ["DATALOADER.K_TRANSFORMS", recording.info["config"]["K_TRANSFORMS"], "OPTIM.LR", recording.info["config"]["OPTIM"]["LR"]]
    trainer = build(TRAINERS[name], "DATASET.SUBSAMPLE_CLASSES", subsample, *pairs)
    assert list(trainer.classnames) == recording.info[f"classnames_{subsample}"]
    weights = rename(trainer, recording.below("init_trainable/"))
    if "topk" in recording:  # the recording's class descriptions are not at hand, what came of them is
        weights["centers"] = recording["topk"]
    if weights and subsample == "base":
        if "topk" in recording:
            trainer.text_anchors = torch.nn.functional.normalize(recording["fixed_embeddings"], dim=-1)
        trainer.learner.load_state_dict(weights)
    return trainer, recording


def logits(trainer, images):
    """Logits in evaluation mode."""
    trainer.set_model_mode("eval")
    with torch.no_grad(), trainer.fixed_classes():
        return trainer.classify(decode(images))


def close(actual, expected, tolerance):
    """Assert that two dicts of tensors agree."""
    assert set(expected) <= set(actual) and expected
    for name, value in expected.items():
        torch.testing.assert_close(actual[name].detach(), value, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def test_training_and_logits(recorded):
    """Any departure from the official loss, gradient, update, schedule or weight average shows here."""
    trainer, recording = recorded
    if "eval_base_logits_before" in recording:
        torch.testing.assert_close(logits(trainer, recording["eval_base_img_u8"]), recording["eval_base_logits_before"], rtol=0, atol=LOGITS)
    if recording.steps:
        replay(trainer, recording)
    if "eval_base_logits_after" in recording:
        torch.testing.assert_close(logits(trainer, recording["eval_base_img_u8"]), recording["eval_base_logits_after"], rtol=0, atol=LOGITS)


def replay(trainer, recording):
    """Feed the recorded batches and compare what comes out, step by step."""
    trainer.set_model_mode("train")
    trainer.num_batches = sum(step["epoch"] == 0 for step in recording.steps) if recording.steps[-1]["epoch"] else 10 ** 9
    for i, step in enumerate(recording.steps):
        trainer.epoch, trainer.batch_idx = step["epoch"], i % trainer.num_batches
        assert trainer.get_current_lr() == pytest.approx(step["lr"], rel=1e-6)
        if "rng" in step:
            torch.set_rng_state(step["rng"])
        batch = {"img": [decode(view) for view in step["img_u8"]] if step["img_u8"].dim() == 5 else decode(step["img_u8"]),
                 "label": step["label"]}
        if "img0_u8" in step:
            batch["img0"] = decode(step["img0_u8"])
        assert trainer.forward_backward(batch)["loss"] == pytest.approx(step["loss"], abs=LOSS), f"iteration {i}"
        parameters = dict(trainer.learner.named_parameters())
        gradients = recording.below(f"iters/{i}/grads/")
        if gradients:
            close({name: p.grad for name, p in parameters.items()}, rename(trainer, gradients), GRADS)
        for key in (f"after_iter_{i}", f"raw_after_epoch_{step['epoch']}"):
            weights = recording.below(f"snaps/{key}/")
            if weights and (key.startswith("after") or trainer.batch_idx + 1 == trainer.num_batches):
                close(parameters, rename(trainer, weights), WEIGHTS)
        if trainer.batch_idx + 1 == trainer.num_batches:
            trainer.end_epoch()
    final = recording.below("final_trainable/")
    if final:
        close(dict(trainer.learner.named_parameters()), rename(trainer, final), WEIGHTS)


@pytest.mark.parametrize("name", [n for n in TRAINERS if n not in ("zeroshotclip", "tac_dropout")])
def test_official_checkpoint_on_new_classes(name, build, tmp_path):
    """A checkpoint in the official layout, the whole model in it, must give the official logits on classes it never saw."""
    trainer, recording = start(name, build, "new")
    state = official_state(trainer, recording)
    path = tmp_path / "official" / recording.info["checkpoint"]
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": state, "epoch": 2, "optimizer": None, "scheduler": None, "val_result": None}, path)
    trainer.load_model(str(tmp_path / "official"), epoch=2)
    torch.testing.assert_close(logits(trainer, recording["eval_new_img_u8"]), recording["eval_new_logits_after"], rtol=0, atol=LOGITS)


def official_state(trainer, recording):
    """Fill the recorded names of an official checkpoint: learned entries as recorded, the rest with frozen or unused values."""
    learned = recording.below("final_trainable/")
    learned.update({name.removeprefix("prompt_learner."): value for name, value in learned.items()
                    if recording.info["state_keys"][0] == "ctx"})
    if "topk" in recording:
        learned.update({"topk": recording["topk"], "prompt_learner.topk": recording["topk"]})
    return {name: learned.get(name, torch.zeros(1)) for name in recording.info["state_keys"]}


def test_zero_shot_text_features(build):
    """The hand-written prompt must be the data set's, and the features those of stock CLIP."""
    trainer, recording = start("zeroshotclip", build)
    torch.testing.assert_close(trainer.text_features(), recording["text_features_base"], rtol=0, atol=1e-5)


def test_kmeans_gives_the_official_centers():
    """Seed 1 of numpy must give the recorded centres in the recorded order."""
    recording = Recording("tac")
    np.random.seed(1)
    torch.testing.assert_close(spherical_kmeans(recording["fixed_embeddings"], 5), recording["topk"], rtol=0, atol=1e-6)
