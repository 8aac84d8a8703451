"""The prompted forward against stock CLIP, and against the plain path: values and gradients."""

import pytest
import torch
from encoder_cases import CLOSE, NAMES, PATCHES, TEXT, TOKENS, VISION, assert_same, random_prompts

from clusterprompt.clip_patches import encoders, plain
from clusterprompt.clip_patches.attention import precontext_mask
from clusterprompt.clip_patches.loading import tokenize
from clusterprompt.clip_patches.shared_prefix import chunk_sizes


def test_no_prompts_is_stock_clip(clip):
    """The frozen teacher is the same function: any slip in the embedding, order or projection shows."""
    images, tokens = torch.randn(3, 3, 64, 64), tokenize(NAMES)
    torch.testing.assert_close(encoders.encode_image(clip, images), clip.encode_image(images), **CLOSE)
    torch.testing.assert_close(
        encoders.encode_text(clip, encoders.embed_tokens(clip, tokens)), clip.encode_text(tokens), **CLOSE
    )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("images", [None, 3])
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_vision_against_plain(clip, depth, images, masked):
    """A wrong overwrite, flow after the last prompted layer, mask row or CLS-only last layer shows."""
    x, prompts = torch.randn(3, 3, 64, 64), random_prompts(depth, images, VISION)
    mask = precontext_mask(PATCHES, TOKENS - 1, 1) if masked and depth else None
    assert_same(encoders.encode_image(clip, x, prompts, mask), plain.encode_image(clip, x, prompts, mask), prompts)


@pytest.mark.slow
@pytest.mark.parametrize("images", [None, 3])
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_text_against_plain(clip, depth, images):
    """A wrong cut, shared prefix, position or slot shows."""
    sentences, prompts = encoders.embed_tokens(clip, tokenize(NAMES)), random_prompts(depth, images, TEXT)
    assert sentences.shared == 5
    assert_same(encoders.encode_text(clip, sentences, prompts), plain.encode_text(clip, sentences, prompts), prompts)


@pytest.mark.slow
@pytest.mark.parametrize("images", [None, 1, 2])
@pytest.mark.parametrize("given", ["p-c", "pc-", "pcp", "c", "cpc", "p-p", "ppc"])
def test_text_with_prompts_of_classes(clip, given, images):
    """Tokens that flow on, are overwritten later, or differ by class (c): a slip in any of it shows."""
    sentences, shared = encoders.embed_tokens(clip, tokenize(NAMES)), random_prompts(3, images, TEXT)
    by_class = [
        torch.stack([p.detach() * (i + 1) for i in range(len(NAMES))])
        .expand(images or 1, -1, TOKENS, TEXT)
        .clone()
        .requires_grad_()
        for p in random_prompts(3, None, TEXT, seed=1)
    ]
    prompts = [{"p": shared[i], "c": by_class[i], "-": None}[kind] for i, kind in enumerate(given.rstrip("-"))]
    leaves = [p for p in prompts if p is not None]
    fast = encoders.encode_text(clip, sentences, prompts)
    assert fast.shape == ((images or 1, 4, 128) if images or "c" in given else (4, 128))
    assert_same(fast, plain.encode_text(clip, sentences, prompts), leaves)


def test_vision_with_a_layer_left_out(clip):
    """None lets the tokens of the layer before flow on, under a mask too."""
    x, (first, last) = torch.randn(3, 3, 64, 64), random_prompts(2, None, VISION)
    mask = precontext_mask(PATCHES, TOKENS - 1, 1)
    assert_same(
        encoders.encode_image(clip, x, [first, None, last], mask),
        plain.encode_image(clip, x, [first, None, last], mask),
        [first, last],
    )


@pytest.mark.parametrize("masked", [False, True])
def test_vision_attention(clip, masked):
    """Catches: attention that is not the one of the prompted forward: another mask, order, layer or normalisation."""
    x, prompts = torch.randn(2, 3, 64, 64), [p.detach() for p in random_prompts(2, None, VISION)]
    mask = precontext_mask(PATCHES, TOKENS - 1, 1) if masked else None
    seen = []
    hooks = [
        block.attn.register_forward_pre_hook(
            lambda attn, args, words: seen.append((attn, args, words)), with_kwargs=True
        )
        for block in clip.visual.transformer.resblocks
    ]
    plain.encode_image(clip, x, prompts, mask)
    for hook in hooks:
        hook.remove()
    expected = [
        attn(*args, **{**words, "need_weights": True, "average_attn_weights": True})[1].mean(dim=0)
        for attn, args, words in seen
    ]
    torch.testing.assert_close(encoders.vision_attention(clip, x, prompts, mask), torch.stack(expected), **CLOSE)


def test_towers_of_different_depth(uneven_clip):
    """The depth that counts is the tower's own."""
    sentences, prompts = encoders.embed_tokens(uneven_clip, tokenize(NAMES)), random_prompts(2, None, TEXT)
    assert_same(
        encoders.encode_text(uneven_clip, sentences, prompts),
        plain.encode_text(uneven_clip, sentences, prompts),
        prompts,
    )
    with pytest.raises(ValueError, match="3 text layers .* has 2"):
        encoders.encode_text(uneven_clip, sentences, random_prompts(3, None, TEXT))


def test_one_class_and_equal_sentences(clip):
    """With nothing that differs, the shared words must still leave EOT to the class."""
    for names in (NAMES[:1], [NAMES[0]] * 3):
        sentences, prompts = encoders.embed_tokens(clip, tokenize(names)), random_prompts(2, None, TEXT)
        assert_same(
            encoders.encode_text(clip, sentences, prompts), plain.encode_text(clip, sentences, prompts), prompts
        )


def test_learned_embeddings_get_gradients(clip):
    """Contexts of each class are put into the sentence itself; the gradient must reach them."""
    sentences = encoders.embed_tokens(clip, tokenize(NAMES))
    words = sentences.embeddings[:, 1:].clone().requires_grad_()  # SOS is the same for all and not learned
    x = torch.cat([sentences.embeddings[:, :1], words], dim=1)
    fast, slow = (f(clip, encoders.Sentences(x, sentences.eot, 1)) for f in (encoders.encode_text, plain.encode_text))
    assert_same(fast, slow, [words])


@pytest.mark.parametrize("images", [None, 3])
def test_chunks_of_classes_change_nothing(clip, images):
    """Evaluation in chunks of one class must give what one piece gives."""
    sentences, prompts = encoders.embed_tokens(clip, tokenize(NAMES)), random_prompts(2, images, TEXT)
    with torch.no_grad():
        whole, pieces = (encoders.encode_text(clip, sentences, prompts, budget_mb=mb) for mb in (256, 0))
    torch.testing.assert_close(pieces, whole, **CLOSE)


@pytest.mark.parametrize("images", [None, 3])
def test_classes_of_very_different_length(clip, images):
    """Short classes run apart from the long one, and come back in their places."""
    names = [
        "a photo of a cat.",
        "a photo of a " + "very " * 20 + "long name.",
        "a photo of a big red bus.",
        "a photo of a dog.",
    ]
    sentences, prompts = encoders.embed_tokens(clip, tokenize(names)), random_prompts(2, images, TEXT)
    assert chunk_sizes(sentences.eot.sort().values + 1 - sentences.shared, 9) == [3, 1]
    assert_same(encoders.encode_text(clip, sentences, prompts), plain.encode_text(clip, sentences, prompts), prompts)


def test_export_with_any_number_of_images(clip):
    """Catches: code that fixes the number of images in an exported tower."""

    class Tower(torch.nn.Module):
        def forward(self, images):
            return encoders.encode_image(clip, images, prompts)

    prompts = [p.detach() for p in random_prompts(2, None, VISION)]
    shapes = {"images": {0: torch.export.Dim("batch")}}
    program = torch.export.export(Tower(), (torch.randn(2, 3, 64, 64),), dynamic_shapes=shapes, strict=False)
    images = torch.randn(5, 3, 64, 64)
    torch.testing.assert_close(program.module()(images), Tower()(images), **CLOSE)


def test_skipped_words(clip):
    """Prompts that replace the first words: the words go, the positions of what follows close up."""
    sentences = encoders.embed_tokens(clip, tokenize(NAMES), skip=4)
    bare = encoders.embed_tokens(clip, tokenize([name.removeprefix("a photo of a ") for name in NAMES]))
    torch.testing.assert_close(sentences.embeddings, bare.embeddings)
    assert sentences.eot.tolist() == bare.eot.tolist()


def test_only_prompts_get_gradients(clip):
    """CLIP stays frozen: no graph over its weights."""
    prompts = random_prompts(2, None, VISION)
    encoders.encode_image(clip, torch.randn(2, 3, 64, 64), prompts).sum().backward()
    assert all(p.grad is None for p in clip.parameters()) and all(p.grad is not None for p in prompts)


def test_half_precision_follows_single(weights):
    """Prompts are fp32 whatever CLIP's precision; bf16 carries 8 bits."""
    from clusterprompt.clip_patches.loading import load_clip

    single, half = load_clip(str(weights)), load_clip(str(weights), "bf16")
    x, prompts = torch.randn(2, 3, 64, 64), random_prompts(2, None, VISION)
    a, b = (encoders.encode_image(c, x, prompts) for c in (single, half))
    assert b.dtype == torch.bfloat16
    assert torch.cosine_similarity(a, b.float()).min() > 0.99


def test_resnet_takes_no_visual_prompts(resnet_clip):
    """A ResNet tower works without prompts and refuses them in words."""
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(encoders.encode_image(resnet_clip, images), resnet_clip.encode_image(images))
    with pytest.raises(ValueError, match="ResNet"):
        encoders.encode_image(resnet_clip, images, random_prompts(1, None, VISION))


@pytest.mark.parametrize(
    "prompts, message",
    [
        ([torch.zeros(4, VISION)] * 4, "4 visual layers .* has 3"),
        ([torch.zeros(4, VISION), torch.zeros(5, VISION)], "must all be"),
        ([torch.zeros(4, 7)], "must all be"),
        ([torch.zeros(4, VISION), None], "first and the last"),
        ([torch.zeros(1, 2, 4, VISION)], "depend on the class"),
    ],
)
def test_prompts_that_do_not_fit(clip, prompts, message):
    """Wrong shapes and depths are named."""
    with pytest.raises(ValueError, match=message):
        encoders.encode_image(clip, torch.zeros(1, 3, 64, 64), prompts)


def test_text_longer_than_the_context(clip):
    """Insertion must not push EOT out of the 77 positions silently."""
    sentences = encoders.embed_tokens(clip, tokenize(["word " * 70]))
    encoders.encode_text(clip, sentences, [torch.zeros(5, TEXT)])
    with pytest.raises(ValueError, match="78 is above CLIP's context of 77"):
        encoders.encode_text(clip, sentences, [torch.zeros(6, TEXT)])
