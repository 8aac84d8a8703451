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
import atexit
import contextlib
import copy
import ctypes
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar
from unittest import mock

import torch
from PIL import Image
from tabulate import tabulate
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import clusterprompt
from clusterprompt.clip_patches import encoders, plain
from clusterprompt.clip_patches.anatomy import clamp_logit_scale
from clusterprompt.clip_patches.loading import untrained_clip
from clusterprompt.clip_patches.stock import CLIP
from clusterprompt.record import measure
from clusterprompt.trainers.parts.data import ImageLoader

if TYPE_CHECKING:
    from clusterprompt.trainers.base import PromptTrainer

Result = TypeVar("Result")
CPU = torch.device("cpu")
# embed_dim, resolution, vision layers, vision width, patch, context, vocabulary, text width, text heads, text layers
GEOMETRIES = {
    "ViT-B/32": (512, 224, 12, 768, 32, 77, 49408, 512, 8, 12),
    "ViT-B/16": (512, 224, 12, 768, 16, 77, 49408, 512, 8, 12),
    "ViT-L/14": (768, 224, 24, 1024, 14, 77, 49408, 768, 12, 12),
    "small": (128, 64, 3, 192, 16, 77, 49408, 128, 2, 3),
}
VIEWS = {"TAC": 4, "CoPrompt": 2}  # as in their yamls; other methods take one view of an image
WORDS = (
    "cat house river stone garden summer bridge night paper market window forest silver engine letter mountain".split()
)


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
            print(f"  done: {what} at {classes} classes, {record['ratio']}x", flush=True)
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


def matmul_peak(args: argparse.Namespace) -> float:
    """Measure the device's matmul rate in the precision of the run, FLOP/s."""
    cuda = args.device.type == "cuda"
    dtype = torch.float16 if cuda and args.prec in ("amp", "fp16") else torch.float32
    size = 8192 if cuda else 3072
    a, b = torch.randn(2, size, size, device=args.device, dtype=dtype)
    best = min(timed(lambda: a @ b, args.device)[0] for _ in range(6))
    return 2 * size**3 / best


def class_names(count: int) -> list[str]:
    """Make names of one to three words, and one of eight, as in ImageNet."""
    names = [" ".join(WORDS[(i * 7 + j * (3 + i // 16)) % 16] for j in range(1 + i % 3)) for i in range(count)]
    names[count // 2] = " ".join(WORDS[:8])
    return names


def random_clip(geometry: str) -> CLIP:
    """Build a CLIP of a given size whose activations stay in a sane range."""
    torch.manual_seed(0)
    clip = untrained_clip(GEOMETRIES[geometry])
    clamp_logit_scale(clip, least=100, most=100)  # as in a trained CLIP
    return clip.eval().requires_grad_(False)


def build(
    args: argparse.Namespace,
    classes: int,
    batch: int,
    yaml: str = "",
    clip: Callable[[str], CLIP] = random_clip,
    options: Mapping[str, object] | None = None,
) -> PromptTrainer:
    """Construct the trainer over a random CLIP, made-up class names and one grey image, without any data set.

    Args:
        args: With the trainer, geometry, prec, views, device and micro_batch.
        classes: Number of classes.
        batch: Number of training images.
        yaml: Config that is merged first; none for the method's defaults.
        clip: Builds a CLIP by name.
        options: Options of the method that differ, where it has them.
    """
    import dassl.engine

    import clusterprompt.trainers.base as base
    import clusterprompt.trainers.parts.teacher as teacher

    cfg = build_cfg(args, batch, yaml, options or {})
    manager = partial(made_up_data, classes=classes, batch=batch)
    registered = dassl.engine.TRAINER_REGISTRY.get(args.trainer)

    def load_clip(name: str, precision: str, device: torch.device) -> CLIP:
        return clip(name).to(device)

    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        for module in (base, teacher):
            stack.enter_context(mock.patch.object(module, "load_clip", load_clip))
        for module in (base, sys.modules[registered.__module__]):
            for name in ("load_data", "load_unlabelled"):
                if hasattr(module, name):
                    stack.enter_context(mock.patch.object(module, name, manager))
        torch.manual_seed(0)
        trainer = registered(cfg)
    trainer.num_batches, trainer.epoch, trainer.batch_idx = 10**9, 0, 0
    return trainer


def build_cfg(args: argparse.Namespace, batch: int, yaml: str, options: Mapping[str, object]) -> Any:
    """Return the config of :func:`build`."""
    from dassl.config import get_cfg_default
    from dassl.engine import TRAINER_REGISTRY

    cfg = get_cfg_default()
    clusterprompt.extend_cfg(cfg)
    if yaml:
        cfg.merge_from_file(yaml)
    cfg.TRAINER.NAME, cfg.MODEL.BACKBONE.NAME, cfg.DATALOADER.RETURN_IMG0 = args.trainer, args.geometry, True
    cfg.DATALOADER.K_TRANSFORMS, cfg.DATALOADER.NUM_WORKERS = args.views, 0
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = max(batch, 2)
    cfg.OPTIM.NAME, cfg.USE_CUDA, cfg.VERBOSE = "sgd", args.device.type == "cuda", False
    cfg.merge_from_list(args.set)
    node = cfg.TRAINER[TRAINER_REGISTRY.get(args.trainer).node()]
    node.PREC = args.prec
    without_files = {"DESCRIPTIONS": "templates", "TEACHER_MODEL": "zero-shot", "TEACHER_NAME": "", "AUGMENT_EPOCH": 1}
    for key, value in {**without_files, **options}.items():
        if key in node:
            node[key] = value
    for key in node:
        if args.micro_batch and key.endswith("_DROPOUT"):
            node[key] = 0.0  # parts draw other masks than the whole batch
        if args.geometry == "small" and key.startswith("PROMPT_DEPTH"):
            node[key] = min(node[key], GEOMETRIES["small"][2])
        if args.geometry == "small" and key == "CROSS_LAYER":
            node[key] = -1
    return cfg


def made_up_data(cfg: Any, *_: Any, classes: int, batch: int) -> SimpleNamespace:
    """Stand in for Dassl's DataManager: made-up classes, and one grey image as often as the batch is large."""
    from dassl.data.data_manager import build_data_loader
    from dassl.data.datasets import Datum
    from dassl.data.transforms import build_transform

    names = class_names(classes)
    with tempfile.NamedTemporaryFile(suffix=".png", delete=False) as file:
        Image.new("RGB", cfg.INPUT.SIZE, "grey").save(file)
    atexit.register(os.unlink, file.name)
    images = [Datum(impath=file.name, label=i % classes, classname=names[i % classes]) for i in range(batch)]
    dataset = SimpleNamespace(classnames=names, train_x=images, val=[], test=[])
    loader = build_data_loader(
        cfg, data_source=images, batch_size=batch, tfm=build_transform(cfg), is_train=True, dataset_wrapper=ImageLoader
    )
    loaders = {"train_loader_x": loader, "train_loader_u": None, "val_loader": None, "test_loader": None}
    sizes = {"num_source_domains": 1, "num_classes": classes, "lab2cname": dict(enumerate(names))}
    return SimpleNamespace(dataset=dataset, **loaders, **sizes)


class Step:
    """One training step without the optimiser's update, so that both paths see the same weights."""

    def __init__(self, trainer, args, batch):
        size = trainer.anatomy.input_resolution
        torch.manual_seed(1)
        self.trainer, self.images, self.micro_batch = trainer, batch * args.views, args.micro_batch
        trainer.cfg.defrost()
        self.start = copy.deepcopy(trainer.learner.state_dict())
        views = [torch.randn(batch, 3, size, size) for _ in range(args.views)]
        self.batch = {
            "img": views if args.views > 1 else views[0],
            "label": torch.arange(batch) % len(trainer.classnames),
            "img0": torch.randn(batch, 3, size, size),
            "index": torch.arange(batch),
        }

    def __call__(self, keep: bool):
        """Return loss and gradients; ``keep`` lets the trainer use what it keeps between steps."""
        batch = dict(self.batch) if keep else {k: v for k, v in self.batch.items() if k != "index"}
        self.trainer.cfg.TRAIN.MICRO_BATCH = self.micro_batch if keep else None
        self.trainer.set_model_mode("train")
        self.trainer.learner.load_state_dict(self.start)  # a step may write into the learner
        torch.manual_seed(2)  # the same dropout on both paths
        random.seed(2)
        with mock.patch.multiple(self.trainer, model_update=mock.DEFAULT, update_lr=mock.DEFAULT):
            loss = self.trainer.forward_backward(batch)["loss"]
        return torch.tensor(loss), torch.cat(
            [p.grad.flatten().cpu() for p in self.trainer.learner.parameters() if p.grad is not None]
        )

    def difference(self, fast: Sequence, slow: Sequence) -> float:
        """Largest relative difference of loss and gradients."""
        return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(fast, slow))


class Test:
    """The evaluation of a small test set in one batch, the classes' text features included."""

    def __init__(self, trainer, args):
        size = trainer.anatomy.input_resolution
        torch.manual_seed(3)
        self.trainer, self.images = trainer, args.test_images
        self.inputs = torch.randn(args.test_images, 3, size, size).to(args.device)

    @torch.no_grad()
    def __call__(self, keep: bool):
        """Return the logits."""
        self.trainer.set_model_mode("eval")
        with self.trainer.fixed_classes():
            return (self.trainer.model_inference(self.inputs),)

    def difference(self, fast: Sequence, slow: Sequence) -> float:
        """Largest absolute difference of logits."""
        return float((fast[0] - slow[0]).abs().max())


def compare(what: str, run: Step | Test, args: argparse.Namespace, classes: int, peak: float) -> dict:
    """Run both paths in turn; return one row of the table."""
    discount = Discount()
    slow_text = (
        chunked(plain.encode_text, args.plain_chunk, discount)
        if what == "step" and classes > args.plain_chunk
        else plain.encode_text
    )
    slow = (
        contextlib.ExitStack,
        [
            mock.patch.object(encoders, "encode_text", slow_text),
            mock.patch.object(encoders, "encode_image", plain.encode_image),
            mock.patch.object(encoders, "encode_image_inserted", plain.encode_image_inserted),
        ],
    )
    results = {"plain": [], "fast": []}
    for _ in range(args.repeats):
        for path in ("plain", "fast"):
            with slow[0]() as stack:
                for patch in slow[1] if path == "plain" else []:
                    stack.enter_context(patch)
                discount.reset()
                release_memory()
                held = held_mb(args.device)
                measure.reset_peak_memory(args.device)
                wall, cpu, out = timed(partial(run, keep=path == "fast"), args.device)
                memory = measure.peak_memory_mb(args.device) - held
                results[path].append((wall - discount.wall, cpu - discount.cpu, memory, out))
    best = {path: [min(r[i] for r in runs) for i in range(3)] for path, runs in results.items()}
    learned = list(run.trainer.learner.parameters()) if run.trainer.learner is not None else []
    for p in learned:
        p.requires_grad_(what == "step")  # the counter stumbles over learned inputs of a module without a graph
    with FlopCounterMode(display=False) as counter:
        run(keep=True)
    for p in learned:
        p.requires_grad_(True)
    chunky = slow_text is not plain.encode_text
    (pw, pc, pm), (fw, fc, fm) = best["plain"], best["fast"]
    return {
        "what": what,
        "classes": classes,
        "images": run.images,
        "plain s": round(pw, 2),
        "fast s": round(fw, 2),
        "ratio": round(pw / fw, 2),
        "plain CPU-s": round(pc, 2),
        "fast CPU-s": round(fc, 2),
        "CPU ratio": round(pc / fc, 2),
        "plain MB": "-" if chunky else round(pm),
        "fast MB": round(fm),
        "memory": "-" if chunky else round(fm / pm, 2),
        "of peak": f"{counter.get_total_flops() / fw / peak:.0%}",
        "GFLOP": round(counter.get_total_flops() / 1e9, 1),
        "max diff": f"{run.difference(results['fast'][-1][3], results['plain'][-1][3]):.1e}",
    }


class Discount:
    """Time that a chunked plain path spends on the forward pass it has to do twice."""

    def reset(self) -> None:
        """Set the times to 0."""
        self.wall = self.cpu = 0.0


def chunked(encode_text: Callable, size: int, discount: Discount) -> Callable:
    """Make an encoder take its classes in chunks that keep no graph; count the time of the first forward pass."""

    def encode(clip, sentences, prompts=(), *args, **kwargs):
        def part(embeddings, eot, *prompts):
            return encode_text(clip, encoders.Sentences(embeddings, eot, 1), prompts, *args, **kwargs)

        out = []
        for classes in zip(sentences.embeddings.split(size), sentences.eot.split(size)):
            wall, cpu, features = timed(partial(checkpoint, part, *classes, *prompts, use_reentrant=False))
            discount.wall, discount.cpu = discount.wall + wall, discount.cpu + cpu
            out.append(features)
        return torch.cat(out, dim=-2)

    return encode


def timed(function: Callable[[], Result], device: torch.device = CPU) -> tuple[float, float, Result]:
    """Return wall seconds, CPU seconds and the result of a call, waiting for the GPU."""
    synchronise = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronise()
    wall, cpu = time.perf_counter(), time.process_time()
    out = function()
    synchronise()
    return time.perf_counter() - wall, time.process_time() - cpu, out


def held_mb(device: torch.device) -> float:
    """Memory in use: allocated on the GPU, or resident in this process (0 where /proc is missing), MiB."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return 0.0


def release_memory() -> None:
    """Give freed memory back to the system, so that peaks of one path do not show in the other."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


if __name__ == "__main__":
    main()
