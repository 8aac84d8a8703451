"""MMA beyond its recording: gradients, layers, the class texts' words."""

import copy

import pytest
import torch

from clusterprompt.clip_patches import plain

IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def trainer(build):
    """Adapters in layers 1 and 2, with a scale that can be seen."""
    node = "TRAINER.MMADAPTER"
    pairs = [f"{node}.ADAPTER_START", 1, f"{node}.ADAPTER_END", 2, f"{node}.ADAPTER_SCALE", 0.05]
    return build("MMA", *pairs, f"{node}.ADAPTER_DIM", 16)


def test_against_plain(trainer):
    """Catches: an adapter of another layer or tower, without the block's norm, without its scale."""
    learner, clip = trainer.learner, trainer.clip

    def beside(tower, layer, x):
        if layer > 2:
            return None
        block = (clip.visual if tower == "visual" else clip).transformer.resblocks[layer - 1]
        down, up = (learner.towers[tower][str(layer)][name] for name in ("down", "up"))
        hidden = learner.shared[str(layer)](down(block.ln_1(x)).relu()).relu()
        return 0.05 * up(hidden)

    with torch.no_grad():
        image = plain.encode_image(clip, IMAGES, beside=beside)
        text = plain.encode_text(clip, trainer.sentences, beside=beside)
        torch.testing.assert_close(trainer.image_features(IMAGES), image / image.norm(dim=-1, keepdim=True))
        torch.testing.assert_close(trainer.text_features(), text / text.norm(dim=-1, keepdim=True))


def test_gradients_are_those_without_the_scale(trainer):
    """Catches: a rate that is a thousand times too low, a factor that is taken twice, or in one tower only."""
    rescaled, labels = trainer.learner, torch.tensor([0, 1, 2, 3])
    twin = copy.deepcopy(rescaled)  # a copy has no hooks: its gradients are the true ones
    found = {}
    for learner in (rescaled, twin):
        trainer.learner = learner
        loss = torch.nn.functional.cross_entropy(trainer.classify(IMAGES), labels)
        loss.backward()
        found[learner] = [p.grad for p in learner.parameters()]
    for ours, true in zip(found[rescaled], found[twin]):
        torch.testing.assert_close(ours, true / 0.05, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("start, end", [(4, 4), (3, 2), (1, 4)])
def test_layers_that_do_not_exist(start, end, build):
    """Catches: adapters that are nowhere, in silence."""
    with pytest.raises(ValueError, match=f"ADAPTER_START {start} and ADAPTER_END {end} give no layers"):
        build("MMA", "TRAINER.MMADAPTER.ADAPTER_START", start, "TRAINER.MMADAPTER.ADAPTER_END", end)


def test_its_official_name(build):
    """Catches: a run under the authors' name that is taken for another method's."""
    from dassl.engine import TRAINER_REGISTRY

    ours = build("MMA")
    theirs = TRAINER_REGISTRY.get("MultiModalAdapter")(ours.cfg)
    assert type(theirs) is type(ours) and TRAINER_REGISTRY.get("MultiModalAdapter").node() == "MMADAPTER"
