"""Measure a trainer's step and test against the plain path, at the size of a real CLIP with random weights.

    python scripts/benchmark.py --trainer TAC --classes 50 200 1000 --batch 8 8 2 --geometry ViT-B/16
    python scripts/benchmark.py --trainer TAC --classes 50 --batch 8 --micro-batch 8 --device cuda --prec amp
    python scripts/benchmark.py --trainer all --classes 50 --batch 4 --profile
    python scripts/benchmark.py --geometry ViT-B/32 --classes 50 --batch 4 --scaling classes views --picture growth.svg

The plain path is what the tests compare with (clip_patches/plain.py): all 77 text positions, every token of every layer
computed, nothing kept between steps. Both paths run in turn in one process on the same inputs; the fastest of the
repeats counts. Where the plain path's text graph would not fit the memory (``--plain-chunk``), it runs in chunks of
classes whose forward pass is repeated in the backward pass; the time of the repeated part is measured and taken off,
and no peak memory is quoted. ``--profile`` says instead where the fast path's time goes, ``--scaling`` how the cost of
a step grows.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import growth
from measuring.cases import Step, Test
from measuring.clocks import matmul_peak
from measuring.made_up import GEOMETRIES, VIEWS, build, random_clip
from measuring.paths import compare
from measuring.shares import loading_seconds, shares
from tabulate import tabulate

from clusterprompt.record import measure
from clusterprompt.results.run import METHODS

ROOT = Path(__file__).resolve().parent.parent
LEGEND = """\
'memory' is the peak above what the process held before, fast to plain;
'of peak' the fast path's share of the matmul peak;
'max diff' the largest difference of loss and gradients (step: relative to the largest gradient) or of logits (test:
scale 100);
dropout in the text tower (CLIPLoRA) draws other masks on the two paths, which differ then"""
LEGEND_OF_SHARES = """\
shares of the time of the fast path in %: vision + text + outside = 100, by place; linear + attention + elementwise +
memory + other + outside = 100, by kind of work in the towers; 'loading' is the CPU time of reading and augmenting the
batch, beside the CPU time of the step"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    peak = matmul_peak(args)
    title = f"{' '.join(args.trainer)}, {args.geometry} with random weights, {args.prec}"
    print(f"{title}, {measure.device_name(args.device)}; matmul peak {peak / 1e9:.0f} GFLOP/s", flush=True)
    measurements = profiles(args) if args.profile else scalings(args) if args.scaling else comparisons(args, peak)
    rows = []
    for row in measurements:
        rows.append(row)
        print("  done:", *list(row.values())[:3], flush=True)
        if args.json:
            Path(args.json).write_text(json.dumps({"arguments": vars(args), "rows": rows}, indent=1, default=str))
    print(tabulate(rows, headers="keys"))
    print(LEGEND_OF_SHARES if args.profile else "" if args.scaling else LEGEND)
    if args.picture:
        growth.draw(rows, title, args.picture)


def comparisons(args: argparse.Namespace, peak: float) -> Iterator[dict[str, Any]]:
    """Yield a row for each trainer, number of classes, step or test."""
    for name in args.trainer:
        own = arguments_of(args, name)
        for classes, batch in zip(args.classes, args.batch):
            trainer = build(own, classes, batch)
            for what in args.what:
                run = Step(trainer, own, batch) if what == "step" else Test(trainer, own)
                row = compare(what, run, own, classes)
                peak = max(peak, matmul_peak(args))  # of a machine that others use, the best of two moments
                row["of peak"] = f"{row.pop('rate') / peak:.0%}"
                yield {"trainer": name, **row} if len(args.trainer) > 1 else row


def profiles(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the shares of a step and a test of each trainer, with the settings of its yaml."""
    clip = random_clip(args.geometry, args.layers)
    for name in args.trainer:
        own = arguments_of(args, name)
        yaml = ROOT / "configs" / "trainers" / name / "basetonovel.yaml"
        trainer = build(own, args.classes[0], args.batch[0], str(yaml), lambda _: clip)
        for what in args.what:
            if what == "step" and trainer.learner is None:
                continue
            run = Step(trainer, own, args.batch[0]) if what == "step" else Test(trainer, own)
            found, seconds = shares(run)
            percent = {key: round(100 * share) for key, share in found.items()}
            loading = f"{loading_seconds(trainer) / seconds:.1%}" if what == "step" else ""
            yield {"trainer": name, "what": what, "CPU-s": round(seconds, 2), **percent, "loading": loading}


def scalings(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the costs of the first trainer at each size of each axis."""
    for axis in args.scaling:
        yield from growth.grow(arguments_of(args, args.trainer[0]), axis)


def arguments_of(args: argparse.Namespace, name: str) -> argparse.Namespace:
    """Return the arguments with one trainer, and its number of views."""
    own = copy.copy(args)
    own.trainer, own.views = name, args.views or VIEWS.get(name, 1)
    return own


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer", nargs="+", default=["TAC"], help="names, or all")
    parser.add_argument("--classes", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[8, 8, 2], help="images per step, one number for each of --classes"
    )
    parser.add_argument("--what", nargs="+", choices=("step", "test"), default=["step", "test"])
    parser.add_argument("--views", type=int, default=None, help="views of an image; default: the method's")
    parser.add_argument("--fast-only", action="store_true", help="leave the plain path out")
    parser.add_argument("--layers", type=int, help="layers of both towers; default: the geometry's")
    parser.add_argument("--test-images", type=int, default=16)
    parser.add_argument("--geometry", choices=GEOMETRIES, default="ViT-B/16")
    parser.add_argument("--prec", default="fp32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--micro-batch", type=int, help="views at a time (TRAIN.MICRO_BATCH), fast path only")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--plain-chunk", type=int, default=400, help="most classes in one text graph of the plain path")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY VALUE", help="settings, as KEY VALUE pairs")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--profile", action="store_true", help="shares of the time of the fast path, on a CPU")
    instead.add_argument("--scaling", nargs="+", choices=growth.AXES, help="cost of a step at growing sizes")
    parser.add_argument("--picture", type=Path, help="with --scaling: draw it, .svg or .png")
    parser.add_argument("--json", help="also write the rows to this file")
    args = parser.parse_args(argv)
    if len(args.batch) == 1:
        args.batch = args.batch * len(args.classes)
    if len(args.batch) != len(args.classes):
        parser.error(
            f"--batch has {len(args.batch)} numbers for {len(args.classes)} class counts; give one, or one for each"
        )
    if args.picture and not args.scaling:
        parser.error("--picture needs --scaling")
    if args.trainer == ["all"]:
        args.trainer = list(METHODS)
    return args


if __name__ == "__main__":
    main()
