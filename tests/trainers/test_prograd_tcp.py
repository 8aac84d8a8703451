"""ProGrad's projection and TCP's class-aware prompts, against the plain way to write them."""

import pytest
import torch
import torch.nn.functional as F

from clusterprompt.clip_patches import plain
from clusterprompt.trainers.base import unit
from clusterprompt.trainers.parts.gradients import backpropagate


def step(trainer, loss, divergence, monkeypatch):
    """Let the trainer compute gradients of made-up losses; the gradient of its context."""
    monkeypatch.setattr(trainer, "losses", lambda batch: {"ce": loss, "divergence": divergence})
    trainer.epoch, trainer.batch_idx, trainer.num_batches = 0, 0, 1
    trainer.model_zero_grad()
    backpropagate(trainer, trainer.parse_batch_train(next(iter(trainer.train_loader_x))))
    trainer.change_gradients()
    return trainer.learner.ctx.grad.clone()


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("conflict", [True, False])
def test_projection(conflict, strength, build, monkeypatch):
    """Catches: a projection where the gradients agree, none where they do not, a wrong one or a wrong strength."""
    trainer = build("ProGrad", "TRAINER.COOP.LAMBDA", strength)
    ctx = trainer.learner.ctx
    a, b = torch.randn(2, *ctx.shape, generator=torch.Generator().manual_seed(0))
    if ((a * b).sum() < 0) != conflict:
        b = -b
    found = step(trainer, (a * ctx).sum(), 3 * (b * ctx).sum(), monkeypatch)
    cosine = F.cosine_similarity(a.flatten(), b.flatten(), dim=0)
    expected = a - strength * cosine * a.norm() * b / b.norm() if conflict else a
    torch.testing.assert_close(found, expected)
    if conflict and strength == 1:
        assert (found * b).sum().abs() < 1e-4


def test_divergence_is_from_zero_shot(build):
    """Catches: a guide other than the gradient of the KL divergence from the hand-written prompt's logits."""
    trainer = build("ProGrad", "TRAINER.COOP.T", 2.0)
    batch = trainer.parse_batch_train(next(iter(trainer.train_loader_x)))
    (found,) = torch.autograd.grad(trainer.losses(batch)["divergence"], trainer.learner.ctx)
    logits, scale = trainer.classify(batch.images), trainer.clip.logit_scale.exp()
    frozen = scale * trainer.image_features(batch.images) @ trainer.text_anchors.T
    kl = 4 * F.kl_div(F.log_softmax(logits / 2, 1), F.softmax(frozen / 2, 1), reduction="batchmean")
    torch.testing.assert_close(found, torch.autograd.grad(kl, trainer.learner.ctx)[0], rtol=1e-3, atol=1e-4)


def test_class_aware_prompts(build):
    """Catches: prompts of another class or in another layer; -1 is two thirds of the tower, here 2 of 3."""
    trainer = build("TCP", "TRAINER.COOP.N_CTX", 4)
    prompts = trainer.learner.meta_net(trainer.text_anchors).view(1, 8, 4, 128)
    expected = unit(plain.encode_text(trainer.clip, trainer.names, [trainer.learner.ctx, prompts]))[0]
    torch.testing.assert_close(trainer.text_features(), expected, rtol=0, atol=1e-5)
    last = build("TCP", "TRAINER.COOP.N_CTX", 4, "TRAINER.COOP.PROMPT_LAYER", 3)
    last.learner.load_state_dict(trainer.learner.state_dict())
    expected = unit(plain.encode_text(trainer.clip, trainer.names, [trainer.learner.ctx, None, prompts]))[0]
    torch.testing.assert_close(last.text_features(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("CSC", True, "CSC is True; allowed: False"),
        ("CLASS_TOKEN_POSITION", "front", "'front'"),
        ("PROMPT_LAYER", 1, "PROMPT_LAYER is 1; allowed: a whole number from 2"),
        ("PROMPT_LAYER", 4, "allowed are 2 to 3"),
    ],
)
def test_tcp_settings_that_cannot_be(key, value, message, build):
    """Catches: an option that is ignored without a word."""
    with pytest.raises(ValueError, match=message):
        build("TCP", f"TRAINER.COOP.{key}", value)
