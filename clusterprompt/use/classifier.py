"""Classify images with a trained run, rebuilt from its record without its data set."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import dassl_compat, registration
from ..clip_patches.text_source import FOLDER as DESCRIPTIONS_FOLDER
from ..clip_patches.text_source import TEMPLATES
from ..record import folder as run_folder
from ..record.result import DamagedRecord, RunRecord
from .images import Source, decoded_batches, sources_of

if TYPE_CHECKING:
    from ..trainers.base import PromptTrainer

logger = logging.getLogger(__name__)
DEFAULT_TEMPLATE = "a photo of a {}."  # what the trainers use for a host's data set that has none


class Prediction(NamedTuple):
    """The classes found for one image.

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
    """Classify images with a trained model.

    Attributes:
        classnames: The classes that it tells apart.
        trainer: The run's trainer in eval mode, without loaders.
        transform: From an RGB picture to the model's input, (3, H, W), as in the run's own test.
        grey_range: The values that are black and white in images of more than 8 bits, as in the run.
    """

    def __init__(self, trainer: PromptTrainer):
        from dassl.data.transforms import build_transform

        self.trainer = trainer
        self.classnames = list(trainer.classnames)
        self.transform = build_transform(trainer.cfg, is_train=False)
        self.grey_range = trainer.cfg.DATASET.get("GREY_RANGE", ())
        trainer.set_model_mode("eval")
        self._fixed = trainer.fixed_classes()
        self._fixed.__enter__()  # never left: the class texts are computed at the first batch and kept

    def predict(
        self,
        images: Source | Iterable[Source],
        topk: int = 5,
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> list[Prediction]:
        """Classify images.

        Args:
            images: A path, a PIL image, an array (H, W, 3) of uint8 in RGB order (OpenCV's is BGR: ``x[:, :, ::-1]``),
                a folder (all images in it and below, sorted), or any iterable of these.
            topk: Number of classes for each image; at most all.
            batch_size: Images that go through the model at once; default 32, or the run's own test batch where that is
                smaller.
            workers: Threads that decode images; default one a core, at most 8.

        Returns:
            One prediction for each image, in order. An image that cannot be read has its ``error`` set.

        Raises:
            FileNotFoundError: ``images`` is a single path, and there is nothing.
            TypeError: ``images`` is something else, such as a tensor; :meth:`logits` takes transformed tensors.
            ValueError: ``topk``, ``batch_size`` or ``workers`` below 1.
        """
        if isinstance(images, (str, os.PathLike)) and not os.path.exists(images):
            raise FileNotFoundError(f"{images} does not exist; give an image, a folder of images, or a list of them")
        return list(self.stream(images, topk, batch_size, workers))

    def stream(
        self,
        images: Source | Iterable[Source],
        topk: int = 5,
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> Iterator[Prediction]:
        """Classify images batch by batch; as :meth:`predict`, but yields results and holds few batches at a time."""
        batch_size = min(32, self.trainer.cfg.DATALOADER.TEST.BATCH_SIZE) if batch_size is None else batch_size
        workers = min(8, os.cpu_count() or 1) if workers is None else workers
        for name, value in (("topk", topk), ("batch size", batch_size), ("number of workers", workers)):
            if value < 1:
                raise ValueError(f"the {name} is {value}; allowed are 1 and more")
        for batch in decoded_batches(sources_of(images), self.transform, batch_size, workers, self.grey_range):
            readable = [image.tensor for image in batch if image.tensor is not None]
            ranked = iter(self._rank(torch.stack(readable), topk) if readable else [])
            for image in batch:
                if image.tensor is None:
                    yield Prediction(image.path, error=image.error)
                else:
                    yield Prediction(image.path, *next(ranked))

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return the logits of transformed images, (B, 3, H, W), as the run's own test computes them; (B, C)."""
        from ..clip_patches.loading import autocast

        with autocast(self.trainer.precision, self.trainer.device):
            return self.trainer.classify(images.to(self.trainer.device))

    def _rank(self, images: Tensor, topk: int) -> list[tuple[list[str], list[float]]]:
        """Return for each image the names and the probabilities of its likeliest classes."""
        probabilities, places = self.logits(images).float().softmax(dim=1).topk(min(topk, len(self.classnames)))
        return [
            ([self.classnames[i] for i in row], values) for row, values in zip(places.tolist(), probabilities.tolist())
        ]


def load_run(
    folder: str | os.PathLike,
    classes: Sequence[str] | None = None,
    device: str = "",
    precision: str = "",
    backbone: str = "",
    *,
    keep_descriptions: bool = False,
    trust_record: bool = False,
) -> Classifier:
    """Load a trained model, ready to classify images.

    The run's ``result.json`` and checkpoint are read, nothing is written, and the data set need not be there.

    Args:
        folder: Output folder of a training run, or of a zero-shot test.
        classes: Names of other classes to tell apart; default those of the run.
        device: ``cpu`` or ``cuda``; default a GPU if there is one.
        precision: ``fp32``, ``amp`` or ``fp16``; default the run's.
        backbone: Name or file of the run's CLIP, where it lies elsewhere now.
        keep_descriptions: Also read the file of class descriptions that the run trained with. Only what shows the
            training needs it, as the pictures of TAC do.
        trust_record: Open the files that the record names: a CLIP of one's own, class descriptions. Only for runs
            whose origin is known; a record from somebody else may name any file.

    Raises:
        FileNotFoundError: No run, no checkpoint, or no CLIP weights there.
        ValueError: The record is damaged or does not fit this program, it names files and is not trusted, or the
            learned parameters do not serve ``classes``.
    """
    folder = Path(folder).expanduser()
    record = read_record(folder)
    names = _check_names(classes) if classes else list(record.classnames)
    with _quiet_and_seeded(record.config):
        cfg = _config(folder, record, device, precision, backbone, keep_descriptions)
        if not trust_record:
            refuse_files(folder, _named_files(folder, cfg, record, bool(backbone)))
        trainer = _build(cfg, folder, record, names)
        _refuse_other_texts(folder, record, trainer)
        if trainer.learner is not None:
            if not run_folder.holds_models(folder):
                raise FileNotFoundError(_no_weights(folder, record))
            with one_line_if_damaged(folder):
                trainer.load_model(str(folder))
        classifier = Classifier(trainer)
    if not record.finished:
        logger.warning(
            "%s is not finished (epoch %s of %s): these are the weights of its last checkpoint",
            folder,
            "?" if record.epoch is None else record.epoch,
            trainer.max_epoch,
        )
    return classifier


def read_record(folder: str | os.PathLike) -> RunRecord:
    """Read the record of a run whose model is to be rebuilt.

    Raises:
        FileNotFoundError: There is no run, or its record lacks the config or the class names.
        ValueError: The record is damaged.
    """
    folder = Path(folder).expanduser()
    try:
        record = RunRecord.read(folder)
    except FileNotFoundError:
        raise FileNotFoundError(_no_run(folder)) from None
    except DamagedRecord as error:
        raise ValueError(f"{folder} cannot be used: its result.json is {error}") from error
    if not record.config or not record.classnames:
        raise FileNotFoundError(_no_run(folder))
    return record


def _config(folder: Path, record: RunRecord, device: str, precision: str, backbone: str, keep_descriptions: bool):
    """Return the run's config, frozen, with what the caller wants otherwise."""
    dassl_compat.prepare()
    from dassl.config import get_cfg_default

    cfg = get_cfg_default()
    registration.extend_cfg(cfg)
    _restore(cfg, record.config)
    if device not in ("", "cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        why = "there is no GPU here" if device == "cuda" else "allowed are cpu and cuda"
        raise ValueError(f"device {device!r} cannot be used; {why}")
    cfg.USE_CUDA, cfg.VERBOSE = device != "cpu", False
    cfg.MODEL.INIT_WEIGHTS = ""  # superseded by the checkpoint
    cfg.MODEL.BACKBONE.NAME = backbone or cfg.MODEL.BACKBONE.NAME
    method = _method(folder, record)
    node = cfg.TRAINER[method.node()]
    recorded = record.config.get("TRAINER", {}).get(method.node(), {})
    for key, value in getattr(method, "unrecorded", {}).items():
        if key not in recorded:
            node[key] = value
    node.PREC = precision or node.PREC
    # Descriptions mostly serve the training alone. Written for its classes, they would not do for others.
    keep = keep_descriptions or node.get("RECLUSTER") or method.described_use
    if record.text_source == TEMPLATES or not keep:
        cfg.DATASET.DESCRIPTIONS = TEMPLATES
        if "DESCRIPTIONS" in node:
            node.DESCRIPTIONS = TEMPLATES
    cfg.freeze()
    return cfg


def _named_files(folder: Path, cfg: Any, record: RunRecord, own_clip: bool) -> list[str]:
    """List the files that a trainer would open because the record names them."""
    from ..clip_patches.loading import is_published

    clip = cfg.MODEL.BACKBONE.NAME
    node = cfg.TRAINER[_method(folder, record).node()]
    settings = [setting for setting in (node.get("DESCRIPTIONS"), cfg.DATASET.DESCRIPTIONS) if setting]
    if "DESCRIPTIONS" in node and not settings:  # looked for in the data root
        settings = [os.path.join(cfg.DATASET.ROOT, DESCRIPTIONS_FOLDER)]
    descriptions = dict.fromkeys(setting for setting in settings if setting != TEMPLATES)
    own = [] if own_clip or is_published(clip) else [f"CLIP {clip}"]
    further = _method(folder, record).further_files(cfg)
    return [*own, *(f"class descriptions {path}" for path in descriptions), *further]


def refuse_files(folder: Path, files: Sequence[str]) -> None:
    """Raise ValueError for files that only a run's record names: a stranger's may name any.

    Args:
        folder: Output folder of the run.
        files: What is named, such as "CLIP /data/clip.pt".
    """
    if files:
        other = " Or name that CLIP yourself: --backbone FILE" if files[0].startswith("CLIP") else ""
        raise ValueError(
            f"{folder}: its record names {', '.join(files)}, which is opened only at your word: if the run is your "
            f"own, add --trust-record (in Python trust_record=True).{other}"
        )


def _refuse_other_texts(folder: Path, record: RunRecord, trainer: PromptTrainer) -> None:
    """Raise ValueError where a model that reads descriptions finds others than those of its training."""
    now = trainer.text_source
    if now is None or trainer.settings.DESCRIPTIONS == TEMPLATES:
        return  # none are read
    if record.text_source and str(now) != record.text_source:
        raise ValueError(
            f"{folder} was trained with {record.text_source}, and what is found now is {now.file or 'no file'} "
            f"({now}): put the file of the training back"
        )


def _method(folder: Path, record: RunRecord) -> type[PromptTrainer]:
    """Return the class of the run's method.

    Raises:
        ValueError: This installation has no such method.
    """
    methods = {cls.__name__: cls for cls in registration.own_trainers()}
    if record.trainer not in methods:
        raise ValueError(
            f"{folder} is a run of {record.trainer!r}, which is no method of this installation; "
            f"it has {', '.join(methods)}"
        )
    return methods[record.trainer]


def _build(cfg, folder: Path, record: RunRecord, names: list[str]) -> PromptTrainer:
    """Build the run's trainer for some classes, without data set and weights."""
    from ..trainers.base import Task

    try:
        trainer = _method(folder, record)(cfg, Task(names, _template(folder, record)))
    except (FileNotFoundError, ConnectionError) as error:
        raise type(error)(
            f"{error}. This run needs {cfg.MODEL.BACKBONE.NAME}; if it lies elsewhere now, name its file (--backbone)"
        ) from error
    if names != list(record.classnames) and trainer.tied_to_classes:
        raise ValueError(
            f"{folder} cannot tell other classes apart than those it was trained on: in this run of {record.trainer}, "
            f"{trainer.tied_to_classes}. Leave the classes out, or take a run without that"
        )
    return trainer


def _template(folder: Path, record: RunRecord) -> str:
    """Return the run's hand-written prompt.

    Raises:
        ValueError: It is a format string for more than the class's name.
    """
    template = record.template or _template_of(record.dataset)
    if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
        raise ValueError(
            f"{folder} cannot be used: its template {template[:80]!r} must hold {{}} once, for the class's name, and "
            "no other braces"
        )
    return template


def _template_of(dataset: str) -> str:
    """Return the template of a data set's class; records of older versions do not hold it."""
    from dassl.data.datasets import DATASET_REGISTRY

    if dataset not in DATASET_REGISTRY.registered_names():
        return DEFAULT_TEMPLATE
    return getattr(DATASET_REGISTRY.get(dataset), "template", DEFAULT_TEMPLATE)


def _restore(cfg, recorded: dict[str, Any]) -> None:
    """Put recorded values over the defaults.

    Keys that only other programs know are kept. JSON made lists of tuples; they become tuples again.
    """
    from yacs.config import CfgNode

    for key, value in recorded.items():
        if isinstance(value, dict) and isinstance(cfg.get(key), CfgNode):
            _restore(cfg[key], value)
        elif isinstance(value, list) and isinstance(cfg.get(key), tuple):
            cfg[key] = tuple(value)
        else:
            cfg[key] = CfgNode(value) if isinstance(value, dict) else value


@contextlib.contextmanager
def _quiet_and_seeded(config: dict[str, Any]) -> Iterator[None]:
    """Use the run's numpy seed while a trainer is built, and leave no trace of it.

    TAC's RECLUSTER draws from numpy. The caller's stdout, logging and random states are left as they were.
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


@contextlib.contextmanager
def one_line_if_damaged(source: Path) -> Iterator[None]:
    """Raise what torch says of a damaged checkpoint as a ValueError of one line.

    The stand-in for Dassl does so itself, with a CheckpointError; real Dassl does not.

    Args:
        source: Folder or file, for the message.
    """
    try:
        yield
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        if type(error).__name__ == "CheckpointError":
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{source}: the checkpoint is damaged or does not fit ({reason})") from error


def _check_names(classes: Sequence[str]) -> list[str]:
    """Return class names as a list; raise ValueError for an empty one, or one given twice."""
    names = [classes] if isinstance(classes, str) else list(classes)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not all(isinstance(name, str) and name.strip() for name in names):
        which = f"; twice there are {', '.join(twice)}" if twice else f", not {names}"
        raise ValueError(f"class names must be words, each given once{which}")
    return names


def _no_run(folder: Path) -> str:
    """Say that a folder holds no run, and where one may be."""
    if not folder.is_dir():
        return f"there is no folder {folder}; give the output folder of a training run (it holds result.json)"
    near = sorted(path.parent.name for path in folder.glob("*/result.json"))
    way_out = f"there are runs in {', '.join(near[:5])}" if near else "give the output folder of a training run"
    return f"{folder} holds no run (no whole result.json); {way_out}"


def _no_weights(folder: Path, record: RunRecord) -> str:
    """Say that a run has no checkpoint, and what to do."""
    if not record.finished:
        return (
            f"{folder} is not finished, and has written no checkpoint yet: "
            "go on with it (clusterprompt train --resume), then come back"
        )
    return (
        f"{folder} holds no trained weights: it is a test of a model that was trained elsewhere "
        "(for base-to-new in train_base, not test_new). "
        "Give the folder of the training run, and the classes if others are wanted"
    )
