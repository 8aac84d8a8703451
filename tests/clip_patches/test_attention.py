"""Masks."""

import torch

from clusterprompt.clip_patches.attention import causal_mask, precontext_mask


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
