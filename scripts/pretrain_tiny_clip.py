"""Pretrain the small embedded CLIP from scratch on drawings, two CPU cores, at most half an hour.

    python scripts/pretrain_tiny_clip.py --out clip_patches/embedded/tiny.safetensors

OpenAI's CLIP class and tokenizer, a symmetric contrastive loss in which every caption that is true of a picture counts
as its positive, AdamW with a cosine schedule. Prints the zero-shot accuracy on the base and new classes of `shapes` as
it goes. The model knows a small synthetic world only and serves to try the code out
(clip_patches/embedded/MODEL_CARD.md).
"""

from __future__ import annotations

import argparse
import hashlib
import math
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tqdm import tqdm

from clusterprompt.clip_patches import encoders
from clusterprompt.clip_patches.anatomy import clamp_logit_scale, logit_scale
from clusterprompt.clip_patches.class_texts import TEMPLATES
from clusterprompt.clip_patches.embedded_clip import GEOMETRY, rebuilt_embedding
from clusterprompt.clip_patches.loading import tokenize, untrained_clip
from clusterprompt.clip_patches.stock import CLIP
from clusterprompt.datasets import drawing, shapes

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
CLEAN = drawing.Style()
SHABBY = drawing.Style(
    clutter=0.6, blotches=(0, 35), gain=(0.7, 1), blur=(0, 0.8), noise=(0, 22)
)  # a share of the pictures
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
PLURALS = {shape: {"cross": "crosses"}.get(shape, shape + "s") for shape in drawing.SHAPES}
FRAMES = (
    *TEMPLATES,
    "{}",
    "a {}.",
    "the {}.",
    "a photo of {}.",
    "a drawing of {}.",
    "{} in a picture.",
    "there are {} here.",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw, train, save."""
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    began = time.time()
    figures, images = draw_all(args.images, args.threads)
    probes = {half: draw_probe(half, args.threads) for half in ("base", "new")}
    print(f"{len(figures)} pictures drawn in {time.time() - began:.0f} s", flush=True)

    clip, vocabulary = new_clip()
    trained = list(clip.parameters())
    decay, rest = [p for p in trained if p.dim() > 1], [p for p in trained if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=args.lr, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 40) * 0.5 * (1 + math.cos(math.pi * step / args.steps))
    )
    bar = tqdm(range(args.steps), disable=None)
    for step in bar:
        chosen = rng.integers(len(figures), size=args.batch)
        captions, facts = zip(*(caption(figures[i], rng) for i in chosen))
        tokens = vocabulary.encode(captions)
        image = F.normalize(encoders.encode_image(clip, normalise(images[chosen])), dim=-1)
        text = F.normalize(encoders.encode_text(clip, encoders.embed_tokens(clip, tokens)), dim=-1)
        loss = contrastive(logit_scale(clip) * image @ text.T, positives([figures[i] for i in chosen], facts))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        clamp_logit_scale(clip, least=0, most=100)
        if (step + 1) % args.report == 0 or step + 1 == args.steps:
            accuracy = {half: zero_shot(clip, vocabulary, *probe) for half, probe in probes.items()}
            print(
                f"step {step + 1}/{args.steps}  loss {loss.item():.3f}  "
                f"zero-shot on shapes: base {accuracy['base']:.1f}  "
                f"new {accuracy['new']:.1f}  {time.time() - began:.0f} s",
                flush=True,
            )
            digest = save(clip, vocabulary.rows, Path(args.out))
    print(f"wrote {args.out}, sha256 {digest}; put it into clip_patches/embedded_clip.py")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="clip_patches/embedded/tiny.safetensors")
    parser.add_argument("--images", type=int, default=16000)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report", type=int, default=100, help="steps between zero-shot tests and saves")
    return parser.parse_args(argv)


# ----------------------------------------------------------------------------------------------------------------
# pictures


def random_figure(rng: np.random.Generator) -> drawing.Figure:
    """Any combination of shape, colour and texture; some pictures show several figures, some only a pattern."""
    kind = rng.random()
    shape = None if kind < 0.08 else str(rng.choice(drawing.SHAPES))
    count = int(rng.integers(2, 6)) if kind > 0.85 else 1
    return drawing.Figure(shape, str(rng.choice(list(drawing.COLOURS))), str(rng.choice(drawing.TEXTURES)), count)


def draw_one(index: int) -> tuple[drawing.Figure, np.ndarray]:
    """Draw pretraining picture number ``index``."""
    rng = drawing.rng_for("pretraining", "train", index)
    figure = random_figure(rng)
    style = SHABBY if rng.random() < 0.2 else CLEAN
    return figure, np.asarray(drawing.draw(figure, style, rng))


def draw_all(count: int, workers: int) -> tuple[list[drawing.Figure], torch.Tensor]:
    """Draw all pictures: figures, and (N, 64, 64, 3) uint8."""
    with ProcessPoolExecutor(workers) as pool:
        drawn = list(tqdm(pool.map(draw_one, range(count), chunksize=200), total=count, desc="drawing", disable=None))
    return [figure for figure, _ in drawn], torch.from_numpy(np.stack([image for _, image in drawn]))


def draw_probe(half: str, workers: int, per_class: int = 15) -> tuple[torch.Tensor, torch.Tensor, Sequence[str]]:
    """Draw test pictures of one half of `shapes`: images, labels and class names."""
    names = shapes.BASE if half == "base" else shapes.NEW
    jobs = [(name, "test", i) for name in names for i in range(per_class)]
    with ProcessPoolExecutor(workers) as pool:
        images = list(pool.map(shapes.Shapes.picture, *zip(*jobs), chunksize=20))
    labels = torch.arange(len(names)).repeat_interleave(per_class)
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])), labels, names


def normalise(images: torch.Tensor) -> torch.Tensor:
    """(N, 64, 64, 3) uint8 to what CLIP takes."""
    return images.permute(0, 3, 1, 2).float().div(255).sub(MEAN).div(STD)


# ----------------------------------------------------------------------------------------------------------------
# captions


def caption(figure: drawing.Figure, rng: np.random.Generator) -> tuple[str, tuple]:
    """Write a caption that is true of a figure.

    Returns:
        The caption, and the facts it states: (texture, colour, shape, count), None where it is silent.
    """
    texture, colour, shape, count = (
        keep(value, rng, p)
        for value, p in ((figure.texture, 0.75), (figure.colour, 0.85), (figure.shape, 0.9), (figure.count, 0.7))
    )
    if figure.shape is None:
        shape, count = "pattern", 1
    elif texture is colour is shape is None:
        shape = figure.shape
    if figure.count > 1:
        noun = "things" if shape is None else PLURALS[shape]
        words = [NUMBERS[count] if count else "some", texture, colour, noun]
    else:
        count = 1
        words = [texture, colour, shape or "thing"]
    phrase = " ".join(word for word in words if word)
    text = str(rng.choice(FRAMES)).format(phrase)
    return text, (texture, colour, shape, count)


def keep(value: Any, rng: np.random.Generator, probability: float) -> Any:
    """Keep a word, or leave it out."""
    return value if value is not None and rng.random() < probability else None


def positives(figures: Sequence[drawing.Figure], facts: Sequence[tuple]) -> torch.Tensor:
    """Tell which caption is true of which picture, (B, B)."""
    rows = [(f.texture, f.colour, f.shape or "pattern", f.count) for f in figures]
    match = torch.ones(len(rows), len(facts), dtype=torch.bool)
    for part in range(4):
        code = {value: i for i, value in enumerate({row[part] for row in rows} | {fact[part] for fact in facts})}
        picture = torch.tensor([code[row[part]] for row in rows])
        said = torch.tensor([code[fact[part]] for fact in facts])
        silent = torch.tensor([fact[part] is None for fact in facts])
        match &= (picture[:, None] == said[None]) | silent[None]
    return match


def contrastive(logits: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """Return the symmetric cross-entropy with the positives of a row as equally likely targets."""

    def one_way(scores, target):
        return -(target / target.sum(1, keepdim=True) * scores.log_softmax(1)).sum(1).mean()

    target = positive.float()
    return (one_way(logits, target) + one_way(logits.T, target.T)) / 2


def all_words() -> list[str]:
    """Return sentences that together use every word of the captions, class names and templates."""
    phrases = [
        *drawing.TEXTURES,
        *drawing.COLOURS,
        *drawing.SHAPES,
        *PLURALS.values(),
        *NUMBERS.values(),
        "pattern",
        "thing",
        "things",
        "some",
        *shapes.CLASSES,
    ]
    return [frame.format(phrase) for phrase in phrases for frame in ("{}", "a {}.")] + [
        frame.format("thing") for frame in FRAMES
    ]


# -------------------------------------------------------------------------------------------------------------------
# model


class Vocabulary:
    """The rows of the token embedding that captions use, renumbered in their order (so EOT stays the highest)."""

    def __init__(self):
        self.rows = sorted(set(tokenize(all_words()).flatten().tolist()))
        self.place = {row: i for i, row in enumerate(self.rows)}

    def encode(self, texts: Iterable[str]) -> torch.Tensor:
        """Tokenise texts to places among the used rows, (N, 77)."""
        return tokenize(texts).apply_(self.place.__getitem__)


def new_clip() -> tuple[CLIP, Vocabulary]:
    """Build an untrained CLIP over the used rows of the token embedding; the others are what loading rebuilds."""
    vocabulary = Vocabulary()
    return untrained_clip(GEOMETRY, rebuilt_embedding()[vocabulary.rows]), vocabulary


@torch.no_grad()
def zero_shot(
    clip: CLIP, vocabulary: Vocabulary, images: torch.Tensor, labels: torch.Tensor, names: Sequence[str]
) -> float:
    """Accuracy in percent with the data set's template."""
    text = encoders.encode_text(
        clip, encoders.embed_tokens(clip, vocabulary.encode([shapes.Shapes.template.format(n) for n in names]))
    )
    image = torch.cat([encoders.encode_image(clip, normalise(part)) for part in images.split(100)])
    return 100 * float((F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T).argmax(1).eq(labels).float().mean())


def save(clip: CLIP, rows: Sequence[int], path: Path) -> str:
    """Write fp16 weights with only the used rows of the token embedding; return the file's sha256."""
    weights = {name: value.detach().half().contiguous() for name, value in clip.state_dict().items()}
    weights["token_embedding"] = weights.pop("token_embedding.weight")
    weights["token_rows"] = torch.tensor(rows, dtype=torch.int32)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path, metadata={"format": "pt", "made_by": "scripts/pretrain_tiny_clip.py"})
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
