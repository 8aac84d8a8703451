"""What AttriPrompt learns: pools of (key, prompt) pairs that image clusters choose from; and the count of what they
chose.
"""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...clip_patches.class_texts import fill
from ...clip_patches.clustering import spherical_kmeans
from ...clip_patches.encoders import Sentences, embed_tokens
from ...clip_patches.loading import tokenize

LEAST = {"N_CLUSTERS": 1, "POOL_SIZE": 1, "TOP_K": 1, "N_CTX": 1, "CACHE_VIEWS": 0, "TEXT_CHUNK": 1}
WORDS = {"POOL": ("per_layer", "shared"), "KEY_INIT": ("data", "random")}


def check_settings(s) -> None:
    """Raise ``ValueError`` for values of AttriPrompt's config node that no backbone and data set can go with."""
    for key, least in LEAST.items():
        if s[key] < least:
            raise ValueError(f"TRAINER.ATTRIPROMPT.{key} is {s[key]}; allowed are {least} and more")
    for key, allowed in WORDS.items():
        if s[key] not in allowed:
            raise ValueError(f"TRAINER.ATTRIPROMPT.{key} is {s[key]!r}; allowed are {', '.join(allowed)}")
    if s.TOP_K > s.POOL_SIZE:
        raise ValueError(
            f"TRAINER.ATTRIPROMPT.TOP_K {s.TOP_K} prompts do not fit a pool of POOL_SIZE {s.POOL_SIZE}; lower the one"
        )
    weights = {key: s[key] for key in ("IMAGE_TO_TEXT", "ALPHA", "LAMBDA", "KEY")}
    if min(weights.values()) < 0 or max(s.IMAGE_TO_TEXT, s.ALPHA) == 0:
        raise ValueError(
            f"TRAINER.ATTRIPROMPT's weights are {weights}; none may be negative, and IMAGE_TO_TEXT or ALPHA must be above 0"
        )


def write_sentences(clip: nn.Module, words: str, classnames: Sequence[str], inserted: int) -> Sentences:
    """Write ``<words> <class name>.`` for every class; raise ``ValueError`` if ``inserted`` tokens do not fit beside
    the longest.
    """
    texts = fill(f"{words} {{}}.".strip(), classnames)
    sentences = embed_tokens(clip, tokenize(texts))
    longest = sentences.embeddings.shape[1]
    if longest + inserted > clip.context_length:
        raise ValueError(
            f"{texts[int(sentences.eot.argmax())]!r} has {longest} tokens with SOS and EOT, and {inserted} more (N_CLUSTERS x "
            f"TOP_K x N_CTX) do not fit CLIP's context of {clip.context_length}; lower one, or shorten the class name"
        )
    return sentences


def vision_layer(text_layer: int, text_layers: int, vision_layers: int) -> int:
    """Return the vision layer that feeds a text layer, both counted from 1."""
    return max(1, round(text_layer * vision_layers / text_layers))


class Composed(NamedTuple):
    """Prompts put together for the images of a batch.

    Attributes:
        prompts: One tensor a text layer, (B, E, D_t), or (E, D_t) when they do not depend on the image.
        distance: Mean of 1 - cosine between centroids and the keys they chose; None without retrieval.
        chosen: Places of the chosen prompts in the pool, (B, L, K * TOP_K); None without retrieval.
    """

    prompts: List[Tensor]
    distance: Optional[Tensor] = None
    chosen: Optional[Tensor] = None


class PromptPool(nn.Module):
    """Pairs of a key and a prompt for every prompted text layer.

    Args:
        clip: Stock CLIP with a ViT visual tower; gives widths and depths.
        depth: Prompted text layers, L.
        size: Pairs in a pool, M.
        n: Tokens of a prompt.
        top_k: Prompts that each centroid takes.
        shared: One pool for all layers instead of one for each.

    Attributes:
        vision_layers: For each prompted text layer, the vision layer whose centroids choose.
    """

    def __init__(self, clip: nn.Module, depth: int, size: int, n: int, top_k: int, shared: bool):
        super().__init__()
        pools, key_width, prompt_width = (
            1 if shared else depth,
            clip.visual.class_embedding.shape[0],
            clip.token_embedding.embedding_dim,
        )
        towers = len(clip.transformer.resblocks), len(clip.visual.transformer.resblocks)
        self.vision_layers = [vision_layer(layer, *towers) for layer in range(1, depth + 1)]
        self.top_k = top_k
        self.keys = nn.Parameter(torch.randn(pools, size, key_width))
        self.prompts = nn.Parameter(0.02 * torch.randn(pools, size, n, prompt_width))
        self.register_buffer(
            "started", torch.tensor(False)
        )  # whether the keys come from data; travels in the checkpoint

    def forward(self, centroids: Tensor) -> Composed:
        """Let each centroid, (B, L, K, D_v), fetch the prompts with the nearest keys, in the order of the clusters."""
        with torch.autocast(centroids.device.type, enabled=False):  # rounded cosines would choose other prompts
            keys = F.normalize(self.keys, dim=-1).expand(centroids.shape[1], -1, -1)  # (L, M, D_v)
            cosines = torch.einsum("blkd,lmd->blkm", F.normalize(centroids.float(), dim=-1), keys)
        nearest = cosines.topk(self.top_k, dim=-1)  # (B, L, K, TOP_K)
        chosen = nearest.indices.flatten(2)  # (B, L, K * TOP_K)
        pool = torch.arange(chosen.shape[1], device=chosen.device).view(1, -1, 1) % len(self.prompts)
        prompts = self.prompts[pool, chosen].flatten(2, 3)  # (B, L, E, D_t)
        return Composed(list(prompts.unbind(1)), (1 - nearest.values).mean(), chosen)

    @torch.no_grad()
    def start_keys(self, centroids: Tensor, rng: np.random.RandomState) -> None:
        """Put the keys where the data are: k-means of a sample's centroids, (N, L, K, D_v), for each pool.

        Keys beyond the number of distinct centroids stay random.
        """
        layers = centroids.transpose(0, 1).float()  # (L, N, K, D_v)
        for pool, points in enumerate([layers] if len(self.keys) == 1 else layers):
            points = F.normalize(points.reshape(-1, points.shape[-1]), dim=-1)
            centers = spherical_kmeans(points, self.keys.shape[1], init="k-means++", restarts=1, iters=50, rng=rng)
            self.keys[pool, : len(centers)] = centers.to(self.keys.device)
        self.started.fill_(True)


class StaticPrompts(nn.Module):
    """The same prompts for every image: what is left of the method without retrieval; (E, D_t) for each of L layers."""

    def __init__(self, layers: int, length: int, width: int):
        super().__init__()
        self.prompts = nn.Parameter(0.02 * torch.randn(layers, length, width))

    def forward(self, centroids: Optional[Tensor] = None) -> Composed:
        """Return the prompts; ``centroids`` play no part."""
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
        """Say for each layer how many prompts were used, how many are dead, and what share the most used one has."""
        used = (self.counts > 0).sum(dim=1)
        share = self.counts.amax(dim=1) / self.counts.sum(dim=1).clamp_min(1)
        return {
            "pool_size": self.counts.shape[1],
            "used": used.tolist(),
            "dead": (self.counts.shape[1] - used).tolist(),
            "top_share": [round(s, 4) for s in share.tolist()],
        }

    def __str__(self):
        s = self.summary()
        return (
            f"prompts used of {s['pool_size']} in each layer: {' '.join(map(str, s['used']))} ({sum(s['dead'])} dead in all); share of "
            f"the top prompt: {' '.join(f'{100 * t:.0f}%' for t in s['top_share'])}"
        )
