"""Batched clustering against scikit-learn and a slow loop, and the vision pass that yields the tokens."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from clusterprompt.clip_patches import encoders
from clusterprompt.clip_patches.clustering import cluster_tokens


def random(*shape, seed=0):
    """Standard normal numbers that do not depend on what ran before."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def blobs(sizes=(12, 8, 5, 3), width=16, seed=0):
    """One image's tokens in well separated directions, of different length and mixed order; and their blob."""
    generator = torch.Generator().manual_seed(seed)
    directions = F.normalize(torch.randn(len(sizes), width, generator=generator), dim=1)
    blob = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))[
        torch.randperm(sum(sizes), generator=generator)
    ]
    x = directions[blob] + 0.05 * torch.randn(len(blob), width, generator=generator)
    return x * torch.rand(len(x), 1, generator=generator).add(0.5), blob


def slow(x, k, iters=10):
    """One set of tokens, (P, D), by the book: centres, sizes and labels, largest cluster first."""
    x = [row / row.norm() for row in x]
    mean = sum(x) / len(x)
    start = [max(range(len(x)), key=lambda i: float(x[i] @ mean))]
    while len(start) < k:
        start.append(min(range(len(x)), key=lambda i: max(float(x[i] @ x[j]) for j in start)))
    centers, labels = [x[i] for i in start], None
    for _ in range(iters):
        fits = [[float(row @ c) for c in centers] for row in x]
        new = [max(range(k), key=lambda c, f=f: f[c]) for f in fits]
        best = [f[c] for f, c in zip(fits, new)]
        for empty in range(k):
            if empty not in new:
                new[min((i for i in range(len(x)) if new.count(new[i]) > 1), key=lambda i: best[i])] = empty
        if new == labels:
            break
        labels = new
        sums = [sum(row for row, label in zip(x, labels) if label == c) for c in range(k)]
        centers = [s / s.norm() for s in sums]
    order = sorted(range(k), key=lambda c: -labels.count(c))
    return torch.stack([centers[c] for c in order]), torch.tensor([order.index(label) for label in labels])


def test_finds_what_sklearn_finds():
    """On separable data both must cut the tokens of each image alike."""
    images, truth = zip(*(blobs(seed=seed) for seed in range(6)))
    centers, labels = cluster_tokens(torch.stack(images), 4)
    for x, blob, own, c in zip(images, truth, labels, centers):
        theirs = KMeans(4, n_init=10, random_state=0).fit(F.normalize(x, dim=1).numpy())
        assert adjusted_rand_score(theirs.labels_, own) == 1 and adjusted_rand_score(blob, own) == 1
        assert own.bincount().tolist() == [12, 8, 5, 3], "largest cluster first"
        match = c @ F.normalize(torch.tensor(theirs.cluster_centers_), dim=1).T
        assert match.max(dim=1).values.min() > 0.9999


@pytest.mark.parametrize("k", [1, 2, 4, 7])
def test_against_a_slow_loop(k):
    """Start, assignment, mean, order: each image and layer as if alone, on data without clear clusters."""
    x = random(3, 2, 16, 12, seed=1) * 3 + 0.5
    centers, labels = cluster_tokens(x, k)
    assert centers.shape == (3, 2, k, 12) and labels.shape == (3, 2, 16)
    for image in range(3):
        for layer in range(2):
            expected, own = slow(x[image, layer], k)
            torch.testing.assert_close(centers[image, layer], expected, rtol=0, atol=1e-5)
            assert labels[image, layer].tolist() == own.tolist()


def test_chunks_and_neighbours_change_nothing():
    """A chunk of one set, or other images in the batch, must not move a centre; twice gives the same bits."""
    x = random(5, 3, 16, 12, seed=2)
    whole, labels = cluster_tokens(x, 4)
    again = cluster_tokens(x, 4)
    assert torch.equal(whole, again[0]) and torch.equal(labels, again[1])
    pieces = cluster_tokens(x, 4, budget_mb=0)
    torch.testing.assert_close(pieces[0], whole, rtol=0, atol=1e-6)
    assert torch.equal(pieces[1], labels)
    torch.testing.assert_close(cluster_tokens(x[1:2, 2:], 4)[0][0, 0], whole[1, 2], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "x", [torch.ones(2, 5, 3), torch.zeros(1, 4, 3), torch.eye(3)[[0, 0, 0, 0, 1]].expand(2, 5, 3)]
)
def test_fewer_distinct_tokens_than_clusters(x):
    """Clusters left empty are filled with tokens: every cluster has one, every centre is finite."""
    centers, labels = cluster_tokens(x, 4)
    assert torch.isfinite(centers).all()
    assert all(sorted(set(row.tolist())) == [0, 1, 2, 3] for row in labels)


def test_empty_cluster_takes_the_worst_fit():
    """Two starts on the same direction leave one cluster empty; the slow loop re-seeds the same way."""
    x = torch.tensor([[1.0, 0.0], [1.0, 0.01], [1.0, -0.01], [0.99, 0.0], [-1.0, 0.2], [-1.0, 0.2], [-1.0, 0.2]])
    centers, labels = cluster_tokens(x, 5)
    expected, own = slow(x, 5)
    torch.testing.assert_close(centers, expected, rtol=0, atol=1e-5)
    assert len(set(labels.tolist())) == 5 and len(set(own.tolist())) == 5


def test_half_precision_is_clustered_in_single():
    """Neither fp16 tokens nor autocast may round the cosines: near tokens would change clusters."""
    x = random(2, 16, 12, seed=3).half()
    expected = cluster_tokens(x.float(), 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        centers, labels = cluster_tokens(x, 3)
    assert centers.dtype == torch.float32 and torch.equal(labels, expected[1])
    torch.testing.assert_close(centers, expected[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "x, k, message",
    [
        (torch.ones(2, 5, 3), 6, "6 clusters of 5 tokens .* 1 to 5"),
        (torch.ones(2, 5, 3), 0, "0 clusters of 5"),
        (torch.ones(5), 1, "non-empty"),
        (torch.ones(0, 5, 3), 1, "non-empty"),
    ],
)
def test_bad_input(x, k, message):
    """Each is named."""
    with pytest.raises(ValueError, match=message):
        cluster_tokens(x, k)


# -------------------------------------------------------------------------------------------------- tokens of each
# layer


@pytest.mark.parametrize("layers", [(), (1,), (2, 3), (3, 1, 1)])
def test_layer_tokens(clip, layers):
    """Tokens as a hook on stock CLIP's blocks sees them, in the order asked for; the features stay stock CLIP's."""
    seen, images = {}, random(2, 3, 64, 64)
    hooks = [
        block.register_forward_hook(lambda m, i, out, n=n: seen.__setitem__(n, out.transpose(0, 1)[:, 1:]))
        for n, block in enumerate(clip.visual.transformer.resblocks, start=1)
    ]
    expected = clip.encode_image(images)
    for hook in hooks:
        hook.remove()
    features, tokens = encoders.encode_image_layers(clip, images, layers, lambda x: x.clone())
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    assert len(tokens) == len(layers)
    for layer, x in zip(layers, tokens):
        torch.testing.assert_close(x, seen[layer], rtol=1e-4, atol=1e-5)


def test_layer_tokens_that_cannot_be(clip, resnet_clip):
    """A ResNet has no tokens, a ViT no layer beyond its last."""
    with pytest.raises(ValueError, match="ResNet"):
        encoders.encode_image_layers(resnet_clip, random(1, 3, 64, 64), (1,), len)
    with pytest.raises(ValueError, match=r"no layer \[0, 4\]; it has layers 1 to 3"):
        encoders.encode_image_layers(clip, random(1, 3, 64, 64), (4, 0), len)
