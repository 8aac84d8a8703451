"""CLIPLoRA: what its recordings do not show."""

import json

import pytest
import torch
from recordings import LOGITS, logits, start

from clusterprompt import load_run
from clusterprompt.clip_patches.anatomy import tokenize
from clusterprompt.trainers.base import unit
from clusterprompt.trainers.cliplora import POSITIONS, adapted_layers

pytestmark = pytest.mark.slow

IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
# Layers from 1, as the authors list them.
TWELVE = {
    "all": range(1, 13),
    "bottom": range(1, 5),
    "mid": range(5, 9),
    "up": range(9, 13),
    "half-bottom": range(1, 7),
    "half-up": range(7, 13),
    "top3": range(10, 13),
}


def node(**options):
    """Config pairs of the method's node."""
    return [x for key, value in options.items() for x in (f"TRAINER.CLIPLORA.{key}", value)]


@pytest.mark.parametrize("position", TWELVE)
def test_positions(position):
    """Catches: other layers than the authors'; a tower that is too shallow adapted nowhere in silence."""
    assert [layer + 1 for layer in adapted_layers(position, 12)] == list(TWELVE[position])
    assert [*POSITIONS, "top3"] == list(TWELVE)
    deep = {"half-up": range(13, 25), "half-bottom": range(1, 13), "all": range(1, 25)}  # of ViT-L/14's vision tower
    if position in deep:
        assert [layer + 1 for layer in adapted_layers(position, 24)] == list(deep[position])
    if position not in ("all", "half-up", "half-bottom", "up", "mid"):
        with pytest.raises(ValueError, match=f"POSITION {position} is no layer of a tower with 2"):
            adapted_layers(position, 2)


def official_file(folder, recording, **metadata):
    """Write the recorded weights as the authors' code does: nested dicts, layers counted through both towers."""
    weights = {}
    for entry, parameter in recording.info["ckpt_map"].items():
        layer, projection, matrix = entry.split(".")
        value = recording[f"final_trainable/{parameter}"]
        weights.setdefault(layer, {}).setdefault(projection, {})[matrix] = value
    path = folder / "lora_weights.pt"
    torch.save({"weights": weights, "metadata": {**recording.info["ckpt_metadata"], **metadata}}, path)
    return str(path)


@pytest.mark.parametrize("name", ["clip_lora", "clip_lora_p0"])
def test_official_file_on_new_classes(name, build, tmp_path):
    """Catches: towers or layers mixed up in the authors' numbering; other logits on unseen classes."""
    trainer, recording = start(name, build, "new")
    trainer.load_model(official_file(tmp_path, recording))
    torch.testing.assert_close(
        logits(trainer, recording["eval_new_img_u8"]), recording["eval_new_logits_after"], rtol=0, atol=LOGITS
    )


@pytest.mark.parametrize(
    "key, value", [("r", 4), ("alpha", 2), ("encoder", "text"), ("params", ["q", "v"]), ("position", "up")]
)
def test_official_file_of_other_settings(build, tmp_path, key, value):
    """Catches: weights taken with another factor, or into other layers."""
    trainer, recording = start("clip_lora_p0", build)
    with pytest.raises(ValueError, match=rf"was trained with {key} .*, here .*TRAINER.CLIPLORA"):
        trainer.load_model(official_file(tmp_path, recording, **{key: value}))
    with pytest.raises(ValueError, match="does not fit"):
        build("CLIPLoRA", *node(POSITION="half-up")).load_model(
            official_file(tmp_path, recording, position="half-up")  # twice as many layers as it says
        )


@pytest.mark.parametrize("encoder, moved", [("text", "text"), ("vision", "vision"), ("both", "")])
@pytest.mark.parametrize("position, layers", [("half-up", {"1", "2"}), ("all", {"0", "1", "2"})])
def test_what_is_learned(encoder, moved, position, layers, build):
    """Catches: paths in another tower, layer or projection than the options say; the other tower's features moved."""
    trainer = build("CLIPLoRA", *node(ENCODER=encoder, POSITION=position, PARAMS=["v", "o"], R=4, ALPHA=3))
    names = [name.split(".") for name, _ in trainer.learner.named_parameters()]
    assert {name[0] for name in names} == ({moved} if moved else {"text", "vision"})
    assert {name[1] for name in names} == layers and {name[2] for name in names} == {"v", "o"}
    for parameter in trainer.learner.parameters():
        assert 4 in parameter.shape
        parameter.data.normal_(std=0.3)
    path = trainer.learner[moved or "text"]["2"]["o"]
    torch.testing.assert_close(path.delta(), 1.5 * path.B @ path.A)  # 3 / sqrt(4)
    trainer.set_model_mode("eval")
    sentences = [f"a photo of a {name.replace('_', ' ')}." for name in trainer.classnames]
    stock = {
        "text": unit(trainer.clip.encode_text(tokenize(trainer.clip, sentences))),
        "vision": unit(trainer.clip.encode_image(IMAGES)),
    }
    with torch.no_grad(), trainer.fixed_classes():
        found = {"text": trainer.class_features(), "vision": trainer.image_features(IMAGES)}
    for tower, features in found.items():
        assert torch.allclose(features, stock[tower], rtol=0, atol=1e-5) == (encoder not in (tower, "both"))


def test_steps(build, tmp_path):
    """Catches: training that goes on after N_ITERS steps a shot, or takes MAX_EPOCH epochs although fewer have them."""
    trainer = build("CLIPLoRA", *node(N_ITERS=3), "OPTIM.MAX_EPOCH", 1000, "OPTIM.NAME", "adamw", output=tmp_path)
    assert (trainer.steps, len(trainer.train_loader_x), trainer.max_epoch) == (12, 4, 3)
    trainer = build("CLIPLoRA", *node(N_ITERS=1), "DATASET.NUM_SHOTS", 3, "OPTIM.MAX_EPOCH", 9, "OPTIM.LR", 0.01)
    assert (trainer.steps, len(trainer.train_loader_x), trainer.max_epoch) == (3, 3, 1)
    trainer.num_batches, trainer.epoch = 3, 0
    batch = next(iter(trainer.train_loader_x))
    for trainer.batch_idx in range(3):
        trainer.forward_backward(batch)
    before = {name: value.clone() for name, value in trainer.learner.state_dict().items()}
    trainer.batch_idx = 0
    trainer.forward_backward(batch)
    assert all(torch.equal(value, before[name]) for name, value in trainer.learner.state_dict().items())
    assert build("CLIPLoRA", *node(N_ITERS=0), "OPTIM.MAX_EPOCH", 7).steps == 28
    assert build("CLIPLoRA", *node(N_ITERS=1), "OPTIM.MAX_EPOCH", 2, "DATASET.NUM_SHOTS", -1).max_epoch == 2


def test_merged_for_evaluation_alone(build):
    """Catches: merged weights that outlive the evaluation, or that later updates do not reach."""
    trainer = build("CLIPLoRA")
    trainer.set_model_mode("eval")
    with torch.no_grad(), trainer.fixed_classes():
        first = trainer.classify(IMAGES)
    for path in trainer.learner.modules():
        if hasattr(path, "B"):
            path.B.data.normal_(std=0.3)
    with torch.no_grad():
        unmerged = trainer.classify(IMAGES)
        with trainer.fixed_classes():
            second = trainer.classify(IMAGES)
    assert (second - first).abs().max() > 0.1
    torch.testing.assert_close(second, unmerged, rtol=0, atol=1e-3)


def test_ordinary_dropout_is_drawn_for_what_is_computed(build):
    """Catches: OFFICIAL without effect on the draws, or drawn in evaluation."""
    draws = {}
    for official in (True, False):
        trainer = build("CLIPLoRA", *node(OFFICIAL=official))
        trainer.set_model_mode("train")
        torch.manual_seed(0)
        trainer.classify(IMAGES)
        draws[official] = torch.rand(1).item()
        trainer.set_model_mode("eval")
        torch.manual_seed(0)
        trainer.classify(IMAGES)
        draws["eval", official] = torch.rand(1).item()
    torch.manual_seed(0)
    assert draws["eval", True] == draws["eval", False] == torch.rand(1).item()
    assert len(set(draws.values())) == 3


def test_resnet(build, resnet):
    """Catches: a ResNet's tower that is to be adapted fails with a traceback, or is left out in silence."""
    options = ("MODEL.BACKBONE.NAME", str(resnet))
    with pytest.raises(ValueError, match="ENCODER both needs a ViT backbone"):
        build("CLIPLoRA", *options)
    trainer = build("CLIPLoRA", *options, *node(ENCODER="text"))
    assert trainer.classify(IMAGES).shape == (3, 8)


def test_used_without_its_data(build, tmp_path):
    """Catches: a run whose updates are lost in prediction or in the class texts that are exported."""
    trainer = build("CLIPLoRA", "OPTIM.LR", 0.05, "OPTIM.NAME", "adamw", output=tmp_path / "seed1")
    trainer.train()
    used = load_run(tmp_path / "seed1", trust_record=True)
    trainer.set_model_mode("eval")
    with torch.no_grad(), trainer.fixed_classes():
        torch.testing.assert_close(used.logits(IMAGES), trainer.classify(IMAGES), rtol=0, atol=1e-4)
    new = load_run(tmp_path / "seed1", classes=["cat", "dog"], trust_record=True)
    assert new.logits(IMAGES).shape == (3, 2)
    assert json.loads((tmp_path / "seed1" / "result.json").read_text())["learned_parameters"] == 11520
