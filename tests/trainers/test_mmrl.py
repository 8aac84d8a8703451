"""MMRL and MMRL++ beyond their recordings: other layers, which logits a test reads, what is refused."""

import pytest
import torch
import torch.nn.functional as F

from clusterprompt.clip_patches import plain

IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
OTHER = ["N_REP_TOKENS", 3, "REP_DIM", 24, "ALPHA", 0.6, "BETA", 0.3, "RES_LORA_DIM", 2, "PROJ_LORA_DIM", 6]


def options(node, words):
    """Options of a method's node as pairs."""
    return [word if i % 2 else f"TRAINER.{node}.{word}" for i, word in enumerate(words)]


@pytest.fixture
def made(build):
    """Build a trainer whose learned weights all count: none is zero."""

    def make(plus_plus, layers, *pairs):
        words = [*OTHER, "REP_LAYERS", layers, "PLUS_PLUS", plus_plus]
        trainer = build("MMRL", *options("MMRL", words), *pairs)
        torch.manual_seed(3)
        with torch.no_grad():
            for weight in trainer.learner.parameters():
                weight.add_(0.05 * torch.randn(weight.shape))
        return trainer

    return make


def slow(trainer):
    """Both normalised image features and the class texts, written out by the equations."""
    learner, s, clip = trainer.learner, trainer.settings, trainer.clip

    def prompts(maps, layers):
        placed = [None] * max(layers)
        for i, layer in enumerate(sorted(layers)):
            if s.PLUS_PLUS:
                weight, bias = maps.weight + maps.srra[i].A @ maps.srra[i].B, maps.srra[i].bias
            else:
                weight, bias = maps[i].weight, maps[i].bias
            own = learner.tokens @ weight.T + bias
            blend = (lambda states, own=own: 0.3 * own + 0.7 * states) if s.PLUS_PLUS and i else None
            placed[layer - 1] = blend or own
        return placed

    image, states = plain.encode_image_inserted(clip, IMAGES, prompts(learner.vision, s.REP_LAYERS), bare=True)
    text = plain.encode_text(clip, trainer.sentences, prompts(learner.text, s.REP_LAYERS), bare=True)
    projection = learner.projection
    if s.PLUS_PLUS:
        projection = clip.visual.proj + projection.A @ projection.B
    return [F.normalize(x, dim=-1) for x in (image, states.mean(dim=1) @ projection, text)]


@pytest.mark.parametrize("layers", [[1, 2], [2], [1, 3], [3, 1]])
@pytest.mark.parametrize("plus_plus", [False, True])
def test_other_layers(plus_plus, layers, made):
    """Catches: tokens in the wrong layer, a map of another layer, a blend without BETA, a projection not CLIP's."""
    trainer = made(plus_plus, layers)
    with torch.no_grad():
        image, representation, text = slow(trainer)
        logits, logits_r = 100 * image @ text.T, 100 * representation @ text.T
        for fast, expected in zip((*trainer.both_features(IMAGES), trainer.text_features()), slow(trainer)):
            torch.testing.assert_close(fast, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(trainer.classify(IMAGES), 0.6 * logits + 0.4 * logits_r, rtol=0, atol=2e-3)
        trainer.cfg.defrost()
        trainer.cfg.TASK = "CD"
        torch.testing.assert_close(trainer.classify(IMAGES), logits, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    "task, classes, fuses",
    [("B2N", "base", True), ("B2N", "new", False), ("B2N", "all", False), ("FS", "all", True), ("CD", "all", False)],
)
def test_the_authors_protocols(task, classes, fuses, build):
    """Catches: a test that reads other logits than the authors' protocol."""
    trainer = build("MMRL", "TASK", task, "DATASET.SUBSAMPLE_CLASSES", classes)
    assert trainer.fuses == fuses


def test_known_classes(build, tmp_path):
    """Catches: the fused logits on classes that were not trained, or their loss on those that were."""
    trainer = build("MMRL", output=tmp_path / "run")
    assert trainer.fuses
    trainer.train()
    for classes, known in (("base", True), ("new", False), ("all", False)):
        other = build("MMRL", "DATASET.SUBSAMPLE_CLASSES", classes)
        other.load_model(str(tmp_path / "run"))
        assert other.fuses == known, classes
        other.before_train()
        assert other.fuses  # what it trains on now, it knows


@pytest.mark.parametrize("layers", [[4], [2, 2], [0], [1.5]])
def test_layers_that_do_not_exist(layers, build):
    """Catches: a layer taken in silence that a tower lacks, or taken twice."""
    with pytest.raises(ValueError, match="REP_LAYERS is"):
        trainer = build("MMRL", "TRAINER.MMRL.REP_LAYERS", layers)
        trainer.check_cfg(trainer.cfg)


def test_layers_by_themselves(build):
    """Catches: a default that only fits twelve layers."""
    assert build("MMRL").layers == [1, 2, 3]
