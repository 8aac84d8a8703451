"""DePT beyond its recording: what is fused, and when."""

import pytest
import torch

IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_fusion(build):
    """Catches: fused logits by other weights than the losses', a head on normalised features, a scale on the head."""
    trainer = build("DePT", "TRAINER.COOP.WEIGHT", 0.4)
    learner = trainer.learner
    with torch.no_grad():
        for weight in learner.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
        raw, text = trainer.clip.encode_image(IMAGES), trainer.raw_text_features()
        similarity = 100 * (raw / raw.norm(dim=-1, keepdim=True)) @ (text / text.norm(dim=-1, keepdim=True)).T
        head = (raw * learner.image.scale + learner.image.bias) @ learner.head.weight.T + learner.head.bias
        torch.testing.assert_close(trainer.classify(IMAGES), 0.6 * similarity + 0.4 * head, rtol=0, atol=1e-3)
        trainer.cfg.defrost()
        trainer.cfg.TRAINER.COOP.FUSION = False
        torch.testing.assert_close(trainer.classify(IMAGES), similarity, rtol=0, atol=1e-3)


def test_rates(build):
    """Catches: one learning rate for all, or a warm-up that differs by group."""
    trainer = build("DePT", "OPTIM.LR", 0.002, "TRAINER.COOP.LR_FACTOR", 3.0, "OPTIM.STAGED_LR", True)
    assert [group["lr"] for group in trainer.optim.param_groups] == [1e-5, 1e-5]
    trainer.num_batches, trainer.epoch, trainer.batch_idx = 1, 0, 0
    trainer.update_lr()
    assert [group["lr"] for group in trainer.optim.param_groups] == pytest.approx([0.002, 0.006])
    assert [len(group["params"]) for group in trainer.optim.param_groups] == [1, 6]


def test_other_classes(build, tmp_path):
    """Catches: the head of other classes that is read because there are as many, or trained on."""
    trainer = build("DePT", output=tmp_path / "run")
    trainer.train()
    same, other = build("DePT"), build("DePT", "DATASET.SUBSAMPLE_CLASSES", "new")
    same.load_model(str(tmp_path / "run"))
    other.load_model(str(tmp_path / "run"))
    assert same.fuses and not other.fuses
    with torch.no_grad():
        assert other.classify(IMAGES).shape == (3, len(other.classnames))
    weights = str(tmp_path / "run" / "PromptLearner" / "model.pth.tar-2")
    with pytest.raises(ValueError, match="holds a head of 8 classes, and here are 7"):
        build("DePT", "DATASET.SUBSAMPLE_CLASSES", "new", "MODEL.INIT_WEIGHTS", weights).before_train()


def test_the_authors_places(build):
    """Catches: settings of an official yaml that are read and not used."""
    trainer = build("DePT", "TRAINER.LINEAR_PROBE.WEIGHT", 0.2)
    assert trainer.weight_of(trainer.cfg) == 0.2
    trainer = build("DePT", "TRAINER.LINEAR_PROBE.TEST_TIME_FUSION", False)
    assert not trainer.fuses
