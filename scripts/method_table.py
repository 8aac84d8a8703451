"""Make the table of all methods in docs/methods.md: what each learns, where, for which classes, at what cost.

    python scripts/method_table.py                          # sizes and uses, over a random CLIP of ViT-B/16's widths
    python scripts/method_table.py --steps steps.json       # also times a step of each method, beside CoOp's
    python scripts/method_table.py --steps steps.json --write   # and puts the table into the page

Settings are those of each method's basetonovel.yaml. Steps are timed at --geometry, all with the same number of images;
steps that ``--steps`` has are not timed again.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from measuring import made_up
from measuring.cases import Step
from measuring.clocks import CPU, timed
from tabulate import tabulate

from clusterprompt import dassl_compat, registration
from clusterprompt.clip_patches.loading import untrained_clip
from clusterprompt.clip_patches.stock import CLIP
from clusterprompt.results.run import METHODS

if TYPE_CHECKING:
    from clusterprompt.trainers.base import PromptTrainer

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "methods.md"
PLACE = re.compile(r"(<!-- table: scripts/method_table.py -->\n).*?(<!-- end -->)", re.DOTALL)
COUNTED, SHOTS = 50, 16  # classes and images of the table
# Images of 32 pixels, for which no learned tensor has another size; of the teacher, only its joint space counts.
WIDTHS = {
    "ViT-B/16": (512, 32, 12, 768, 16, 77, 49408, 512, 8, 12),
    "ViT-L/14": (768, 32, 1, 64, 16, 77, 49408, 64, 1, 1),
}


def main() -> None:
    """Print the table, or write it."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    dassl_compat.prepare()
    names = [*METHODS, *sorted({cls.__name__ for cls in registration.own_trainers()} - set(METHODS))]
    seconds = time_steps(args, names) if args.steps else {}
    clips: dict[str, CLIP] = {}
    rows = []
    for name in names:
        print(f"{name} is built", flush=True)
        rows.append(row(count(args, name, clips), seconds))
    table = tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
    if args.write:
        PAGE.write_text(PLACE.sub(lambda found: f"{found[1]}{table}\n{found[2]}", PAGE.read_text("utf-8")), "utf-8")
    print(table)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=Path, help="file of the timed steps")
    parser.add_argument("--geometry", choices=made_up.GEOMETRIES, default="ViT-B/32", help="CLIP of the timed steps")
    parser.add_argument("--classes", type=int, default=50, help="classes of the timed steps")
    parser.add_argument("--batch", type=int, default=4, help="images of the timed steps")
    parser.add_argument("--repeats", type=int, default=2, help="the fastest counts")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="put the table into docs/methods.md")
    return parser.parse_args()


def arguments(args: argparse.Namespace, name: str, geometry: str) -> argparse.Namespace:
    """Return what :func:`made_up.build` asks for."""
    own = {"trainer": name, "geometry": geometry, "views": made_up.VIEWS.get(name, 1), "prec": "fp32"}
    return argparse.Namespace(**{**vars(args), **own, "device": CPU, "micro_batch": None, "layers": None})


def yaml_of(name: str) -> str:
    """Return a method's settings."""
    return str(ROOT / "configs" / "trainers" / name / "basetonovel.yaml")


def count(args: argparse.Namespace, name: str, clips: dict[str, CLIP]) -> PromptTrainer:
    """Build a method at ViT-B/16's widths, with as many images as a run has."""

    def clip(wanted: str) -> CLIP:
        if wanted not in clips:
            torch.manual_seed(0)
            clips[wanted] = untrained_clip(WIDTHS[wanted]).eval().requires_grad_(False)
        return clips[wanted]

    own, teacher = arguments(args, name, "ViT-B/16"), {"TEACHER_NAME": "ViT-L/14"} if name == "PromptKD" else {}
    return made_up.build(own, COUNTED, COUNTED * SHOTS, yaml_of(name), clip, teacher)


def time_steps(args: argparse.Namespace, names: Sequence[str]) -> dict[str, float]:
    """Return the CPU seconds of a step of each method; the file is written after each one."""
    seconds = json.loads(args.steps.read_text("utf-8")) if args.steps.is_file() else {}
    clip = made_up.random_clip(args.geometry)
    for name in names:
        if name in seconds or name == "ZeroshotCLIP":
            continue
        own = arguments(args, name, args.geometry)
        trainer = made_up.build(own, args.classes, args.batch, yaml_of(name), lambda _: clip)
        step = Step(trainer, own, args.batch)
        step(keep=True)  # what is computed once
        seconds[name] = min(timed(partial(step, keep=True))[1] for _ in range(args.repeats))
        args.steps.write_text(json.dumps(seconds, indent=1), "utf-8")
        print(f"{name}: {seconds[name]:.3f} s", flush=True)
    return seconds


def row(trainer: PromptTrainer, seconds: Mapping[str, float]) -> dict[str, str]:
    """Return a method's row."""
    name = type(trainer).__name__
    learned = [p for p in trainer.learner.parameters() if p.requires_grad] if trainer.learner is not None else []
    found = {
        "trainer": f"`{name}`",
        "parameters": f"{sum(p.numel() for p in learned):,}",
        "enters": where(trainer),
        "protocols": "base half, few-shot" if trainer.tied_to_classes else "all",
        "trains on": "all images, unlabelled" if trainer.transductive else "shots" if learned else "nothing",
    }
    if seconds:
        found["step"] = f"{seconds[name] / seconds['CoOp']:.2f}" if name in seconds else "-"
    return found


def where(trainer: PromptTrainer) -> str:
    """Tell which features a method's learned part reaches, by what a gradient flows into."""
    if trainer.learner is None:
        return "nowhere"
    trainer.set_model_mode("train")
    size = trainer.anatomy.input_resolution
    images = torch.zeros(2, 3, size, size)
    reached = ["images"] if trainer.image_features(images).requires_grad else []
    if trainer.text_needs_image:
        reached.append("texts of each image")
    elif trainer.text_features().requires_grad:
        reached.append("texts")
    return " and ".join(reached) or "logits"


if __name__ == "__main__":
    main()
