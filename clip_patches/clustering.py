"""Clustering of unit vectors by cosine similarity."""
from __future__ import annotations

import warnings
from typing import Optional

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import kmeans_plusplus
from torch import Tensor

INITS = ("random", "k-means++")


def spherical_kmeans(x: Tensor, k: int, *, init: str = "random", restarts: int = 10, iters: int = 300, tol: float = 1e-4,
                     rng: Optional[np.random.RandomState] = None) -> Tensor:
    """Cluster vectors by cosine similarity.

    With ``init="random"`` this is the procedure of TAC's official code: k distinct rows as the start, the mean of the members
    as the new centre, until the summed shift of the centres, squared, falls below ``tol``. A seed of numpy then gives the
    official centres, in the official order.

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
    rng = np.random if rng is None else rng
    distinct = len(torch.unique(x, dim=0))
    if distinct < k:
        warnings.warn(f"{k} centres asked for, but only {distinct} distinct points: using {distinct}", stacklevel=2)
        k = distinct
    if init == "random":
        start = x[torch.as_tensor(rng.choice(len(x), k, replace=False), device=x.device)]
        return _lloyd(x, start, iters, tol)
    unit = F.normalize(x, dim=-1)
    points = unit.double().cpu().numpy()
    seed = int(rng.randint(2 ** 31 - 1))
    runs = [_lloyd(x, x[torch.as_tensor(kmeans_plusplus(points, k, random_state=seed + i)[1], device=x.device)], iters, tol)
            for i in range(restarts)]
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
