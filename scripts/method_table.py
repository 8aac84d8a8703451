"""Make the tables of docs/methods.md: what each method learns, where, for which classes, and what it costs.

    python scripts/method_table.py                                # sizes and uses, over a CLIP of ViT-B/16's widths
    python scripts/method_table.py --costs costs.json             # also measures each method against its plain path
    python scripts/method_table.py --costs costs.json --write     # and puts the tables into the page

Settings are those of each method's basetonovel.yaml. Costs are measured at --geometry, all with the same number of
images; those that ``--costs`` has are not measured again, so that a long run goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import benchmark
import torch
from measuring import made_up
from measuring.cases import Step, Test
from measuring.clocks import matmul_peak
from measuring.paths import compare
from tabulate import tabulate
from torch import nn

from clusterprompt import dassl_compat, registration
from clusterprompt.clip_patches.loading import untrained_clip
from clusterprompt.clip_patches.stock import CLIP
from clusterprompt.results.run import METHODS

if TYPE_CHECKING:
    from clusterprompt.trainers.base import PromptTrainer

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "methods.md"
COUNTED, SHOTS = 50, 16  # classes and images of the table
# Images of 32 pixels, for which no learned tensor has another size; of the teacher, only its joint space counts.
WIDTHS = {
    "ViT-B/16": (512, 32, 12, 768, 16, 77, 49408, 512, 8, 12),
    "ViT-L/14": (768, 32, 1, 64, 16, 77, 49408, 64, 1, 1),
}
# Dropout in the text tower draws other masks on the two paths: there, only a row without it says how far they differ.
WITHOUT_DROPOUT = {"CLIPLoRA": {"DROPOUT_RATE": 0.0}}


def main() -> None:
    """Print the tables, or write them."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    dassl_compat.prepare()
    names = [*METHODS, *sorted({cls.__name__ for cls in registration.own_trainers()} - set(METHODS))]
    costs = measure_costs(args, args.trainers or names) if args.costs else {}
    if args.trainers:
        return
    clips: dict[str, CLIP] = {}
    rows = []
    for name in names:
        print(f"{name} is built", flush=True)
        rows.append(row(count(args, name, clips), costs))
    tables = {"methods": rows, "costs": []}
    if costs:
        tables["costs"] = [cost_row(title, costs[title]) for name in names for _, title, _ in variants(name)]
    for mark, table in tables.items():
        if table:
            show(mark, tabulate(table, headers="keys", tablefmt="github", disable_numparse=True), args.write)


def show(mark: str, table: str, write: bool) -> None:
    """Print a table, and write it between its marks in the page."""
    print(table)
    if write:
        place = re.compile(rf"(<!-- {mark}: scripts/method_table.py -->\n).*?(<!-- end -->)", re.DOTALL)
        PAGE.write_text(place.sub(lambda found: f"{found[1]}{table}\n{found[2]}", PAGE.read_text("utf-8")), "utf-8")


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--costs", type=Path, help="file of the measured costs")
    parser.add_argument("--trainers", nargs="+", metavar="NAME", help="only measure these, and print no table")
    parser.add_argument(
        "--geometry",
        choices=[name for name in made_up.GEOMETRIES if name != "small"],
        default="ViT-B/16",
        help="CLIP of the costs",
    )
    parser.add_argument("--classes", type=int, default=50, help="classes of the costs")
    parser.add_argument("--batch", type=int, default=4, help="images of the costs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/methods.md")
    args = parser.parse_args()
    if (args.trainers or args.write) and not args.costs:
        parser.error("--trainers and --write need the file of the costs, as --costs costs.json")
    return args


def arguments(args: argparse.Namespace, name: str, geometry: str) -> argparse.Namespace:
    """Return what `benchmark.py` asks for."""
    words = ["--trainer", name, "--geometry", geometry, "--threads", str(args.threads), "--repeats", "1"]
    images = ["--batch", str(args.batch), "--test-images", str(args.batch)]
    return benchmark.arguments_of(benchmark.parse_args([*words, "--classes", str(args.classes), *images]), name)


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


def variants(name: str) -> list[tuple[str, str, dict[str, float]]]:
    """Return name, title and changed options of what is measured of a method."""
    found: list[tuple[str, str, dict[str, float]]] = [(name, name, {})]
    if name in WITHOUT_DROPOUT:
        found.append((name, f"{name}, no dropout", WITHOUT_DROPOUT[name]))
    return found


def measure_costs(args: argparse.Namespace, names: Sequence[str]) -> dict[str, dict[str, dict]]:
    """Return a row of the benchmark for a step and for a test of each method; the file is written after each one."""
    costs = json.loads(args.costs.read_text("utf-8")) if args.costs.is_file() else {}
    clip = made_up.random_clip(args.geometry)
    rate = matmul_peak(arguments(args, "CoOp", args.geometry), by_cpu=True)
    for name, title, options in [variant for each in names for variant in variants(each)]:
        if title in costs:
            continue
        own = arguments(args, name, args.geometry)
        trainer = made_up.build(own, args.classes, args.batch, yaml_of(name), lambda _: clip, options)
        runs: dict[str, Step | Test] = {}
        if trainer.learner is not None:
            leave_start(trainer.learner)
            runs["step"] = Step(trainer, own, args.batch)
            runs["step"](keep=True)  # what is computed once
        runs["test"] = Test(trainer, own)
        costs[title] = {what: compare(what, run, own, args.classes) for what, run in runs.items()}
        for cost in costs[title].values():
            cost["of CPU peak"] = f"{cost.pop('rate') * cost['fast s'] / cost['fast CPU-s'] / rate:.0%}"
        args.costs.write_text(json.dumps(costs, indent=1), "utf-8")
        print(f"{title}: {costs[title]}", flush=True)
    return costs


def leave_start(learner: nn.Module) -> None:
    """Move the weights a little: at the start some gradients are zero, and ProGrad's second one is rounding noise."""
    torch.manual_seed(4)
    with torch.no_grad():
        for weights in learner.parameters():
            weights += 0.01 * torch.randn(weights.shape)


def cost_row(title: str, cost: Mapping[str, Mapping]) -> dict[str, str]:
    """Return a row of the table of costs: fast CPU seconds, the plain path's over them, MB of both, and so on."""
    found = {"trainer": f"`{title}`"}
    drawn = title in WITHOUT_DROPOUT
    for what in ("step", "test"):
        one = cost.get(what)
        found[f"{what} s"] = f"{one['fast CPU-s']:.1f}" if one else "-"
        found[f"{what} ratio"] = f"{one['CPU ratio']:.2f}" if one else "-"
        found[f"{what} MB"] = f"{one['fast MB']} / {one['plain MB']}" if one else "-"
        found[f"{what} peak"] = one["of CPU peak"] if one else "-"
        found[f"{what} diff"] = one["max diff"] if one and not (drawn and what == "step") else "-"
    return found


def row(trainer: PromptTrainer, costs: Mapping[str, Mapping]) -> dict[str, str]:
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
    if costs:
        seconds = {each: cost["step"]["fast CPU-s"] for each, cost in costs.items() if "step" in cost}
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
