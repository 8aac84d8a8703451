"""Measure a trainer's step and test against the plain path, at the size of a real CLIP with random weights.

    python scripts/benchmark.py --trainer TAC --classes 50 200 1000 --batch 8 8 2 --geometry ViT-B/16
    python scripts/benchmark.py --trainer TAC --classes 50 --batch 8 --micro-batch 8 --device cuda --prec amp

The plain path is what the tests compare with (clip_patches/plain.py): all 77 text positions, every token of every layer
computed, nothing kept between steps. Both paths run in turn in one process on the same inputs; the fastest of the
repeats counts. Where the plain path's text graph would not fit the memory (``--plain-chunk``), it runs in chunks of
classes whose forward pass is repeated in the backward pass; the time of the repeated part is measured and taken off,
and no peak memory is quoted.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence

import torch
from measuring.cases import Step, Test
from measuring.clocks import matmul_peak
from measuring.made_up import GEOMETRIES, VIEWS, build
from measuring.paths import compare
from tabulate import tabulate

from clusterprompt.record import measure


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    peak = matmul_peak(args)
    print(
        f"{args.trainer}, {args.geometry} with random weights, {args.prec}, {measure.device_name(args.device)}; "
        f"matmul peak {peak / 1e9:.0f} GFLOP/s; fastest of {args.repeats}",
        flush=True,
    )
    records = []
    for classes, batch in zip(args.classes, args.batch):
        trainer = build(args, classes, batch)
        for what in args.what:
            run = Step(trainer, args, batch) if what == "step" else Test(trainer, args)
            record = compare(what, run, args, classes, peak)
            records.append(record)
            print(f"  done: {what} at {classes} classes", flush=True)
    print(tabulate(records, headers="keys"))
    print(
        "'memory' is the peak above what the process held before, fast to plain;\n"
        "'of peak' the fast path's share of the matmul peak;\n"
        "'max diff' the largest difference of loss and gradients (step: relative to the largest gradient) or of logits "
        "(test: scale 100);\ndropout in the text tower (CLIPLoRA) draws other masks on the two paths, which differ then"
    )
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"arguments": vars(args), "rows": records}, file, indent=2, default=str)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer", default="TAC")
    parser.add_argument("--classes", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[8, 8, 2], help="images per step, one number for each of --classes"
    )
    parser.add_argument("--what", nargs="+", choices=("step", "test"), default=["step", "test"])
    parser.add_argument("--views", type=int, default=None, help="views of an image; default: the method's")
    parser.add_argument("--fast-only", action="store_true", help="leave the plain path out")
    parser.add_argument("--test-images", type=int, default=16)
    parser.add_argument("--geometry", choices=GEOMETRIES, default="ViT-B/16")
    parser.add_argument("--prec", default="fp32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--micro-batch", type=int, help="views at a time (TRAIN.MICRO_BATCH), fast path only")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--plain-chunk", type=int, default=400, help="most classes in one text graph of the plain path")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY VALUE", help="settings, as KEY VALUE pairs")
    parser.add_argument("--json", help="also write the rows to this file")
    args = parser.parse_args(argv)
    if len(args.batch) == 1:
        args.batch = args.batch * len(args.classes)
    if len(args.batch) != len(args.classes):
        parser.error(
            f"--batch has {len(args.batch)} numbers for {len(args.classes)} class counts; give one, or one for each"
        )
    args.views = args.views or VIEWS.get(args.trainer, 1)
    return args


if __name__ == "__main__":
    main()
