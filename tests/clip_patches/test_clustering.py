"""Spherical k-means against scikit-learn and a slow loop."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans

from clusterprompt.clip_patches.clustering import spherical_kmeans


def blobs(k=4, per_cluster=20, width=16, seed=0):
    """Well separated directions of different length."""
    generator = torch.Generator().manual_seed(seed)
    directions = F.normalize(torch.randn(k, width, generator=generator), dim=1)
    x = directions.repeat_interleave(per_cluster, 0) + 0.05 * torch.randn(k * per_cluster, width, generator=generator)
    return x * torch.rand(len(x), 1, generator=generator).add(0.5), directions


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_finds_what_sklearn_finds(scale):
    """On separable data k-means++ must find the clusters, whatever the length of the vectors."""
    x, _ = blobs()
    ours = spherical_kmeans(x * scale, 4, init="k-means++", rng=np.random.RandomState(0))
    theirs = KMeans(4, n_init=10, random_state=0).fit(F.normalize(x, dim=1).numpy()).cluster_centers_
    match = ours @ F.normalize(torch.tensor(theirs), dim=1).T
    assert match.max(dim=1).values.min() > 0.999 and sorted(match.argmax(dim=1).tolist()) == [0, 1, 2, 3]


def test_against_a_slow_loop():
    """Assignment by cosine, mean of the raw members, the official stop."""
    x, start = (
        torch.randn(60, 8, generator=torch.Generator().manual_seed(1)),
        np.random.RandomState(3).choice(60, 5, replace=False),
    )
    centers = [x[i].clone() for i in start]
    for _ in range(300):
        members = [[] for _ in centers]
        for row in x:
            members[max(range(5), key=lambda c: float(torch.cosine_similarity(row, centers[c], dim=0)))].append(row)
        new = [torch.stack(m).mean(0) for m in members]
        shift = sum(float((a - b).norm()) for a, b in zip(new, centers))
        centers = new
        if shift**2 < 1e-4:
            break
    ours = spherical_kmeans(x, 5, rng=np.random.RandomState(3))
    torch.testing.assert_close(ours, F.normalize(torch.stack(centers), dim=1), rtol=1e-4, atol=1e-5)


def test_unit_length_repeatable_and_seeded_by_numpy():
    """The same numpy seed must give the same centres, another seed may not."""
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    runs = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        runs.append(spherical_kmeans(x, 5))
    torch.testing.assert_close(runs[0].norm(dim=1), torch.ones(5))
    assert torch.equal(runs[0], runs[1]) and not torch.allclose(runs[0], runs[2])


def test_empty_cluster_is_seeded_again():
    """Equal starts leave clusters without members; every centre must stay finite."""
    x = torch.cat([torch.tensor([[1.0, 0.0]]).repeat(30, 1), torch.tensor([[0.0, 1.0], [-1.0, 0.1]])])
    for seed in range(5):
        centers = spherical_kmeans(x, 3, rng=np.random.RandomState(seed))
        assert torch.isfinite(centers).all()
        assert (F.normalize(x, dim=1) @ centers.T).max(dim=1).values.min() > 0.999


def test_fewer_distinct_points_than_centres():
    """The official code fails here; ours takes what there is and says so."""
    with pytest.warns(UserWarning, match="only 2 distinct"):
        assert len(spherical_kmeans(torch.eye(2).repeat(3, 1), 5)) == 2


@pytest.mark.parametrize(
    "x, k, kwargs, message",
    [
        (torch.tensor([[float("nan"), 1.0]]), 1, {}, "non-finite"),
        (torch.zeros(0, 3), 1, {}, "non-empty"),
        (torch.ones(3, 3), 0, {}, "at least 1"),
        (torch.ones(3, 3), 1, {"init": "best"}, "'best' is unknown"),
    ],
)
def test_bad_input(x, k, kwargs, message):
    """Each is named."""
    with pytest.raises(ValueError, match=message):
        spherical_kmeans(x, k, **kwargs)
