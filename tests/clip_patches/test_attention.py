"""Masks, and the MLP of a block."""

import torch
import torch.nn.functional as F
from torch import nn

from clusterprompt.clip_patches.attention import causal_mask, feed_forward, precontext_mask
from clusterprompt.clip_patches.autocast_weights import cast_once
from clusterprompt.clip_patches.loading import untrained_clip


def test_causal_mask():
    """A token sees itself and what came before."""
    assert causal_mask(3).tolist() == [[True, False, False], [True, True, False], [True, True, True]]


def test_precontext_mask():
    """Patches, and only they, are kept from the pre-context, and only from it."""
    mask = precontext_mask(n_patches=3, n_centers=2, n_prompts=4)
    expected = torch.ones(10, 10, dtype=torch.bool)
    for query in (1, 2, 3):
        for key in (4, 5):
            expected[query, key] = False
    assert torch.equal(mask, expected)


def test_feed_forward():
    """Catches: an activation that is not the block's, a gradient that is not its, a reused input."""
    torch.manual_seed(0)
    block = untrained_clip((16, 32, 1, 64, 16, 77, 8, 64, 1, 1)).visual.transformer.resblocks[0].double()
    block.requires_grad_(False)
    x = torch.randn(3, 5, 64, dtype=torch.double).mul(4).requires_grad_()
    for activation in (block.mlp.gelu, nn.GELU()):
        block.mlp.gelu = activation
        before = x.detach().clone()
        (ours,) = torch.autograd.grad(feed_forward(block, x).square().sum(), x)
        (stock,) = torch.autograd.grad(block.mlp(x).square().sum(), x)
        assert torch.allclose(feed_forward(block, x), block.mlp(x), atol=1e-12)
        assert torch.allclose(ours, stock, atol=1e-10) and torch.equal(x, before)


def test_cast_once():
    """Catches: other bits than autocast's, a cast of weights that have changed since, one that no gradient passes."""
    torch.manual_seed(0)
    weight, x = nn.Parameter(torch.randn(8, 8), requires_grad=False), torch.randn(4, 8, requires_grad=True)
    assert cast_once(weight) is weight
    with torch.autocast("cpu", torch.bfloat16):
        with torch.inference_mode():
            first = cast_once(weight)
        assert first.dtype == torch.bfloat16 and cast_once(weight) is first
        assert torch.equal(F.linear(x, first), F.linear(x, weight))
        F.linear(x, first).sum().backward()
        weight.mul_(2)
        assert torch.equal(cast_once(weight), 2 * first)
        weight.data = torch.ones(8, 8)
        assert torch.equal(cast_once(weight), torch.ones(8, 8))
        assert cast_once(weight.requires_grad_()) is weight
