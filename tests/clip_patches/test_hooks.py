"""Tokens that enter between layers, functions of their states, their final states, paths beside the blocks.

Each against `plain.py`, which computes every token in every layer.
"""

import pytest
import torch
from encoder_cases import CLOSE, NAMES, PATCHES, TEXT, TOKENS, VISION, assert_same, random_prompts

from clusterprompt.clip_patches import encoders, plain
from clusterprompt.clip_patches.attention import precontext_mask
from clusterprompt.clip_patches.loading import tokenize

WIDTHS = {"visual": VISION, "text": TEXT}
# One letter a layer: p tokens, f a function of the slots' states, - left as they are.
GIVEN = ["p", "pp", "ppp", "p-p", "pf", "pff", "pfp", "ppf", "-p", "-pp", "-pf", "--p"]


def entries(given, images, width):
    """What the letters stand for, and the leaf tensors in it."""
    tokens, weights = random_prompts(3, images, width), random_prompts(3, None, width, seed=1)

    def change(i):
        return lambda states: 0.6 * weights[i] + 0.4 * states.roll(1, dims=-2)  # one slot's state reaches another

    kinds = [{"p": tokens[i], "f": change(i), "-": None}[letter] for i, letter in enumerate(given)]
    leaves = [(tokens if letter == "p" else weights)[i] for i, letter in enumerate(given) if letter != "-"]
    return kinds, leaves


def paths():
    """A non-linear path of each token beside every block, and its weights."""
    generator = torch.Generator().manual_seed(2)
    weights = {
        (tower, layer): (0.1 * torch.randn(width, width, generator=generator)).requires_grad_()
        for tower, width in WIDTHS.items()
        for layer in (2, 3)
    }

    def beside(tower, layer, x):
        return torch.tanh(x @ weights[tower, layer]) if (tower, layer) in weights else None

    return beside, [weight for (tower, _), weight in weights.items()], weights


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("images", [None, 3])
@pytest.mark.parametrize("given", GIVEN)
def test_bare_vision_tokens(clip, given, images, masked):
    """Catches: ln_pre on bare tokens, a wrong layer of entry, states that a function does not see, a wrong mask row."""
    x, (prompts, leaves) = torch.randn(3, 3, 64, 64), entries(given, images, VISION)
    mask = precontext_mask(PATCHES, TOKENS - 1, 1) if masked else None
    words = dict(mask=mask, bare=True)
    fast = encoders.encode_image(clip, x, prompts, **words)
    assert_same(fast, plain.encode_image(clip, x, prompts, **words), leaves)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("given", ["p", "ppp", "pff", "-pp", "--p"])
def test_final_states_of_inserted_tokens(clip, given, masked):
    """Catches: states of another slot or layer, or without ln_post; CLS that changes when the slots are read too."""
    x, (prompts, leaves) = torch.randn(3, 3, 64, 64), entries(given, None, VISION)
    words = dict(mask=precontext_mask(PATCHES, TOKENS - 1, 1) if masked else None, bare=True)
    features, states = encoders.encode_image_inserted(clip, x, prompts, **words)
    slow_features, slow_states = plain.encode_image_inserted(clip, x, prompts, **words)
    assert states.shape == (3, TOKENS, VISION)
    torch.testing.assert_close(features, encoders.encode_image(clip, x, prompts, **words), **CLOSE)
    torch.testing.assert_close(features, slow_features, **CLOSE)
    assert_same(states, slow_states, leaves)


@pytest.mark.parametrize("images", [None, 2])
@pytest.mark.parametrize("given", GIVEN)
def test_bare_text_tokens(clip, given, images):
    """Catches: positions on bare tokens or shifted ones of the words, a shared prefix that is not shared any more."""
    sentences, (prompts, leaves) = encoders.embed_tokens(clip, tokenize(NAMES)), entries(given, images, TEXT)
    fast = encoders.encode_text(clip, sentences, prompts, bare=True)
    assert_same(fast, plain.encode_text(clip, sentences, prompts, bare=True), leaves)


def test_functions_of_tokens_with_positions(clip):
    """Catches: functions that work on bare tokens only."""
    sentences = encoders.embed_tokens(clip, tokenize(NAMES))
    for encode, slow, given, width in (
        (encoders.encode_text, plain.encode_text, sentences, TEXT),
        (encoders.encode_image, plain.encode_image, torch.randn(3, 3, 64, 64), VISION),
    ):
        prompts, leaves = entries("pfp", None, width)
        assert_same(encode(clip, given, prompts), slow(clip, given, prompts), leaves)


def test_bare_tokens_of_classes(clip):
    """Catches: functions or late entry where sequences are not shared."""
    sentences = encoders.embed_tokens(clip, tokenize(NAMES))
    (_, change), (_, weight) = entries("pf", None, TEXT)
    by_class = torch.randn(2, 4, TOKENS, TEXT).requires_grad_()
    prompts = [None, by_class, change]
    fast = encoders.encode_text(clip, sentences, prompts, bare=True)
    assert fast.shape[:2] == (2, 4)
    assert_same(fast, plain.encode_text(clip, sentences, prompts, bare=True), [by_class, weight])


def test_bare_tokens_may_exceed_the_context(clip):
    """Catches: 77 tokens in, and an error or a name cut off; chunks of classes that lose columns of the mask."""
    names = ["word " * 75, "a photo of a cat.", "word " * 40]
    sentences, (prompts, leaves) = encoders.embed_tokens(clip, tokenize(names)), entries("-pp", None, TEXT)
    assert sentences.embeddings.shape[1] == 77
    slow = plain.encode_text(clip, sentences, prompts, bare=True)
    assert_same(encoders.encode_text(clip, sentences, prompts, bare=True), slow, leaves)
    with torch.no_grad():
        pieces = encoders.encode_text(clip, sentences, prompts, budget_mb=0, bare=True)
    torch.testing.assert_close(pieces, slow, **CLOSE)


@pytest.mark.parametrize("given", ["", "p", "pp", "-p", "pf"])
def test_paths_beside_blocks(clip, given):
    """Catches: an addend of other tokens (read row, shared words, cut text), of another layer or tower, or counted
    twice; a gradient that does not reach the path.
    """
    beside, _, weights = paths()
    images, sentences = torch.randn(3, 3, 64, 64), encoders.embed_tokens(clip, tokenize(NAMES))
    for tower, encode, slow, x in (
        ("visual", encoders.encode_image, plain.encode_image, images),
        ("text", encoders.encode_text, plain.encode_text, sentences),
    ):
        prompts, leaves = entries(given, None, WIDTHS[tower])
        words = dict(bare=True, beside=beside)
        own = [weight for (name, _), weight in weights.items() if name == tower]
        assert_same(encode(clip, x, prompts, **words), slow(clip, x, prompts, **words), [*leaves, *own])
        moved = encode(clip, x, prompts, **words) - encode(clip, x, prompts, bare=True)
        assert moved.abs().max() > 0.01


def test_paths_beside_blocks_with_texts_of_images(clip):
    """Catches: addends that lose the images' dimension, or chunks of classes."""
    beside, _, weights = paths()
    sentences, (prompts, leaves) = encoders.embed_tokens(clip, tokenize(NAMES)), entries("pp", 3, TEXT)
    slow = plain.encode_text(clip, sentences, prompts, beside=beside)
    assert_same(encoders.encode_text(clip, sentences, prompts, beside=beside), slow, [*leaves, weights["text", 2]])
    with torch.no_grad():
        pieces = encoders.encode_text(clip, sentences, prompts, budget_mb=0, beside=beside)
    torch.testing.assert_close(pieces, slow, **CLOSE)


def test_work_that_is_left_out(clip):
    """Catches: a saving lost: tokens computed where nothing reads them, or prefixes that run once a class."""
    seen = []

    def beside(tower, layer, x):
        seen.append((tower, layer, x.shape[:-1].numel()))
        return torch.zeros_like(x)

    sentences = encoders.embed_tokens(clip, tokenize(NAMES))
    (words, shared), classes = (sentences.embeddings.shape[1], sentences.shared), len(NAMES)
    encoders.encode_text(clip, sentences, entries("-pp", None, TEXT)[0], bare=True, beside=beside)
    encoders.encode_image(clip, torch.randn(3, 3, 64, 64), entries("-pp", None, VISION)[0], bare=True, beside=beside)
    tails = classes * (words - shared)
    prefix = [("text", layer, shared) for layer in (1, 2)]
    assert seen[:2] == prefix and [tokens for _, layer, tokens in seen[2:] if layer < 3][:-2] <= [tails, tails]
    assert [entry for entry in seen if entry[0] == "visual"] == [
        ("visual", 1, 3 * (1 + PATCHES)),
        ("visual", 2, 3 * (1 + PATCHES)),
        ("visual", 3, 3),
    ]


@pytest.mark.parametrize(
    "prompts, words, message",
    [
        ([None, torch.zeros(4, VISION)], {}, "first and the last"),
        ([None, torch.zeros(4, VISION), None], {"bare": True}, "first and the last"),
        ([None, lambda x: x], {"bare": True}, "must be a tensor"),
        ([None, None, None, torch.zeros(4, VISION)], {"bare": True}, "4 visual layers .* has 3"),
    ],
)
def test_what_cannot_enter(clip, prompts, words, message):
    """Catches: an entry that nothing can be done with, taken in silence."""
    with pytest.raises(ValueError, match=message):
        encoders.encode_image(clip, torch.zeros(1, 3, 64, 64), prompts, **words)


def test_resnet_takes_no_paths(resnet_clip):
    """Catches: a path that is lost without a word in a tower without blocks."""
    with pytest.raises(ValueError, match="ResNet"):
        encoders.encode_image(resnet_clip, torch.zeros(1, 3, 64, 64), beside=lambda tower, layer, x: x)
