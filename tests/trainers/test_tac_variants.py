"""TAC taken apart for its ablation: where the pre-context goes, and the mask."""

import pytest
import torch

pytestmark = pytest.mark.slow

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
NODE = "TRAINER.TAC"


@pytest.mark.parametrize("towers, text, vision", [("both", 10, 10), ("text", 10, 5), ("vision", 5, 10), ("none", 5, 5)])
def test_towers_of_the_precontext(towers, text, vision, build):
    """5 centres in front of 5 prompts, or the prompts alone; every variant trains and evaluates."""
    trainer = build("TAC", f"{NODE}.PRECONTEXT", towers)
    prompts = trainer.learner()
    assert {len(p) for p in prompts[0]} == {text} and {len(p) for p in prompts[1]} == {vision}
    trainer.set_model_mode("train")
    trainer.num_batches, trainer.epoch, trainer.batch_idx = 9, 0, 0
    assert trainer.forward_backward(next(iter(trainer.train_loader_x)))["loss"] > 0
    trainer.set_model_mode("eval")
    with torch.no_grad():
        assert torch.isfinite(trainer.classify(IMAGES)).all()


def test_mask(build):
    """Without the mask patches see the pre-context: other features, unless there is no pre-context."""

    def features(*pairs):
        trainer = build("TAC", *pairs)
        trainer.set_model_mode("eval")
        with torch.no_grad():
            return trainer.image_features(IMAGES)

    assert (features() - features(f"{NODE}.MASK", False)).abs().max() > 1e-4
    none = f"{NODE}.PRECONTEXT", "none"
    torch.testing.assert_close(features(*none), features(*none, f"{NODE}.MASK", False))


def test_unknown_tower(build):
    """A slip of the pen is named."""
    with pytest.raises(ValueError, match="'images'; allowed: both, text, vision, none"):
        build("TAC", f"{NODE}.PRECONTEXT", "images")


def test_a_target_of_few_classes(build, tmp_path):
    """Catches: a trained TAC that cannot be tested on fewer classes than centres; centres of the wrong task."""
    trained = build("TAC")
    trained.save_model(0, str(tmp_path))
    for recluster, expected in ((False, trained.learner.centers), (True, None)):
        target = build(
            "TAC", f"{NODE}.N_CENTERS", 3, f"{NODE}.RECLUSTER", recluster
        )  # as many as a task of 3 classes gets
        own = target.learner.centers.clone()
        target.load_model(str(tmp_path))
        torch.testing.assert_close(target.learner.centers, own if expected is None else expected)
        target.set_model_mode("eval")
        with torch.no_grad():
            assert torch.isfinite(target.classify(IMAGES)).all()
