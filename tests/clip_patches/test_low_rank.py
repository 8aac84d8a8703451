"""Low-rank paths beside the attention projections, against stock CLIP with edited weights, and the plain path."""

import pytest
import torch
from torch.func import functional_call

from clusterprompt.clip_patches import encoders, low_rank, plain
from clusterprompt.clip_patches.loading import tokenize
from clusterprompt.clip_patches.low_rank import LowRankPaths, merged, with_paths

NAMES = ["a photo of a cat.", "a photo of a very long dog name indeed.", "a photo of a big bus."]
CLOSE = dict(rtol=1e-4, atol=1e-5)
BLOCKS = {"text": "transformer.resblocks", "vision": "visual.transformer.resblocks"}


def towers_of_paths(projections="qkvo", layers=(0, 2), dropout=0.0, **options):
    """Paths of both towers that change something."""
    torch.manual_seed(0)
    widths = {"text": 128, "vision": 192}
    paths = {
        name: LowRankPaths(width, layers, projections, 2, 0.7, dropout, **options) for name, width in widths.items()
    }
    for each in paths.values():
        for path in each.modules():
            if hasattr(path, "B"):
                torch.nn.init.normal_(path.B, std=0.3)
    return paths


def edited_weights(clip, paths):
    """Return the weights of CLIP with ``W + s B A``, written out, differentiable to A and B."""
    edited = {}
    for tower, prefix in BLOCKS.items():
        for layer, block in paths[tower].items():
            attention = clip.get_submodule(f"{prefix}.{layer}.attn")
            rows = list(attention.in_proj_weight.chunk(3))
            for i, name in enumerate("qkv"):
                if name in block:
                    rows[i] = rows[i] + 0.7 * block[name].B @ block[name].A
            edited[f"{prefix}.{layer}.attn.in_proj_weight"] = torch.cat(rows)
            if "o" in block:
                weight = attention.out_proj.weight + 0.7 * block["o"].B @ block["o"].A
                edited[f"{prefix}.{layer}.attn.out_proj.weight"] = weight
    return edited


def features(view, images, sentences, run=encoders):
    """Return the features of images and sentences side by side, (6, d)."""
    return torch.cat([run.encode_image(view, images), run.encode_text(view, sentences)])


def gradients(out, paths):
    """Return the gradients of a random projection to all paths."""
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    parameters = [p for each in paths.values() for p in each.parameters()]
    return torch.autograd.grad((out * weight).sum(), parameters)


@pytest.fixture
def inputs(clip):
    """Three images and three sentences."""
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return images, encoders.embed_tokens(clip, tokenize(NAMES))


@pytest.mark.parametrize("projections", ["qkv", "o", "vq", "kqvo"])
@pytest.mark.parametrize("run", [encoders, plain])
def test_against_edited_weights(clip, inputs, projections, run):
    """Catches: a path beside the wrong projection or layer, a wrong scale, a gradient that misses the way through x."""
    paths = towers_of_paths(projections)
    stock = {name: value.clone() for name, value in clip.state_dict().items()}

    def encode(images, tokens):
        return torch.cat([clip.encode_image(images), clip.encode_text(tokens)])

    clip.forward, forward = encode, clip.forward
    try:
        slow = functional_call(clip, edited_weights(clip, paths), (inputs[0], tokenize(NAMES)))
    finally:
        clip.forward = forward
    fast = features(with_paths(clip, paths["text"], paths["vision"]), *inputs, run)
    torch.testing.assert_close(fast, slow, **CLOSE)
    for ours, theirs in zip(gradients(fast, paths), gradients(slow, paths)):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    assert all(torch.equal(value, stock[name]) for name, value in clip.state_dict().items())


def test_merged(clip, inputs):
    """Catches: merged weights that differ from the paths, that edit stock CLIP, or that follow later updates.

    Also catches: a merged CLIP that the plain path cannot run.
    """
    paths = towers_of_paths()
    stock = {name: value.clone() for name, value in clip.state_dict().items()}
    before = features(clip, *inputs)
    slow = features(with_paths(clip, paths["text"], paths["vision"]), *inputs)
    view = merged(clip, paths["text"], paths["vision"])
    torch.testing.assert_close(features(view, *inputs), slow, **CLOSE)
    torch.testing.assert_close(plain.encode_image(view, inputs[0]), encoders.encode_image(view, inputs[0]), **CLOSE)
    with torch.no_grad():
        for path in paths["text"]["0"].values():
            path.B.zero_()
    torch.testing.assert_close(features(view, *inputs), slow, **CLOSE)
    assert torch.equal(features(clip, *inputs), before) and not torch.allclose(before, slow, atol=1e-3)
    assert all(torch.equal(value, stock[name]) for name, value in clip.state_dict().items())


def test_towers_without_paths_are_stock(clip, resnet_clip, inputs):
    """Catches: a tower that is touched though it has no paths; a ResNet that fails beside a text tower with paths."""
    paths = towers_of_paths()
    view = with_paths(clip, paths["text"], {})
    assert torch.equal(encoders.encode_image(view, inputs[0]), encoders.encode_image(clip, inputs[0]))
    resnet = with_paths(resnet_clip, LowRankPaths(64, [1], "q", 1, 1.0, 0.0), {})
    torch.testing.assert_close(encoders.encode_image(resnet, inputs[0]), resnet_clip.encode_image(inputs[0]))


@pytest.mark.parametrize("depth", [1, 3])
def test_prompts_beside_paths(clip, inputs, depth):
    """Catches: prompts that are keys and values only, or a last layer of one row, for which a path is left out."""
    paths = towers_of_paths()
    view, draws = with_paths(clip, paths["text"], paths["vision"]), torch.Generator().manual_seed(3)
    prompts = [[torch.randn(4, width, generator=draws) for _ in range(depth)] for width in (192, 128)]
    for fast, slow in (
        (run.encode_image(view, inputs[0], prompts[0]) for run in (encoders, plain)),
        (run.encode_text(view, inputs[1], prompts[1]) for run in (encoders, plain)),
    ):
        torch.testing.assert_close(fast, slow, **CLOSE)


def test_dropout_against_plain(clip, inputs, monkeypatch):
    """Catches: dropout on the frozen projection, none on a path, or on the rows that a shortened pass leaves out.

    The entries to drop follow from the values themselves, so that both passes drop the same ones.
    """
    monkeypatch.setattr(low_rank.F, "dropout", lambda x, p, training: x * (x > 0.3) / (1 - p) if training else x)
    paths = towers_of_paths(dropout=0.25)
    view = with_paths(clip, paths["text"], paths["vision"])
    fast, slow = (features(view, *inputs, run) for run in (encoders, plain))
    torch.testing.assert_close(fast, slow, **CLOSE)
    for ours, theirs in zip(gradients(fast, paths), gradients(slow, paths)):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    for each in paths.values():
        each.eval()
    assert (features(view, *inputs) - fast).abs().max() > 1e-3


def test_dropout_of_each_class(clip):
    """Catches: dropout drawn once for the words that classes share; dropout in evaluation."""
    paths = towers_of_paths(dropout=0.5)
    view = with_paths(clip, paths["text"], paths["vision"])
    twice = encoders.embed_tokens(clip, tokenize([NAMES[0], NAMES[0]]))
    torch.manual_seed(0)
    one, other = encoders.encode_text(view, twice)
    assert (one - other).abs().max() > 1e-3
    paths["text"].eval()
    one, other = encoders.encode_text(view, twice)
    torch.testing.assert_close(one, other, **CLOSE)


def test_share_of_dropped_entries():
    """Catches: another rate, or no scaling of what is kept."""
    path = low_rank.LowRankPath(1000, 1, 2.0, 0.25)
    torch.nn.init.ones_(path.A)
    torch.nn.init.ones_(path.B)
    torch.manual_seed(0)
    sums = path(torch.ones(400, 1000)).detach()[:, 0] / 2
    assert sums.mean() == pytest.approx(1000, abs=5) and sums.std() == pytest.approx((1000 / 3) ** 0.5, rel=0.15)


def test_gradient_that_stops():
    """Catches: `passes_gradient` without effect, or one that stops the gradient of A and B."""
    for passes in (True, False):
        path = low_rank.LowRankPath(4, 2, 0.5, 0.0, passes)
        torch.nn.init.ones_(path.B)
        x = torch.randn(3, 4, requires_grad=True)
        (x.sum() + path(x).sum()).backward()
        wanted = torch.ones(3, 4) + passes * (0.5 * torch.ones(3, 4) @ path.B @ path.A)
        torch.testing.assert_close(x.grad, wanted.detach())
        assert path.A.grad.abs().max() > 0 and path.B.grad.abs().max() > 0


@pytest.mark.parametrize("precision", ["fp16", "amp"])
def test_precisions(weights, inputs, precision):
    """Catches: paths in fp32 beside halved weights that fail, or lose what they learn."""
    from clusterprompt.clip_patches.loading import autocast, load_clip

    paths = towers_of_paths()
    low, full = load_clip(str(weights), precision), load_clip(str(weights))
    with autocast(precision, torch.device("cpu")):
        images = inputs[0]
        found = [
            encoders.encode_image(show(low, paths["text"], paths["vision"]), images) for show in (with_paths, merged)
        ]
    wanted = encoders.encode_image(with_paths(full, paths["text"], paths["vision"]), images)
    for each in found:
        assert torch.cosine_similarity(each.float(), wanted, dim=-1).min() > 0.999
