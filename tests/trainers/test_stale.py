"""Class texts of the first evaluation, which some authors' code keeps."""

import pytest
import torch
from support import node_of

IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def logits(trainer):
    """Logits in evaluation."""
    with torch.no_grad(), trainer.fixed_classes():
        return trainer.classify(IMAGES)


@pytest.mark.parametrize("name", ["MMRL", "MMRLpp", "MMA"])
def test_texts_follow_the_weights(name, build):
    """Catches: validation by the texts of another epoch; OFFICIAL that follows the weights, or stops training."""
    for official in (False, True):
        trainer = build(name, f"TRAINER.{node_of(name)}.OFFICIAL", official)
        before = logits(trainer)
        with torch.no_grad():
            for weight in trainer.learner.parameters():
                weight.add_(0.05 * torch.randn(weight.shape))
            stale = trainer.class_features()
        assert torch.equal(stale, trainer.text_features().detach()) != official
        assert (logits(trainer) - before).abs().max() > 0.01 or (official and name != "MMA")
        assert trainer.class_features().requires_grad
