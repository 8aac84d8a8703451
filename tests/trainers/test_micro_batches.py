"""A batch taken in parts gives the loss and the gradients of the whole batch, for every trainer."""

import copy
import random

import pytest
import torch
from support import WITHOUT_DROPOUT

from clusterprompt.registration import own_trainers
from clusterprompt.trainers.parts.batch import Batch
from clusterprompt.trainers.parts.gradients import backpropagate, views_at_once

LEARNING = [cls.__name__ for cls in own_trainers() if cls.__name__ != "ZeroshotCLIP" and not cls.batch_coupled]


def gradients(trainer, views):
    """Run the backward pass of a fixed batch, ``views`` at a time; totals and gradients by name."""
    trainer.cfg.defrost()
    trainer.cfg.TRAIN.MICRO_BATCH = views
    torch.manual_seed(0)
    random.seed(0)
    state = copy.deepcopy(trainer.learner.state_dict())  # a step may begin with a change
    batch = trainer.parse_batch_train(next(iter(trainer.train_loader_x)))
    trainer.set_model_mode("train")
    trainer.epoch, trainer.batch_idx, trainer.num_batches = 0, 0, 1
    trainer.begin_step()
    trainer.model_zero_grad()
    totals = backpropagate(trainer, batch)
    trainer.change_gradients()
    trainer.learner.load_state_dict(state)
    return totals, {name: p.grad.clone() for name, p in trainer.learner.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", LEARNING)
def test_parts_add_up(name, build, monkeypatch):
    """Catches: a part weighted wrongly, a text gradient lost or counted twice, a term of the whole batch cut apart."""
    trainer = build(name, *WITHOUT_DROPOUT.get(name, ()), "DATALOADER.TRAIN_X.BATCH_SIZE", 5)
    for weight in trainer.learner.parameters():
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
        weight.data += 0.02 * noise.to(weight.device)
    whole, expected = gradients(trainer, 0)
    calls = []
    features = trainer.text_features
    monkeypatch.setattr(trainer, "text_features", lambda: calls.append(1) or features())
    for views in (1, 2, 3):
        calls.clear()
        totals, found = gradients(trainer, views)
        assert totals.terms == pytest.approx(whole.terms, abs=1e-5, rel=1e-5)
        assert totals.accuracy == pytest.approx(whole.accuracy)
        assert set(found) == set(expected)
        for key, gradient in expected.items():
            largest = max(1.0, float(gradient.abs().max()))
            torch.testing.assert_close(
                found[key], gradient, rtol=0, atol=1e-5 * largest, msg=lambda m, k=key: f"{k}: {m}"
            )
        assert len(calls) <= 1, "the class texts are computed once a step"


def test_split_keeps_an_images_views_together():
    """Catches: views, labels, un-augmented images or positions of a part that belong to other images."""
    images = torch.arange(10.0).reshape(10, 1, 1, 1)  # five images, two views, view-major
    batch = Batch(images, torch.arange(5).repeat(2), 2, img0=torch.arange(5.0), index=torch.arange(5) + 10)
    assert batch.count == 5 and batch.split(0) == [batch]
    parts = batch.split(4)
    assert [part.count for part in parts] == [2, 2, 1]
    assert parts[1].images.flatten().tolist() == [2, 3, 7, 8] and parts[1].labels.tolist() == [2, 3, 2, 3]
    assert parts[2].img0.tolist() == [4] and parts[2].index.tolist() == [14]
    assert [part.count for part in batch.split(1)] == [1] * 5, "an image is never cut"


def test_auto_follows_the_free_memory(build, monkeypatch):
    """Catches: a size that ignores the memory, is below one image, or changes in the middle of a run."""
    trainer = build("IVLP", "TRAIN.MICRO_BATCH", "auto")
    batch = trainer.parse_batch_train(next(iter(trainer.train_loader_x)))
    sizes = []
    for free in (0, 10, 1000):
        monkeypatch.setattr("clusterprompt.trainers.parts.gradients.free_memory_mb", lambda device, free=free: free)
        trainer.auto_micro_batch = None
        sizes.append(views_at_once(trainer, batch))
    assert sizes[0] == 1 < sizes[1] < sizes[2]
    monkeypatch.setattr("clusterprompt.trainers.parts.gradients.free_memory_mb", lambda device: 0)
    assert views_at_once(trainer, batch) == sizes[2]
