"""Cluster by cosine similarity: one set of vectors (TAC's class texts), or many at once (AttriPrompt's patches)."""

from __future__ import annotations

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import kmeans_plusplus
from sklearn.utils import check_random_state
from torch import Tensor

INITS = ("random", "k-means++")


def spherical_kmeans(
    x: Tensor,
    k: int,
    *,
    init: str = "random",
    restarts: int = 10,
    iters: int = 300,
    tol: float = 1e-4,
    rng: np.random.RandomState | None = None,
) -> Tensor:
    """Cluster vectors by cosine similarity.

    With ``init="random"`` this is the procedure of TAC's official code: k distinct rows as the start, the mean of the
    members as the new centre, until the summed shift of the centres, squared, falls below ``tol``. The same numpy seed
    gives the official centres, in the official order.

    Args:
        x: Points, (N, d); rows need not be normalised.
        k: Number of centres; lowered to the number of distinct rows, with a warning.
        init: ``random``, one start drawn by ``rng.choice``; or ``k-means++``, the best of ``restarts`` seedings.
        restarts: Number of seedings of ``k-means++``.
        iters: Limit of the iterations.
        tol: Threshold of the squared summed shift.
        rng: Source of the start; default numpy's global generator.

    Returns:
        Unit-length centres in the order of their starts, (k, d).

    Raises:
        ValueError: No row, a non-finite value, a ``k`` below 1, or an unknown ``init``.
    """
    if init not in INITS:
        raise ValueError(f"init {init!r} is unknown; allowed are {', '.join(INITS)}")
    if k < 1:
        raise ValueError(f"the number of centres must be at least 1, got {k}")
    if x.dim() != 2 or len(x) == 0:
        raise ValueError(f"points must be a non-empty (N, d) matrix, got {tuple(x.shape)}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("points hold a non-finite value (nan or inf)")
    draws = check_random_state(rng)
    distinct = len(torch.unique(x, dim=0))
    if distinct < k:
        warnings.warn(f"{k} centres asked for, but only {distinct} distinct points: using {distinct}", stacklevel=2)
        k = distinct
    if init == "random":
        start = x[torch.as_tensor(draws.choice(len(x), k, replace=False), device=x.device)]
        return _lloyd(x, start, iters, tol)
    unit = F.normalize(x, dim=-1)
    points = unit.double().cpu().numpy()
    seed = int(draws.randint(2**31 - 1))
    runs = [
        _lloyd(x, x[torch.as_tensor(kmeans_plusplus(points, k, random_state=seed + i)[1], device=x.device)], iters, tol)
        for i in range(restarts)
    ]
    return max(runs, key=lambda centers: float((unit @ centers.T).amax(dim=1).sum()))


def _lloyd(x: Tensor, centers: Tensor, iters: int, tol: float) -> Tensor:
    """Alternate assignment and mean from a given start; unit-length centres, (k, d)."""
    unit = F.normalize(x, dim=-1)
    k = len(centers)
    for _ in range(iters):
        similarity = unit @ F.normalize(centers, dim=-1).T  # (N, k)
        best, label = similarity.max(dim=1)
        for empty in set(range(k)) - set(label.unique().tolist()):  # re-seed with the point that fits its centre worst
            far = int(best.argmin())
            label[far], best[far] = empty, float("inf")
        member = F.one_hot(label, k).to(x.dtype)  # (N, k)
        new = (member.T @ x) / member.sum(dim=0).unsqueeze(1)
        shift = (new - centers).norm(dim=1).sum()
        centers = new
        if float(shift) ** 2 < tol:
            break
    return F.normalize(centers, dim=-1)


@torch.no_grad()
def cluster_tokens(x: Tensor, k: int, *, iters: int = 10, budget_mb: int = 256) -> tuple[Tensor, Tensor]:
    """Cluster the tokens of each image (and layer) separately, all of them at once.

    Spherical k-means from a fixed start: the token nearest the mean of all, then repeatedly the token farthest from
    those chosen. A cluster that loses all its tokens gets the one that fits its own cluster worst. All steps work on
    the P x P cosines of each set, so the tokens themselves are read twice: for the cosines and for the final means.

    Args:
        x: Tokens, (..., P, D); they need not be normalised. Half precision is clustered in single.
        k: Clusters, 1 to P.
        iters: Most assignments; clustering ends earlier when none changes.
        budget_mb: Sets are taken in chunks whose cosines fit about this many MiB.

    Returns:
        The normalised means of the clusters' normalised tokens, largest cluster first, (..., K, D), fp32; and the
        cluster of each token, (..., P).

    Raises:
        ValueError: No tokens, or ``k`` outside 1 to P.
    """
    if x.dim() < 2 or x.numel() == 0:
        raise ValueError(f"tokens must be a non-empty (..., P, D), got {tuple(x.shape)}")
    *sets, tokens, width = x.shape
    if not 1 <= k <= tokens:
        raise ValueError(f"{k} clusters of {tokens} tokens are not possible; allowed are 1 to {tokens}")
    single = x.dtype == torch.float32
    step = max(1, budget_mb * 2**20 // (4 * (2 * tokens * tokens + (0 if single else tokens * width))))
    with torch.autocast(x.device.type, enabled=False):
        chunks = [_cluster_sets(part.float(), k, iters) for part in x.reshape(-1, tokens, width).split(step)]
    centers, labels = (torch.cat(parts) for parts in zip(*chunks))
    return centers.view(*sets, k, width), labels.view(*sets, tokens)


def _cluster_sets(x: Tensor, k: int, iters: int) -> tuple[Tensor, Tensor]:
    """Cluster (N, P, D) into centres (N, K, D) and labels (N, P); see :func:`cluster_tokens`."""
    cosines = x @ x.transpose(1, 2)  # (N, P, P)
    inverse = cosines.diagonal(dim1=1, dim2=2).clamp_min(1e-24).rsqrt()  # one over each token's length, (N, P)
    cosines.mul_(inverse.unsqueeze(1)).mul_(inverse.unsqueeze(2))
    start = _farthest_first(cosines, k)
    fit = cosines.gather(2, start.unsqueeze(1).expand(-1, x.shape[1], -1))  # of token and centre, (N, P, K)
    labels: Tensor | None = None
    for _ in range(iters):
        best, nearest = fit.max(dim=2)
        nearest = _fill_empty(nearest, best, k)
        if labels is not None and torch.equal(nearest, labels):
            break
        labels = nearest
        member = F.one_hot(labels, k).to(x.dtype)  # (N, P, K)
        dots = cosines @ member  # of token and the sum of a cluster's tokens
        lengths = (member * dots).sum(dim=1, keepdim=True).clamp_min(1e-24).sqrt()  # of those sums, (N, 1, K)
        fit = dots / lengths
    assert labels is not None
    order = F.one_hot(labels, k).sum(dim=1).argsort(dim=1, descending=True, stable=True)  # (N, K)
    labels = order.argsort(dim=1).gather(1, labels)
    member = F.one_hot(labels, k).to(x.dtype) * inverse.unsqueeze(2)
    return F.normalize(member.transpose(1, 2) @ x, dim=-1), labels


def _farthest_first(cosines: Tensor, k: int) -> Tensor:
    """Choose the token nearest the mean, then repeatedly the one farthest from those chosen; (N, K)."""
    rows = torch.arange(len(cosines), device=cosines.device)
    chosen = [cosines.sum(dim=2).argmax(dim=1)]
    near = cosines[rows, chosen[0]]  # cosine to the nearest of those chosen, (N, P)
    for _ in range(k - 1):
        chosen.append(near.argmin(dim=1))
        near = torch.maximum(near, cosines[rows, chosen[-1]])
    return torch.stack(chosen, dim=1)


def _fill_empty(labels: Tensor, fit: Tensor, k: int) -> Tensor:
    """Give each empty cluster the token that fits its own cluster worst, and is not the only one there; (N, P)."""
    counts = F.one_hot(labels, k).sum(dim=1)  # (N, K)
    if bool((counts > 0).all()):
        return labels
    for cluster in range(k):
        worst = fit.masked_fill(counts.gather(1, labels) < 2, float("inf")).argmin(dim=1, keepdim=True)  # (N, 1)
        target = torch.where(counts[:, cluster : cluster + 1] == 0, cluster, labels.gather(1, worst))
        labels = labels.scatter(1, worst, target)
        counts = F.one_hot(labels, k).sum(dim=1)
    return labels
