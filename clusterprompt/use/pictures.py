"""Pictures of what a run learned: AttriPrompt's clusters and pools, TAC's class map, mask and attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from ..clip_patches import encoders
from ..clip_patches.attention import precontext_mask
from ..clip_patches.clustering import cluster_tokens

if TYPE_CHECKING:
    from ..trainers.base import PromptTrainer

CLUSTERS = (
    "#c8c8c8",
    "#4363d8",
    "#ffe119",
    "#3cb44b",
    "#f58231",
    "#e6194b",
    "#42d4f4",
    "#911eb4",
    "#f032e6",
    "#bfef45",
)  # largest: pale
COLOURS = ("#e6194b", "#4363d8", "#ffe119", "#3cb44b", "#f58231", "#42d4f4", "#911eb4", "#f032e6", "#bfef45", "#9a6324")
LABELLED = 60  # classes with a name in the map


class Picture(NamedTuple):
    """A figure to be saved.

    Attributes:
        name: File name without ending.
        figure: The figure.
        caption: Text below it.
    """

    name: str
    figure: Figure
    caption: str


@torch.no_grad()
def attriprompt(trainer: PromptTrainer, images: Tensor, names: Sequence[str], sample: Tensor) -> list[Picture]:
    """Clusters and what they fetched, use of the pools, images that share prompts."""
    labels, chosen = retrieve(trainer, images)
    sample_labels, sample_chosen = retrieve(trainer, sample)
    return [
        clusters(trainer, pixels(trainer, images), names, labels, chosen),
        usage(trainer, sample_chosen),
        sharing(trainer, pixels(trainer, sample), sample_labels, sample_chosen),
    ]


@torch.no_grad()
def tac(trainer: PromptTrainer, images: Tensor, names: Sequence[str], sample: Tensor) -> list[Picture]:
    """Class map, mask, attention to the pre-context."""
    drawn = [class_map(trainer)]
    if trainer.settings.PRECONTEXT in ("both", "vision") and len(trainer.learner.deep_vision):
        drawn += [mask(trainer), attention(trainer, sample)]
    return drawn


PICTURES = {"AttriPrompt": attriprompt, "TAC": tac}


# ------------------------------------------------------------------ AttriPrompt


def retrieve(trainer: PromptTrainer, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the clusters of the patches, (N, L, P), and the prompts that the clusters fetched, (N, L, K, TOP_K)."""
    labels, chosen = [], []
    for part in images.split(50):
        _, both = encoders.encode_image_layers(
            trainer.clip,
            part.to(trainer.device),
            trainer.learner.vision_layers,
            lambda tokens: cluster_tokens(tokens, trainer.settings.N_CLUSTERS),
        )
        labels.append(torch.stack([own for _, own in both], dim=1).cpu())
        fetched = trainer.learner(torch.stack([centers for centers, _ in both], dim=1)).chosen
        chosen.append(fetched.unflatten(2, (trainer.settings.N_CLUSTERS, -1)).cpu())
    return torch.cat(labels), torch.cat(chosen)


def pixels(trainer: PromptTrainer, images: Tensor) -> np.ndarray:
    """Undo the normalisation; (N, H, W, 3) in 0..1."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (trainer.cfg.INPUT.PIXEL_MEAN, trainer.cfg.INPUT.PIXEL_STD))
    return (images * std + mean).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def grid(labels: Tensor, size: int) -> np.ndarray:
    """Lay the clusters of an image's patches out over its pixels, (H, W)."""
    side = int(len(labels) ** 0.5)
    return np.kron(labels.view(side, side).numpy(), np.ones((size // side, size // side), dtype=int))


def clusters(
    trainer: PromptTrainer, pictures: np.ndarray, names: Sequence[str], labels: Tensor, chosen: Tensor
) -> Picture:
    """Draw the clusters of each layer over the pictures, with the numbers of the prompts they fetched."""
    k, layers = trainer.settings.N_CLUSTERS, labels.shape[1]
    colours = [CLUSTERS[c % len(CLUSTERS)] for c in range(k)]
    size = (1.9 * (layers + 1) + 0.5, 2 * len(pictures) + 1.2)
    figure, axes = plt.subplots(len(pictures), layers + 1, figsize=size, squeeze=False, layout="constrained")
    for i, picture in enumerate(pictures):
        axes[i, 0].imshow(picture)
        axes[i, 0].set_ylabel("\n".join(names[i].split(" ")) if len(names[i]) > 14 else names[i], fontsize=10)
        for layer in range(layers):
            axis, map_ = axes[i, layer + 1], grid(labels[i, layer], picture.shape[0])
            axis.imshow(picture)
            axis.imshow(map_, cmap=ListedColormap(colours), alpha=0.4, vmin=-0.5, vmax=k - 0.5, interpolation="nearest")
            for cluster in range(k):
                y, x = inside(labels[i, layer] == cluster, picture.shape[0])
                first, *others = chosen[i, layer, cluster].tolist()
                text = f"{first} +{len(others)}" if others else str(first)
                axis.text(
                    x,
                    y,
                    text,
                    ha="center",
                    va="center",
                    fontsize=8,
                    fontweight="bold",
                    color="white",
                    bbox={
                        "boxstyle": "round,pad=0.15",
                        "facecolor": "#000000bb",
                        "edgecolor": colours[cluster],
                        "linewidth": 1.5,
                    },
                )
            if i == 0:
                axis.set_title(
                    f"text layer {layer + 1}\n(vision layer {trainer.learner.vision_layers[layer]})", fontsize=10
                )
    axes[0, 0].set_title("picture", fontsize=10)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    handles = [
        Patch(color=colour, label=f"cluster {c + 1}" + " (largest)" * (c == 0)) for c, colour in enumerate(colours)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncol=min(k, 8), frameon=False, fontsize=10)
    figure.suptitle("Patch clusters of each layer, and the prompts they fetched", fontsize=13)
    return Picture(
        "clusters",
        figure,
        (
            "Patch tokens of each vision layer, clustered for every image by itself. The white number in a cluster is "
            "the prompt of that text layer's pool that fits its centroid best, and after it how many more it fetched: "
            "where clusters of two pictures carry the same number in the same column, both texts got the same prompt. "
            "Colours order the clusters by size and mean nothing across pictures."
        ),
    )


def inside(member: Tensor, size: int) -> tuple[float, float]:
    """Choose the patch that lies deepest inside a cluster: most members around it, then nearest the middle.

    Args:
        member: Whether each patch belongs to the cluster, (P,).
        size: Side of the image in pixels.

    Returns:
        y and x in pixels.
    """
    side = int(len(member) ** 0.5)
    own = member.view(1, 1, side, side).float()
    around = F.avg_pool2d(own, 3, stride=1, padding=1).view(-1)
    places = (
        torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), dim=-1).view(-1, 2).float()
    )
    off = (places - places[member].mean(dim=0)).norm(dim=1) / side
    best = (around - 0.5 * off).masked_fill(~member, -9).argmax()
    y, x = ((places[best] + 0.5) * size / side - 0.5).tolist()
    return y, x


def usage(trainer: PromptTrainer, chosen: Tensor) -> Picture:
    """Draw how often each prompt of each layer is fetched."""
    layers, m = chosen.shape[1], trainer.settings.POOL_SIZE
    columns = min(layers, 4)
    rows = -(-layers // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.4 * columns, 2.4 * rows + 1), squeeze=False, sharey=True, layout="constrained"
    )
    dead_all = 0
    for layer, axis in enumerate(axes.flat):
        if layer >= layers:
            axis.axis("off")
            continue
        share = torch.bincount(chosen[:, layer].flatten(), minlength=m).float()
        share = 100 * share / share.sum()
        dead = (share == 0).nonzero().flatten()
        dead_all += len(dead)
        axis.bar(range(m), share.tolist(), color="#4363d8", width=0.85)
        if len(dead):
            axis.plot(dead.tolist(), [0] * len(dead), "x", color="#e6194b", markersize=5, clip_on=False, zorder=5)
        axis.axhline(100 / m, color="#888888", linewidth=0.8, linestyle="--")
        axis.set_title(f"text layer {layer + 1}: {m - len(dead)} of {m} used, top {share.max():.0f}%", fontsize=10)
        axis.set_xlim(-0.8, m - 0.2)
        if layer % columns == 0:
            axis.set_ylabel("share of fetches, %")
        if layer + columns >= layers:
            axis.set_xlabel("prompt")
    handles = [
        Patch(color="#4363d8", label="share of all fetches"),
        plt.Line2D([], [], color="#888888", linestyle="--", label="even use"),
        plt.Line2D([], [], color="#e6194b", marker="x", linestyle="", label="dead: never fetched"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncol=3, frameon=False)
    figure.suptitle(f"Use of the pools over {len(chosen)} test images", fontsize=13)
    return Picture(
        "pool_usage",
        figure,
        (
            f"How often each prompt of a layer's pool was fetched by the clusters of {len(chosen)} test images. The "
            "dashed line is even use. Dead prompts, never fetched, are crossed in red: "
            f"{dead_all} of {layers * m} in all layers."
        ),
    )


def sharing(
    trainer: PromptTrainer, pictures: np.ndarray, labels: Tensor, chosen: Tensor, prompts: int = 5, images: int = 6
) -> Picture:
    """Draw pictures side by side that the same prompt fits best, with the cluster that it fits."""
    layer = chosen.shape[1] - 1
    nearest = chosen[:, layer, :, 0]  # by image and cluster
    counts = torch.bincount(nearest.flatten(), minlength=trainer.settings.POOL_SIZE)
    top = counts.argsort(descending=True)[:prompts].tolist()
    figure, axes = plt.subplots(
        prompts, images, figsize=(1.7 * images + 0.8, 1.7 * prompts + 0.9), squeeze=False, layout="constrained"
    )
    for row, prompt in enumerate(top):
        fetches = nearest == prompt
        shown = fetches.any(dim=1).nonzero().flatten()
        shown = (
            shown[torch.linspace(0, len(shown) - 1, min(images, len(shown))).round().long()].tolist()
            if len(shown)
            else []
        )
        for column in range(images):
            axis = axes[row, column]
            axis.set_xticks([])
            axis.set_yticks([])
            if column >= len(shown):
                axis.axis("off")
                continue
            i = shown[column]
            member = torch.isin(labels[i, layer], fetches[i].nonzero().flatten())
            light = 0.2 + 0.8 * grid(member.long(), pictures.shape[1])
            axis.imshow(pictures[i] * light[..., None])
        axes[row, 0].set_ylabel(f"prompt {prompt}\n{100 * counts[prompt] / counts.sum():.0f}% of clusters", fontsize=10)
    figure.suptitle(f"Test images that share prompts, text layer {layer + 1}", fontsize=13)
    return Picture(
        "sharing",
        figure,
        (
            f"Each row: test images with a cluster that the same prompt of text layer {layer + 1} fits best, for the "
            f"{prompts} prompts that fit most clusters best. The patches of that cluster are lit, the others darkened: "
            "what is lit in a row is what the prompt stands for."
        ),
    )


# ------------------------------------------------------------------------- TAC


def class_map(trainer: PromptTrainer) -> Picture:
    """Draw the class texts in two dimensions, coloured by their task centre."""
    texts, centers = trainer.text_anchors.cpu(), trainer.learner.centers.cpu()
    nearest = (texts @ centers.T).argmax(dim=1)
    mean = texts.mean(dim=0)
    _, _, axes_ = torch.linalg.svd(texts - mean, full_matrices=False)
    (x, y), (cx, cy) = (((v - mean) @ axes_[:2].T).T.numpy() for v in (texts, centers))
    figure, axis = plt.subplots(figsize=(11, 8))
    for c in range(len(centers)):
        own, colour = (nearest == c).numpy(), COLOURS[c % len(COLOURS)]
        label = f"centre {c + 1}: {int(own.sum())} classes"
        axis.scatter(x[own], y[own], s=30, color=colour, edgecolor="black", linewidth=0.4, label=label)
        axis.scatter(cx[c], cy[c], s=240, marker="*", color=colour, edgecolor="black", linewidth=0.8, zorder=4)
    place_names(
        axis,
        x.tolist(),
        y.tolist(),
        [name.replace("_", " ") for name in trainer.classnames],
        list(zip(cx.tolist(), cy.tolist())),
    )
    axis.scatter([], [], s=160, marker="*", color="white", edgecolor="black", label="task centre")
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    axis.set_xlabel("first principal component of the class texts")
    axis.set_ylabel("second principal component")
    axis.set_title("Class texts and task centres", fontsize=13)
    few = f" Of {len(x)} classes {LABELLED} are named." if len(x) > LABELLED else ""
    return Picture(
        "class_map",
        figure,
        (
            "The frozen text features of the classes, projected on their two main directions, in the colour of the "
            "task centre nearest by cosine (in all dimensions, so that colours may mix here). Stars are the centres "
            f"that the pre-context is made from.{few}"
        ),
    )


def place_names(axis: Axes, x: list, y: list, names: Sequence[str], stars: Sequence[Sequence[float]]) -> None:
    """Write names beside points, each moved up or down until it covers no other name and no star."""
    height, width = (max(y) - min(y) or 1) / 45, (max(x) - min(x) or 1) / 110
    axis.set_xlim(min(x) - 3 * width, max(x) + 22 * width)
    step = max(1, -(-len(names) // LABELLED))
    taken = [(a - 2 * width, a + 2 * width, b) for a, b in stars]
    for i in sorted(range(0, len(names), step), key=lambda i: -y[i]):
        left, right, at = x[i] + width, x[i] + width * (2 + len(names[i])), y[i]
        for shift in (s * direction for s in range(40) for direction in (1, -1)):
            at = y[i] + shift * height / 2
            if all(right < a or left > b or abs(at - c) > height for a, b, c in taken):
                break
        taken.append((left, right, at))
        axis.annotate(
            names[i],
            (x[i], y[i]),
            (left, at),
            fontsize=8,
            va="center",
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "#888888"} if abs(at - y[i]) > height else None,
        )


def groups(trainer: PromptTrainer) -> list[tuple[str, int]]:
    """Return names and sizes of the token groups of the vision tower."""
    k = len(trainer.learner.centers)
    return [
        ("CLS", 1),
        ("patches", trainer.anatomy.patches),
        ("pre-context", k),
        ("prompts", len(trainer.learner()[1][0]) - k),
    ]


def mask(trainer: PromptTrainer) -> Picture:
    """Draw who may attend to whom."""
    parts = groups(trainer)
    sizes = [size for _, size in parts]
    _, patches, centers, prompts = sizes
    everything = torch.ones(sum(sizes), sum(sizes), dtype=torch.bool)
    visible = precontext_mask(patches, centers, prompts) if trainer.settings.MASK else everything
    shown = [1.5, 6, 2.5, 2.5]  # drawn sizes: in true ones CLS would not be seen
    edges = np.concatenate([[0], np.cumsum(shown)])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    figure, axis = plt.subplots(figsize=(6.6, 6.4))
    for r in range(4):
        for c in range(4):
            may = bool(visible[starts[r], starts[c]])
            colour = "#a8d5a2" if may else "#e6194b"
            axis.add_patch(plt.Rectangle((edges[c], edges[r]), shown[c], shown[r], facecolor=colour, edgecolor="white"))
            axis.text(
                edges[c] + shown[c] / 2,
                edges[r] + shown[r] / 2,
                "yes" if may else "no",
                ha="center",
                va="center",
                fontsize=11,
            )
    middle = (edges[:-1] + edges[1:]) / 2
    ticks = [f"{name}\n({size})" for name, size in parts]
    axis.set_xticks(middle, ticks)
    axis.set_yticks(middle, ticks)
    axis.set_xlim(0, edges[-1])
    axis.set_ylim(edges[-1], 0)
    axis.set_xlabel("is attended to")
    axis.set_ylabel("attends")
    axis.tick_params(length=0)
    axis.set_title("Mask of the vision tower", fontsize=13)
    axis.legend(
        handles=[Patch(color="#a8d5a2", label="may attend"), Patch(color="#e6194b", label="may not")],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.14),
        ncol=2,
        frameon=False,
    )
    seen = (
        "Patches do not see the pre-context, so that their features stay those of the picture; "
        "the other tokens see everything."
        if trainer.settings.MASK
        else "This run has no mask: every token sees every other."
    )
    return Picture(
        "mask",
        figure,
        f"Which tokens of the vision tower may attend to which (numbers of tokens in brackets; not to scale). {seen}",
    )


def attention(trainer: PromptTrainer, images: Tensor, most: int = 64) -> Picture:
    """Draw how much CLS and the prompts attend to each task centre, layer by layer."""
    weights = precontext_attention(trainer, images[:most].to(trainer.device)).cpu().numpy()  # (L, 2, K)
    layers, _, k = weights.shape
    figure, axes = plt.subplots(
        1, 2, figsize=(max(8, 1.3 * k + 3), 0.42 * layers + 2.2), sharey=True, layout="constrained"
    )
    for axis, part, title in zip(axes, (0, 1), ("CLS", "prompts (mean)")):
        shown = axis.imshow(100 * weights[:, part], cmap="viridis", vmin=0, vmax=100 * weights.max(), aspect="auto")
        for layer in range(layers):
            for c in range(k):
                value = 100 * weights[layer, part, c]
                axis.text(
                    c,
                    layer,
                    f"{value:.1f}",
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="white" if value < 60 * weights.max() else "black",
                )
        axis.set_xticks(range(k), [f"{c + 1}" for c in range(k)])
        axis.set_yticks(range(layers), [f"{layer + 1}" for layer in range(layers)])
        axis.set_xlabel("task centre")
        axis.set_title(f"{title} to the pre-context", fontsize=11)
    axes[0].set_ylabel("vision layer")
    figure.colorbar(shown, ax=axes, label="attention, % of a token's whole")
    even = 100 / sum(size for _, size in groups(trainer))
    return Picture(
        "attention",
        figure,
        (
            "Attention of CLS and of the learned prompts to the token of each task centre, in percent of all they "
            f"pay, mean over heads and {min(most, len(images))} test images. Evenly spread, each had {even:.1f}%."
        ),
    )


def precontext_attention(trainer: PromptTrainer, images: Tensor) -> Tensor:
    """Return the attention of CLS, and of the prompts on average, to each centre in each vision layer, (L, 2, K)."""
    (_, _), (_, patches), (_, k), (_, n) = groups(trainer)
    visible = precontext_mask(patches, k, n, images.device) if trainer.settings.MASK else None
    paid = encoders.vision_attention(trainer.clip, images, trainer.learner()[1], visible)  # (L, N, N)
    paid = paid[:, :, 1 + patches : 1 + patches + k]
    return torch.stack([paid[:, 0], paid[:, 1 + patches + k :].mean(dim=1)], dim=1)
