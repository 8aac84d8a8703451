"""AttriPrompt's learner: pools of (key, prompt) pairs that image clusters choose from, and counts of their choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...clip_patches.anatomy import Anatomy, anatomy, tokenize
from ...clip_patches.class_texts import fill
from ...clip_patches.clustering import spherical_kmeans
from ...clip_patches.encoders import Sentences, embed_tokens
from ...clip_patches.stock import CLIP
from . import ranks


def check_settings(s: Any, node: str) -> None:
    """Check AttriPrompt's settings that are allowed by themselves, but not together.

    Args:
        s: Its config node.
        node: Name of the node, for the error.

    Raises:
        ValueError: Settings that are invalid for any backbone and data set.
    """
    if s.TOP_K > s.POOL_SIZE:
        raise ValueError(
            f"TRAINER.{node}.TOP_K {s.TOP_K} prompts do not fit a pool of POOL_SIZE {s.POOL_SIZE}; lower TOP_K"
        )
    if max(s.IMAGE_TO_TEXT, s.ALPHA) == 0:
        raise ValueError(f"TRAINER.{node}.IMAGE_TO_TEXT and ALPHA are both 0; one of them must be above 0")


def write_sentences(clip: CLIP, words: str, classnames: Sequence[str], inserted: int) -> Sentences:
    """Write ``<words> <class name>.`` for every class.

    Raises:
        ValueError: The longest sentence and ``inserted`` more tokens do not fit CLIP's context.
    """
    texts = fill(f"{words} {{}}.".strip(), classnames)
    sentences = embed_tokens(clip, tokenize(clip, texts))
    longest, context = sentences.embeddings.shape[1], anatomy(clip).context_length
    if longest + inserted > context:
        raise ValueError(
            f"{texts[int(sentences.eot.argmax())]!r} has {longest} tokens with SOS and EOT, and {inserted} more "
            f"(N_CLUSTERS x TOP_K x N_CTX) do not fit CLIP's context of {context}; lower one, or shorten the class name"
        )
    return sentences


def inserted_tokens(s: Any) -> int:
    """Return the number of tokens that are inserted into each layer; of AttriPrompt's settings."""
    return s.N_CLUSTERS * s.N_CTX * (s.TOP_K if s.COMBINE == "concatenate" else 1)


def vision_layer(text_layer: int, text_layers: int, vision_layers: int) -> int:
    """Return the vision layer that feeds a text layer, both counted from 1."""
    return max(1, round(text_layer * vision_layers / text_layers))


class Composed(NamedTuple):
    """Prompts composed for the images of a batch.

    Attributes:
        prompts: One tensor a text layer, (B, E, D_t), or (E, D_t) when they do not depend on the image. E is
            :func:`inserted_tokens`.
        distance: Mean of 1 - cosine between centroids and the keys they chose; None without retrieval.
        chosen: Positions of the chosen prompts in the pool, (B, L, K * TOP_K); None without retrieval.
    """

    prompts: list[Tensor]
    distance: Tensor | None = None
    chosen: Tensor | None = None


class PromptPool(nn.Module):
    """Pairs of a key and a prompt for every prompted text layer.

    Args:
        sizes: Of a CLIP with a ViT visual tower.
        depth: Prompted text layers, L.
        size: Pairs in a pool, M.
        n: Tokens of a prompt.
        top_k: Prompts that each centroid takes.
        shared: One pool for all layers instead of one for each.
        temperature: Of the weights by which a centroid's prompts are added up; None concatenates them instead.
        hard: The nearest prompt alone counts, and the weights give the gradient.

    Attributes:
        vision_layers: For each prompted text layer, the vision layer whose centroids choose.
    """

    hard = False
    started: Tensor  # whether the keys were placed by data; saved in the checkpoint

    def __init__(
        self,
        sizes: Anatomy,
        depth: int,
        size: int,
        n: int,
        top_k: int,
        shared: bool,
        temperature: float | None = None,
        hard: bool = False,
    ):
        super().__init__()
        pools = 1 if shared else depth
        self.vision_layers = [
            vision_layer(layer, sizes.text_layers, sizes.vision_layers) for layer in range(1, depth + 1)
        ]
        self.top_k, self.temperature, self.hard = top_k, temperature, hard
        self.keys = nn.Parameter(torch.randn(pools, size, sizes.vision_width))
        self.prompts = nn.Parameter(0.02 * torch.randn(pools, size, n, sizes.text_width))
        self.register_buffer("started", torch.tensor(False))

    def forward(self, centroids: Tensor) -> Composed:
        """Choose the prompts with the nearest keys for each centroid, (B, L, K, D_v), in the order of the clusters.

        Weights have length 1, not sum 1: a sum of prompts is then as large as one of them, and a step moves it as far,
        whatever the temperature.
        """
        with torch.autocast(centroids.device.type, enabled=False):  # rounded cosines would choose other prompts
            keys = F.normalize(self.keys, dim=-1).expand(centroids.shape[1], -1, -1)  # (L, M, D_v)
            cosines = torch.einsum("blkd,lmd->blkm", F.normalize(centroids.float(), dim=-1), keys)
        nearest = cosines.topk(self.top_k, dim=-1)  # (B, L, K, TOP_K)
        chosen = nearest.indices.flatten(2)  # (B, L, K * TOP_K)
        pool = torch.arange(chosen.shape[1], device=chosen.device).view(1, -1, 1) % len(self.prompts)
        prompts = self.prompts[pool, chosen]  # (B, L, K * TOP_K, n, D_t)
        if self.temperature is not None:
            weights = F.normalize((nearest.values / self.temperature).softmax(dim=-1), dim=-1)  # (B, L, K, TOP_K)
            if self.hard:
                nearest_only = torch.zeros_like(weights)
                nearest_only[..., 0] = 1
                weights = nearest_only + weights - weights.detach()
            prompts = torch.einsum("blkt,blktnd->blknd", weights, prompts.unflatten(2, weights.shape[2:]))
        return Composed(list(prompts.flatten(2, 3).unbind(1)), (1 - nearest.values).mean(), chosen)

    def overlap(self) -> Tensor:
        """Return the mean squared cosine between two prompts of a pool."""
        flat = F.normalize(self.prompts.flatten(2), dim=-1)  # (L, M, n D_t)
        cosines = flat @ flat.transpose(1, 2)
        size = flat.shape[1]
        off = cosines - torch.eye(size, device=flat.device)
        return off.square().sum(dim=(1, 2)).mean() / max(1, size * (size - 1))

    @torch.no_grad()
    def start_keys(self, centroids: Tensor, rng: np.random.RandomState) -> None:
        """Start the keys of each pool from k-means of a sample's centroids.

        Keys beyond the number of distinct centroids stay random.

        Args:
            centroids: (N, L, K, D_v).
            rng: Source of the clustering's start.
        """
        layers = centroids.transpose(0, 1).float()  # (L, N, K, D_v)
        for pool, points in enumerate([layers] if len(self.keys) == 1 else layers):
            points = F.normalize(points.reshape(-1, points.shape[-1]), dim=-1)
            centers = spherical_kmeans(points, self.keys.shape[1], init="k-means++", restarts=1, iters=50, rng=rng)
            self.keys[pool, : len(centers)] = centers.to(self.keys.device)
        self.started.fill_(True)


class StaticPrompts(nn.Module):
    """The same prompts for every image, for the method without retrieval; (E, D_t) for each of L layers."""

    def __init__(self, layers: int, length: int, width: int):
        super().__init__()
        self.prompts = nn.Parameter(0.02 * torch.randn(layers, length, width))

    def forward(self, centroids: Tensor | None = None) -> Composed:
        """Return the prompts; ``centroids`` are not used."""
        return Composed(list(self.prompts))


class Usage:
    """Count how often each prompt of each layer is chosen."""

    def __init__(self, layers: int, size: int):
        self.counts = torch.zeros(layers, size, dtype=torch.long)

    def add(self, chosen: Tensor) -> None:
        """Count a batch's choices, (B, L, K * TOP_K)."""
        flat = chosen.detach().cpu().transpose(0, 1).flatten(1)  # (L, B * K * TOP_K)
        self.counts.scatter_add_(1, flat, torch.ones_like(flat))

    def summary(self) -> dict:
        """Return for each layer the numbers of used and of dead prompts, and the share of the most used one."""
        counts = torch.tensor(ranks.total(self.counts.flatten().tolist())).view_as(self.counts)
        used = (counts > 0).sum(dim=1)
        share = counts.amax(dim=1) / counts.sum(dim=1).clamp_min(1)
        return {
            "pool_size": counts.shape[1],
            "used": used.tolist(),
            "dead": (counts.shape[1] - used).tolist(),
            "top_share": [round(s, 4) for s in share.tolist()],
        }

    def __str__(self) -> str:
        s = self.summary()
        used = " ".join(map(str, s["used"]))
        top = " ".join(f"{100 * share:.0f}%" for share in s["top_share"])
        return (
            f"prompts used of {s['pool_size']} in each layer: {used} ({sum(s['dead'])} dead in all); "
            f"share of the top prompt: {top}"
        )
