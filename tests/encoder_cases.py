"""Sentences and random prompts for the small CLIP, and the comparison of two encoders."""

import torch

NAMES = [
    "a photo of a cat.",
    "a photo of a very long dog name indeed.",
    "a photo of a big bus.",
    "a photo of a catfish.",
]
TOKENS, PATCHES, VISION, TEXT = 4, 16, 192, 128
CLOSE = dict(rtol=1e-4, atol=1e-5)


def random_prompts(depth, images, width, seed=0):
    """One leaf tensor a layer, shared or per image."""
    generator = torch.Generator().manual_seed(seed)
    shape = (TOKENS, width) if images is None else (images, TOKENS, width)
    return [torch.randn(shape, generator=generator).requires_grad_() for _ in range(depth)]


def assert_same(fast, slow, parameters):
    """Compare values, and gradients of a random projection of them."""
    torch.testing.assert_close(fast, slow, **CLOSE)
    weight = torch.randn(fast.shape, generator=torch.Generator().manual_seed(1))
    if parameters:
        for a, b in zip(*(torch.autograd.grad((out * weight).sum(), parameters) for out in (fast, slow))):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
