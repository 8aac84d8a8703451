"""Build any trainer over a CLIP of a real size with random weights, made-up classes and one made-up image."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from PIL import Image, ImageFilter

import clusterprompt
from clusterprompt.clip_patches.anatomy import anatomy, clamp_logit_scale, logit_scale
from clusterprompt.clip_patches.loading import untrained_clip
from clusterprompt.clip_patches.stock import CLIP
from clusterprompt.trainers.parts.data import ImageLoader

if TYPE_CHECKING:
    from clusterprompt.trainers.base import PromptTrainer

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


def class_names(count: int) -> list[str]:
    """Make names of one to three words, and one of eight, as in ImageNet."""
    names = [" ".join(WORDS[(i * 7 + j * (3 + i // 16)) % 16] for j in range(1 + i % 3)) for i in range(count)]
    names[count // 2] = " ".join(WORDS[:8])
    return names


def random_clip(geometry: str, layers: int | None = None) -> CLIP:
    """Build a CLIP of a given size, perhaps with other numbers of layers, whose activations stay in a sane range."""
    torch.manual_seed(0)
    sizes = GEOMETRIES[geometry]
    clip = untrained_clip((*sizes[:2], layers or sizes[2], *sizes[3:9], layers or sizes[9]))
    clamp_logit_scale(clip, least=100, most=100)  # as in a trained CLIP
    return clip.eval().requires_grad_(False)


def build(
    args: argparse.Namespace,
    classes: int,
    batch: int,
    yaml: str = "",
    clip: Callable[[str], CLIP] | None = None,
    options: Mapping[str, object] | None = None,
) -> PromptTrainer:
    """Construct the trainer over a random CLIP, made-up classes and one image, without any data set.

    Args:
        args: With the trainer, geometry, prec, views, device, micro_batch and layers.
        classes: Number of classes.
        batch: Number of training images.
        yaml: Config that is merged first; none for the method's defaults.
        clip: Builds a CLIP by name; default :func:`random_clip`.
        options: Options of the method that differ, where it has them.
    """
    import dassl.engine

    import clusterprompt.trainers.base as base
    import clusterprompt.trainers.parts.teacher as teacher

    cfg = build_cfg(args, batch, yaml, options or {})
    manager = partial(made_up_data, classes=classes, batch=batch)
    registered = dassl.engine.TRAINER_REGISTRY.get(args.trainer)

    def load_clip(name: str, precision: str, device: torch.device) -> CLIP:
        return (clip(name) if clip else random_clip(name, args.layers)).to(device)

    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        for module in (base, teacher):
            stack.enter_context(mock.patch.object(module, "load_clip", load_clip))
        for module in (base, sys.modules[registered.__module__]):
            for name in ("load_data", "load_unlabelled"):
                if hasattr(module, name):
                    stack.enter_context(mock.patch.object(module, name, manager))
            if hasattr(module, "class_anchors"):
                stack.enter_context(mock.patch.object(module, "class_anchors", drawn_anchors))
        torch.manual_seed(0)
        trainer = registered(cfg)
    trainer.num_batches, trainer.epoch, trainer.batch_idx = 10**9, 0, 0
    return trainer


def drawn_anchors(clip: CLIP, sentences: Sequence[Sequence[str]]) -> torch.Tensor:
    """Stand in for the frozen features of the classes, (C, d), which take longer than many steps."""
    features = torch.randn(len(sentences), anatomy(clip).joint_width)
    return torch.nn.functional.normalize(features, dim=-1).to(logit_scale(clip).device)


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
    layers = args.layers or GEOMETRIES[args.geometry][2]
    for key in node:
        if args.micro_batch and key.endswith("_DROPOUT"):
            node[key] = 0.0  # parts draw other masks than the whole batch
        if key.startswith("PROMPT_DEPTH"):
            node[key] = min(node[key], layers)
        if layers < 12 and key == "CROSS_LAYER":
            node[key] = -1
    return cfg


def made_up_data(cfg: Any, *_: Any, classes: int, batch: int) -> SimpleNamespace:
    """Stand in for Dassl's DataManager: made-up classes, and one image as often as the batch is large."""
    from dassl.data.data_manager import build_data_loader
    from dassl.data.datasets import Datum
    from dassl.data.transforms import build_transform

    names = class_names(classes)
    with tempfile.NamedTemporaryFile(suffix=".jpg", delete=False) as file:
        Image.effect_noise((500, 375), 60).filter(ImageFilter.GaussianBlur(2)).convert("RGB").save(
            file
        )  # as photos are
    atexit.register(os.unlink, file.name)
    images = [Datum(impath=file.name, label=i % classes, classname=names[i % classes]) for i in range(batch)]
    dataset = SimpleNamespace(classnames=names, train_x=images, val=[], test=[])
    loader = build_data_loader(
        cfg, data_source=images, batch_size=batch, tfm=build_transform(cfg), is_train=True, dataset_wrapper=ImageLoader
    )
    loaders = {"train_loader_x": loader, "train_loader_u": None, "val_loader": None, "test_loader": None}
    sizes = {"num_source_domains": 1, "num_classes": classes, "lab2cname": dict(enumerate(names))}
    return SimpleNamespace(dataset=dataset, **loaders, **sizes)
