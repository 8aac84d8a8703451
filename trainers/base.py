"""Everything about a prompt-learning trainer that is Dassl-shaped, so that a method's file holds its method and nothing
else.
"""

from __future__ import annotations

import logging
import math
import os
import time
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Dict, NamedTuple, Optional, Sequence

import torch
import torch.nn.functional as F
from dassl.engine import TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from torch import Tensor, nn

from ..clip_patches import encoders
from ..clip_patches.class_texts import check_template, read_descriptions
from ..clip_patches.loading import PRECISIONS, autocast, load_clip, set_precision
from ..record import measure
from ..record.history import Step, earlier_history, epoch_entry
from ..record.predictions import Predictions
from ..record.result import RunRecord, task_of
from ..record.tracking import WandbRun, check_wandb
from .parts.checkpoints import Renames, find_checkpoint, learner_weights, read_with_notes
from .parts.origin import methods_by_names, origin_of

logger = logging.getLogger(__name__)


class Batch(NamedTuple):
    """A training batch on the device.

    Attributes:
        images: Views of the images, view-major (all first views, then all second ones), (views * B, 3, H, W).
        labels: Their labels, (views * B,).
        views: Random augmentations per image (DATALOADER.K_TRANSFORMS).
        img0: The images without augmentation, (B, 3, H, W); None unless DATALOADER.RETURN_IMG0.
        index: Their places in the training list, (B,), if the loader tells.
    """

    images: Tensor
    labels: Tensor
    views: int
    img0: Optional[Tensor]
    index: Optional[Tensor]


class Task(NamedTuple):
    """What a model needs to know of a data set, for use without its images.

    Attributes:
        classnames: In order of the labels.
        template: The hand-written prompt, with ``{}`` for the class name.
        train_x: The training images: none.
    """

    classnames: Sequence[str]
    template: str
    train_x: Sequence = ()


def unit(features: Tensor) -> Tensor:
    """Normalise features in fp32."""
    return F.normalize(features.float(), dim=-1)


class PromptTrainer(TrainerX):
    """Train a learner around a frozen CLIP.

    A method says its ``options``, builds a learner, computes ``text_features``, ``image_features`` and its ``losses``;
    methods whose text depends on the image override ``classify`` instead.

    Attributes:
        options: Defaults of the node ``cfg.TRAINER.<NAME>``, in the official spelling.
        config_node: Name of that node where the authors' code shares another method's; default the class name in
            capitals.
        checkpoint_folder: Name under which the learner is registered, so also its folder below the output folder; the
            official one.
        official_names: (pattern, replacement) pairs from the names in official checkpoints to the learner's.
        official_ignored: Patterns of entries in official checkpoints that play no part.
        clip: Stock CLIP, frozen, in eval mode. fp32 until the learner is built, then in the precision of the run.
        learner: Holds all that is learned, in fp32; None for a method that learns nothing.
    """

    options: Dict[str, object] = {"PREC": "fp32"}
    config_node = ""
    checkpoint_folder = "prompt_learner"
    official_names: Renames = ()
    official_ignored = ()

    # ------------------------------------------------------------------ a method's own part
    def build_learner(self) -> Optional[nn.Module]:
        """Return the module that holds the method's parameters; ``self.clip`` is still fp32."""
        raise NotImplementedError

    def losses(self, batch: Batch) -> Dict[str, Tensor]:
        """Return the weighted terms of the objective by name; their sum is minimised. Default: cross-entropy."""
        return {"ce": self.cross_entropy(self.classify(batch.images), batch.labels)}

    def text_features(self) -> Tensor:
        """Return the normalised features of the classes, (C, d)."""
        raise NotImplementedError

    def image_features(self, images: Tensor) -> Tensor:
        """Return the normalised features of images, (B, d). Default: stock CLIP."""
        return unit(encoders.encode_image(self.clip, images))

    def classify(self, images: Tensor) -> Tensor:
        """Return the logits of images, (B, C)."""
        return self.logits(self.image_features(images), self.class_features())

    @property
    def text_needs_image(self) -> bool:
        """Whether the class texts depend on the image: then there are no ``text_features`` to be kept."""
        return False

    @property
    def tied_to_classes(self) -> str:
        """Why what is learned serves no classes but those of the training; empty if it serves any."""
        return ""

    def end_epoch(self) -> None:
        """Do what a method does with the weights at the end of an epoch, before validation and checkpoint."""

    # ------------------------------------------------------------------ construction
    def __init__(self, cfg, task: Optional[Task] = None):
        """Build everything for a run; with a task in the data set's place, all but the loaders, and nothing is read
        from its folder.
        """
        self.task = task
        self.status, self.scores, self.seconds = "finished", {}, {"train": 0.0, "test": 0.0}
        self.seconds_per_epoch = 0.0
        self.history, self.trained_on = [], None
        self.batch_accuracy, self._steps, self._wandb = None, [], None
        self._classes_fixed, self._class_features = False, None
        self._predictions = Predictions()
        super().__init__(cfg)

    @classmethod
    def node(cls) -> str:
        """Name of the method's node below ``cfg.TRAINER``."""
        return cls.config_node or cls.__name__.upper()

    @property
    def settings(self):
        """The method's node of the config."""
        return self.cfg.TRAINER[self.node()]

    @property
    def classnames(self):
        """Names of the classes in order of their labels."""
        return self.dm.dataset.classnames

    @property
    def template(self) -> str:
        """The hand-written prompt: the config's, or else the data set's."""
        return self.cfg.DATASET.TEMPLATE or getattr(self.dm.dataset, "template", "a photo of a {}.")

    def descriptions(self):
        """Return the sentences of each class from the JSON that the config names, the method's own first; None if it
        names none.
        """
        path = self.settings.get("DESCRIPTIONS") or self.cfg.DATASET.DESCRIPTIONS
        return read_descriptions(path, self.cfg.DATASET.NAME, self.classnames) if path else None

    def check_cfg(self, cfg):
        """Refuse what no method can run with."""
        if cfg.DATASET.TEMPLATE:
            check_template(cfg.DATASET.TEMPLATE)
        allowed = [p for p in PRECISIONS if p != "bf16"]
        precision = cfg.TRAINER[self.node()].PREC
        if precision not in allowed:
            raise ValueError(f"TRAINER.{self.node()}.PREC is {precision!r}; allowed are {', '.join(allowed)}")
        check_wandb(cfg.TRAIN.get("WANDB", ""))

    def build_data_loader(self):
        """Load CLIP, fit the input size to it, then build the loaders."""
        measure.reset_peak_memory(self.device)
        self.precision = self.settings.PREC
        self.clip = load_clip(self.cfg.MODEL.BACKBONE.NAME, "fp32", self.device)
        size = (self.clip.visual.input_resolution,) * 2
        if tuple(self.cfg.INPUT.SIZE) != size:
            logger.info(
                "INPUT.SIZE %s does not fit backbone %s: using %s",
                tuple(self.cfg.INPUT.SIZE),
                self.cfg.MODEL.BACKBONE.NAME,
                size,
            )
            self.cfg = self.cfg.clone()
            self.cfg.defrost()
            self.cfg.INPUT.SIZE = size
            self.cfg.freeze()
        if self.task is None:
            super().build_data_loader()
        else:
            self.dm = SimpleNamespace(dataset=self.task)
            self.train_loader_x = self.train_loader_u = self.val_loader = self.test_loader = None
            self.num_classes, self.lab2cname = len(self.classnames), dict(enumerate(self.classnames))

    def build_model(self):
        """Build the learner, then put CLIP into the precision of the run."""
        self.learner = self.build_learner()
        set_precision(self.clip, self.precision)
        self._check_ops()
        self.scaler = None
        if self.learner is None:
            return
        self.learner.float().to(self.device)
        if self.cfg.MODEL.INIT_WEIGHTS:
            self._load_file(self.cfg.MODEL.INIT_WEIGHTS)
        if self.device.type == "cuda" and self.precision == "amp":
            self.scaler = torch.amp.GradScaler("cuda")
        self.model = self.learner
        self.optim = build_optimizer(self.learner, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model(self.checkpoint_folder, self.learner, self.optim, self.sched)
        learned = sum(p.numel() for p in self.learner.parameters())
        logger.info(
            "%s learns %s parameters on a frozen %s, precision %s, on %s",
            type(self).__name__,
            f"{learned:,}",
            self.cfg.MODEL.BACKBONE.NAME,
            self.precision,
            measure.device_name(self.device),
        )

    def _check_ops(self):
        """Fail early and clearly where a device lacks half-precision kernels."""
        if self.precision != "fp16" or self.device.type == "cuda":
            return
        try:
            with torch.no_grad():
                encoders.encode_image(self.clip, torch.zeros(1, 3, *self.cfg.INPUT.SIZE))
        except (RuntimeError, NotImplementedError) as error:
            raise ValueError(f"PREC fp16 cannot run on {self.device}: {error}; use PREC amp or fp32 there") from error

    # ------------------------------------------------------------------ training
    def train(self):
        """Train and test; a method that learns nothing is only tested."""
        if self.learner is None:
            logger.info("%s learns nothing: testing it", type(self).__name__)
            self.test()
        else:
            super().train()

    def parse_batch_train(self, batch) -> Batch:
        """Put a batch of Dassl's loader on the device, views concatenated."""
        images = batch["img"] if isinstance(batch["img"], list) else [batch["img"]]
        img0, index = batch.get("img0"), batch.get("index")
        return Batch(
            images=torch.cat([i.to(self.device) for i in images]),
            labels=batch["label"].to(self.device).repeat(len(images)),
            views=len(images),
            img0=None if img0 is None else img0.to(self.device),
            index=index,
        )

    def forward_backward(self, batch) -> Dict[str, float]:
        """Do one step of optimisation.

        Raises:
            FloatingPointError: The loss is not finite; names the terms, epoch and batch. The weights are left as they
                were.
        """
        with autocast(self.precision, self.device):
            terms = self.losses(self.parse_batch_train(batch))
        loss = sum(terms.values())
        value = loss.item()
        values = {name: term.item() for name, term in terms.items()}
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the loss is not finite in epoch {self.epoch + 1}, batch {self.batch_idx + 1}: "
                + ", ".join(f"{name} {term:.4g}" for name, term in values.items())
                + ". Lower OPTIM.LR, or use PREC fp32"
            )
        self.model_zero_grad()
        self.backward(self.scaled(loss))
        if self.scaler is None:
            self.model_update()
        else:
            self.scaler.step(self.optim)
            self.scaler.update()
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        self._steps.append(Step(value, values, self.batch_accuracy))
        summary = {
            "loss": value,
            **({f"loss_{name}": term for name, term in values.items()} if len(values) > 1 else {}),
        }
        return summary if self.batch_accuracy is None else {**summary, "acc": self.batch_accuracy}

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a loss; the place for what a method does with gradients."""
        loss.backward()

    def scaled(self, loss: Tensor) -> Tensor:
        """Return a loss as half precision on a GPU needs it: so large that its gradients do not vanish."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Return scaled cosine similarities in fp32.

        Args:
            image_features: Normalised, (B, d).
            text_features: Normalised, (C, d), or (B, C, d) when they depend on the image.
        """
        with torch.autocast(self.device.type, enabled=False):
            image_features, text_features = image_features.float(), text_features.float()
            scale = self.clip.logit_scale.float().exp()
            if text_features.dim() == 3:
                return scale * torch.einsum("bd,bcd->bc", image_features, text_features)
            return scale * image_features @ text_features.T

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy, and keep the batch's accuracy for the log."""
        self.batch_accuracy = compute_accuracy(logits.detach(), labels)[0].item()
        return F.cross_entropy(logits, labels)

    def before_train(self):
        """Resume if there is something to resume, and leave a record that training began."""
        super().before_train()
        self.history = earlier_history(self.cfg.RESUME or self.cfg.OUTPUT_DIR, self.start_epoch)
        self.trained_on = task_of(self.cfg)
        self.status, self._began = "training", time.time()
        self.write_result()

    def run_epoch(self):
        """Run Dassl's epoch, and keep what became of it."""
        self._steps, lr, began = [], self.get_current_lr(), time.time()
        super().run_epoch()
        self.history.append(epoch_entry(self.epoch + 1, lr, self._steps, time.time() - began))

    def after_epoch(self):
        """Let the method handle its weights, then validate and save."""
        self.end_epoch()
        self.write_result()  # before the checkpoint, so that a resumed run finds the history of every epoch that it does not repeat
        super().after_epoch()

    def after_train(self):
        """Test and write the finished record."""
        self.seconds["train"] = time.time() - self._began
        here = (
            self.max_epoch - self.start_epoch
        )  # a resumed run did not do all, and none if it was stopped in its final test
        earlier = [entry["seconds"] for entry in self.history]
        self.seconds_per_epoch = self.seconds["train"] / here if here else sum(earlier) / max(1, len(earlier))
        super().after_train()
        self.status = "finished"
        self.write_result()

    # ------------------------------------------------------------------ evaluation
    @contextmanager
    def fixed_classes(self):
        """Compute the classes' features once for all images classified inside the block."""
        self._class_features = None
        self._classes_fixed = True
        try:
            yield
        finally:
            self._class_features, self._classes_fixed = None, False

    def class_features(self) -> Tensor:
        """Return ``text_features()``, computed once inside :meth:`fixed_classes`."""
        if not self._classes_fixed:
            return self.text_features()
        if self._class_features is None:
            self._class_features = self.text_features()
        return self._class_features

    def model_inference(self, input):
        """Return the logits of a batch of images, (B, C)."""
        with autocast(self.precision, self.device):
            logits = self.classify(input)
        self._predictions.add_logits(logits)
        return logits

    def parse_batch_test(self, batch):
        """Return images and labels on the device."""
        images, labels = super().parse_batch_test(batch)
        self._predictions.add_images(labels, batch.get("impath", ()))
        return images, labels

    @torch.no_grad()
    def test(self, split: Optional[str] = None, **ignored) -> float:
        """Evaluate on the test or validation images; write the record, and after a test each image's prediction.

        Args:
            split: ``val`` or ``test``; default cfg.TEST.SPLIT.
            ignored: Keywords of forks of Dassl.

        Returns:
            The first of the evaluator's results, the accuracy in percent.
        """
        began = time.time()
        self._predictions = Predictions()
        with self.fixed_classes():
            accuracy = super().test(split)
        self.seconds["test"] += time.time() - began
        predictions, self._predictions = self._predictions, Predictions()
        split = "val" if (split or self.cfg.TEST.SPLIT) == "val" and self.val_loader is not None else "test"
        self.scores[split] = {"accuracy": accuracy, **predictions.scores(self.classnames)}
        if split == "test":
            predictions.write(self.output_dir, self.cfg.DATASET.ROOT)
        self.write_result()
        if self.status == "finished":  # not the test at the end of a training run, which closes it
            self.close_writer()
        return accuracy

    # ------------------------------------------------------------------ scalars
    def write_scalar(self, tag, value, *step):
        """Record a number for tensorboard (Dassl's part), and for Weights & Biases where asked for."""
        super().write_scalar(tag, value, *step)
        if self.cfg.TRAIN.get("WANDB", ""):
            self._wandb = self._wandb or WandbRun(self.cfg)
            self._wandb.log(tag, value, *step)

    def close_writer(self):
        """Close what scalars were written to."""
        super().close_writer()
        if self._wandb is not None:
            self._wandb.finish()
            self._wandb = None

    # ------------------------------------------------------------------ files
    def load_model(self, directory: str, epoch: Optional[int] = None):
        """Load the learner's weights, ours or official, from a training run's folder.

        Args:
            directory: Output folder of the training run, or a ``.safetensors`` file; empty loads nothing.
            epoch: Default: the best model if one was kept, else the last.

        Raises:
            FileNotFoundError: No such checkpoint.
            ValueError: It does not fit this method, its settings or (class-specific contexts) its classes; an epoch of
                a single file.
        """
        if not directory or self.learner is None:
            print(
                "No checkpoint is loaded: "
                + ("no folder is given" if self.learner is not None else "nothing is learned")
            )
            return
        is_file = str(directory).endswith(".safetensors")
        if is_file and epoch is not None:
            raise ValueError(
                f"{directory} is a single file: epoch {epoch} cannot be chosen from it. Leave out --load-epoch, or name the run's folder"
            )
        self._load_file(directory if is_file else find_checkpoint(directory, self.checkpoint_folder, epoch))

    def _load_file(self, path):
        weights, notes = read_with_notes(path)
        method, trained_on, trained_classes = origin_of(path, notes)
        name = type(self).__name__
        if method and method != name:
            raise ValueError(
                f"{path} was written by {method}, not by {name}; load it with --trainer {method}, or name a run of {name}"
            )
        if self.tied_to_classes and trained_classes and list(trained_classes) != list(self.classnames):
            raise ValueError(
                f"{path} serves no other classes than those it was trained on, {_few(trained_classes)}: {self.tied_to_classes}. "
                f"Here they are {_few(self.classnames)}"
            )
        try:
            weights = learner_weights(
                weights, self.learner, self.clip, self.official_names, self.official_ignored, str(path)
            )
        except ValueError as error:
            others = methods_by_names(os.path.basename(os.path.dirname(path)), weights)
            if not others or name in others:
                raise
            raise ValueError(f"{error}. By its entries it is of {' or '.join(others)}, not of {name}") from error
        self.learner.load_state_dict(weights)
        self.trained_on = trained_on
        print(f"Loaded {self.checkpoint_folder} from {path} (epoch {notes.get('epoch', '?')})")

    def write_result(self):
        """Write ``result.json`` into the output folder."""
        RunRecord.of(self).write(self.output_dir)

    def extra_results(self) -> dict:
        """Return what a method adds to ``result.json``."""
        return {}


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''} ({len(names)})"
