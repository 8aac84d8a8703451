"""A trained run as a classifier of images: rebuilt from the run's own record, without the data set it was trained on."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from pathlib import Path
from typing import Iterable, Iterator, List, NamedTuple, Optional, Sequence, Union

import numpy as np
import torch
from torch import Tensor

from .. import dassl_compat, registration
from ..record import folder as run_folder
from .images import Source, decoded_batches

logger = logging.getLogger(__name__)
DEFAULT_TEMPLATE = "a photo of a {}."  # what the trainers use for a host's data set that has none


class Prediction(NamedTuple):
    """What an image shows.

    Attributes:
        path: The image as it was given; empty for a picture in memory.
        classes: Names of the likeliest classes, likeliest first.
        confidences: Their probabilities, 0 to 1.
        error: Why the image could not be read; then there are no classes.
    """

    path: str
    classes: Sequence[str] = ()
    confidences: Sequence[float] = ()
    error: str = ""


class Classifier:
    """Classify images with what a run has learned.

    Attributes:
        classnames: The classes that it tells apart.
        trainer: The run's trainer in eval mode, without loaders.
        transform: From an RGB picture to the model's input, (3, H, W), as in the run's own test.
    """

    def __init__(self, trainer):
        from dassl.data.transforms import build_transform

        self.trainer = trainer
        self.classnames = list(trainer.classnames)
        self.transform = build_transform(trainer.cfg, is_train=False)
        trainer.set_model_mode("eval")
        self._fixed = trainer.fixed_classes()
        self._fixed.__enter__()  # never left: the class texts are computed at the first batch and kept

    def predict(
        self,
        images: Union[Source, Iterable[Source]],
        topk: int = 5,
        batch_size: Optional[int] = None,
        workers: Optional[int] = None,
    ) -> List[Prediction]:
        """Classify images.

        Args:
            images: A path, a PIL image, a folder (all images in it and below, sorted), or any iterable of these.
            topk: Number of classes for each image; at most all.
            batch_size: Images that go through the model at once; default 32, or the run's own test batch where that is
                smaller.
            workers: Threads that decode images; default one a core, at most 8.

        Returns:
            One prediction for each image, in order. An image that cannot be read has its ``error`` set.

        Raises:
            FileNotFoundError: ``images`` is a single path, and there is nothing.
            ValueError: ``topk``, ``batch_size`` or ``workers`` below 1.
        """
        single = isinstance(images, (str, os.PathLike))
        if single and not os.path.exists(images):
            raise FileNotFoundError(f"{images} does not exist; give an image, a folder of images, or a list of them")
        return list(self.stream(images, topk, batch_size, workers))

    def stream(
        self,
        images: Union[Source, Iterable[Source]],
        topk: int = 5,
        batch_size: Optional[int] = None,
        workers: Optional[int] = None,
    ) -> Iterator[Prediction]:
        """Classify images one batch after the other; as :meth:`predict`, but yields, and holds a few batches at a time."""
        batch_size = min(32, self.trainer.cfg.DATALOADER.TEST.BATCH_SIZE) if batch_size is None else batch_size
        workers = min(8, os.cpu_count() or 1) if workers is None else workers
        for name, value in (("topk", topk), ("batch size", batch_size), ("number of workers", workers)):
            if value < 1:
                raise ValueError(f"the {name} is {value}; allowed are 1 and more")
        sources = images if isinstance(images, Iterable) and not isinstance(images, str) else [images]
        for batch in decoded_batches(sources, self.transform, batch_size, workers):
            readable = [image.tensor for image in batch if not image.error]
            ranked = iter(self._rank(torch.stack(readable), topk) if readable else [])
            for image in batch:
                yield (
                    Prediction(image.path, error=image.error) if image.error else Prediction(image.path, *next(ranked))
                )

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return the logits of transformed images, (B, 3, H, W), as the run's own test computes them; (B, C)."""
        from ..clip_patches.loading import autocast

        with autocast(self.trainer.precision, self.trainer.device):
            return self.trainer.classify(images.to(self.trainer.device))

    def _rank(self, images: Tensor, topk: int) -> List[tuple]:
        """Return for each image the names and the probabilities of its likeliest classes."""
        probabilities, places = self.logits(images).float().softmax(dim=1).topk(min(topk, len(self.classnames)))
        return [
            ([self.classnames[i] for i in row], values) for row, values in zip(places.tolist(), probabilities.tolist())
        ]


def load_run(
    folder, classes: Optional[Sequence[str]] = None, device: str = "", precision: str = "", backbone: str = ""
) -> Classifier:
    """Load what a run has learned, ready to classify images.

    The run's ``result.json`` and checkpoint are read, nothing is written, and the data set need not be there.

    Args:
        folder: Output folder of a training run, or of a zero-shot test.
        classes: Names of other classes to tell apart; default those of the run.
        device: ``cpu`` or ``cuda``; default a GPU if there is one.
        precision: ``fp32``, ``amp`` or ``fp16``; default the run's.
        backbone: Name or file of the run's CLIP, where it lies elsewhere now.

    Raises:
        FileNotFoundError: No run, no checkpoint, or no CLIP weights there.
        ValueError: The record does not fit this program, or what was learned cannot serve ``classes``.
    """
    folder = Path(folder).expanduser()
    result = run_folder.read_result(folder)
    if not isinstance(result.get("config"), dict) or not result.get("classnames"):
        raise FileNotFoundError(_no_run(folder))
    names = _check_names(classes) if classes else list(result["classnames"])
    with _quietly(result["config"]):
        trainer = _build(folder, result, names, device, precision, backbone)
        if names != list(result["classnames"]) and trainer.tied_to_classes:
            raise ValueError(
                f"{folder} cannot tell other classes apart than those it was trained on: in this run of {result['trainer']}, "
                f"{trainer.tied_to_classes}. Leave the classes out, or take a run without that"
            )
        if trainer.learner is not None:
            if not run_folder.holds_models(folder):
                raise FileNotFoundError(_no_weights(folder, result))
            trainer.load_model(str(folder))
        classifier = Classifier(trainer)
    if result.get("status") != "finished":
        logger.warning(
            "%s is not finished (epoch %s of %s): these are the weights of its last checkpoint",
            folder,
            result.get("epoch", "?"),
            trainer.max_epoch,
        )
    return classifier


def _build(folder: Path, result: dict, names: list, device: str, precision: str, backbone: str):
    """Build the run's trainer for some classes, without data set and weights."""
    dassl_compat.prepare()
    from dassl.config import get_cfg_default
    from dassl.data.datasets import DATASET_REGISTRY

    from ..trainers.base import Task

    cfg = get_cfg_default()
    registration.extend_cfg(cfg)
    _overlay(cfg, result["config"])
    methods = {cls.__name__: cls for cls in registration.own_trainers()}
    if result.get("trainer") not in methods:
        raise ValueError(
            f"{folder} is a run of {result.get('trainer')!r}, which is no method of this installation; it has {', '.join(methods)}"
        )
    method = methods[result["trainer"]]
    node = cfg.TRAINER[method.node()]
    if device not in ("", "cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise ValueError(
            f"device {device!r} cannot be used; "
            + ("there is no GPU here" if device == "cuda" else "allowed are cpu and cuda")
        )
    cfg.USE_CUDA, cfg.VERBOSE = device != "cpu", False
    cfg.MODEL.INIT_WEIGHTS = ""  # the checkpoint has what became of them
    cfg.MODEL.BACKBONE.NAME = backbone or cfg.MODEL.BACKBONE.NAME
    node.PREC = precision or node.PREC
    if not node.get(
        "RECLUSTER"
    ):  # descriptions serve the training alone; written for its classes, they would stop others
        cfg.DATASET.DESCRIPTIONS = ""
        if "DESCRIPTIONS" in node:
            node.DESCRIPTIONS = ""
    cfg.freeze()
    template = result.get("template")  # records of older versions lack it
    if not template:
        known = cfg.DATASET.NAME in DATASET_REGISTRY.registered_names()
        template = (
            getattr(DATASET_REGISTRY.get(cfg.DATASET.NAME), "template", DEFAULT_TEMPLATE) if known else DEFAULT_TEMPLATE
        )
    try:
        return method(cfg, Task(names, template))
    except (FileNotFoundError, ConnectionError) as error:
        raise type(error)(
            f"{error}. This run needs {cfg.MODEL.BACKBONE.NAME}; if it lies elsewhere now, name its file (--backbone)"
        ) from error


def _overlay(cfg, recorded: dict):
    """Put recorded values over the defaults; keys of other programs come along, tuples are tuples again."""
    from yacs.config import CfgNode

    for key, value in recorded.items():
        if isinstance(value, dict) and isinstance(cfg.get(key), CfgNode):
            _overlay(cfg[key], value)
        elif isinstance(value, list) and isinstance(cfg.get(key), tuple):
            cfg[key] = tuple(value)
        else:
            cfg[key] = CfgNode(value) if isinstance(value, dict) else value


@contextlib.contextmanager
def _quietly(config: dict):
    """Build with the run's numpy seed (TAC's RECLUSTER draws from it); leave stdout, logging and random states of the
    caller alone.
    """
    ours, state = logging.getLogger("clusterprompt"), np.random.get_state()
    level, handlers = ours.level, list(ours.handlers)
    ours.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), torch.random.fork_rng(devices=[]):  # Dassl prints as it builds
            if config.get("SEED", -1) >= 0:
                np.random.seed(config["SEED"])
            yield
    finally:
        np.random.set_state(state)
        ours.setLevel(level)
        ours.handlers[:] = handlers


def _check_names(classes: Sequence[str]) -> list:
    names = [classes] if isinstance(classes, str) else list(classes)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(
            "class names must be words, each given once"
            + (f"; twice there are {', '.join(twice)}" if twice else f", not {names}")
        )
    return names


def _no_run(folder: Path) -> str:
    if not folder.is_dir():
        return f"there is no folder {folder}; give the output folder of a training run (it holds result.json)"
    near = sorted(path.parent.name for path in folder.glob("*/result.json"))
    return f"{folder} holds no run (no whole result.json)" + (
        f"; there are runs in {', '.join(near[:5])}" if near else "; give the output folder of a training run"
    )


def _no_weights(folder: Path, result: dict) -> str:
    if result.get("status") != "finished":
        return f"{folder} is not finished, and has written no checkpoint yet: go on with it (train.py --resume), then come back"
    return (
        f"{folder} holds no trained weights: it is a test of a model that was trained elsewhere (for base-to-new in train_base, not test_new). "
        "Give the folder of the training run, and the classes if others are wanted"
    )
