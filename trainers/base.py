"""PromptTrainer, the base class of all methods."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import dassl
import torch
import torch.nn.functional as F
from dassl.engine import TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..clip_patches import encoders
from ..clip_patches.anatomy import Anatomy, anatomy, logit_scale
from ..clip_patches.class_texts import read_descriptions
from ..clip_patches.loading import autocast, load_clip, set_precision
from ..clip_patches.stock import CLIP
from ..clip_patches.text_source import TextSource
from ..record import measure
from ..record.history import Step
from ..record.recorder import Recorder
from .parts import ranks
from .parts.batch import Batch, Task
from .parts.checkpoints import Renames
from .parts.data import check_place, load_data, no_validation, validates
from .parts.declaration import Declaration
from .parts.gradients import backpropagate
from .parts.loading import load_learner
from .parts.origin import Origin
from .parts.resumable import ResumableTrainer

logger = logging.getLogger(__name__)


def unit(features: Tensor) -> Tensor:
    """Normalise features in fp32."""
    return F.normalize(features.float(), dim=-1)


class PromptTrainer(Declaration, ResumableTrainer):
    """Train a learner around a frozen CLIP.

    A method declares its ``options``, builds a learner, and computes ``text_features``, ``image_features`` and its
    ``losses``; methods whose text depends on the image override ``classify`` instead.

    Attributes:
        official_names: (pattern, replacement) pairs from the names in official checkpoints to the learner's.
        official_ignored: Patterns of entries in official checkpoints that are not loaded.
        text_needs_image: The class texts depend on the image, so no ``text_features`` can be kept.
        more_than_similarity: What the logits hold beside the similarity of image features and class texts; empty if
            nothing.
        tied_to_classes: Why the learner serves only the classes it was trained on; empty if it serves any.
        loaded: Origin of the weights that were loaded; None while the learner learns the classes at hand itself.
        guides: Terms of the losses that are not minimised; ``guide_gradients`` holds their gradients by the learner's
            parameters, for `change_gradients`.
        batch_coupled: Why a batch cannot be taken in parts, nor by several processes; empty if it can.
        schedule_per_step: The learning rate follows the schedule after each step, not after each epoch.
        text_source: Source of the class texts, once they were read; None for a method that describes no classes.
        clip: Stock CLIP, frozen, in eval mode; fp32 until the learner is built, then in the precision of the run.
    """

    official_names: Renames = ()
    official_ignored: Sequence[str] = ()
    text_needs_image: Any = False  # a bool, or a property
    more_than_similarity = ""
    tied_to_classes: Any = ""  # a str, or a property
    guides: Sequence[str] = ()
    guide_gradients: Mapping[str, Sequence[Tensor]]
    batch_coupled = ""
    schedule_per_step = False
    text_source: TextSource | None = None
    clip: CLIP

    # ------------------------------------------------------------------ what a method defines
    def build_learner(self) -> nn.Module | None:
        """Return the module that holds the method's parameters; ``self.clip`` is still fp32."""
        raise NotImplementedError

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms of the objective by name; their sum is minimised. Default: cross-entropy."""
        return {"ce": self.cross_entropy(self.classify(batch.images), batch.labels)}

    def text_features(self) -> Tensor:
        """Return the normalised features of the classes, (C, d)."""
        raise NotImplementedError

    def image_features(self, images: Tensor) -> Tensor:
        """Return the normalised features of images, (B, d). Default: stock CLIP's."""
        return unit(encoders.encode_image(self.clip, images))

    def classify(self, images: Tensor) -> Tensor:
        """Return the logits of images, (B, C)."""
        return self.logits(self.image_features(images), self.class_features())

    def build_optimizer(self) -> Optimizer:
        """Return the optimiser of the learner. Default: Dassl's, as ``cfg.OPTIM`` says, with Adam's epsilon EPS."""
        optimizer = build_optimizer(self.learner, self.cfg.OPTIM)
        for group in optimizer.param_groups:
            if "eps" in group:  # of the Adam family; Dassl's does not take it
                group["eps"] = self.cfg.OPTIM.EPS
        return optimizer

    def build_schedule(self) -> LRScheduler:
        """Return the schedule of the learning rate. Default: Dassl's, as ``cfg.OPTIM`` says."""
        return build_lr_scheduler(self.optim, self.cfg.OPTIM)

    def begin_step(self) -> None:
        """Prepare the learner for a training step, before its losses. Default: nothing."""

    def prepare_parts(self, parts: list[Batch]) -> list[Batch]:
        """Find out, without gradients, what each part of a batch needs of the whole one. Default: nothing.

        Args:
            parts: Those of this process; see `parts/ranks.py` for what the other processes have.

        Returns:
            The parts with the findings as their ``prepared``.
        """
        return parts

    def change_gradients(self) -> None:
        """Change the gradients of a step before the weights move. Default: nothing."""

    def end_epoch(self) -> None:
        """Change the weights at the end of an epoch, before validation and checkpoint. Default: nothing."""

    def named_weights(self, weights: Mapping[str, Tensor], notes: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Return a checkpoint's weights under names that `official_names` knows. Default: as they are.

        Args:
            weights: As the file has them; nested dicts are flattened, with dots between the names.
            notes: What the file says of them, see :func:`.checkpoints.read_with_notes`.
        """
        return weights

    def before_load(self, weights: Mapping[str, Tensor]) -> None:
        """Prepare the learner for a checkpoint whose shapes depend on its training task. Default: nothing."""

    def extra_results(self) -> dict:
        """Return the method's own fields of ``result.json``."""
        return {}

    # ------------------------------------------------------------------ construction
    def __init__(self, cfg: Any, task: Task | None = None):
        """Build a trainer.

        Args:
            cfg: Dassl's config.
            task: Build for inference on these classes: no data set, no loaders.
        """
        ranks.check()
        self.task = task
        self.loaded: Origin | None = None
        self.recorder = Recorder(self)
        self.batch_accuracy: float | None = None
        self.auto_micro_batch: int | None = None
        self._classes_fixed = False
        self._class_features: Tensor | None = None
        super().__init__(cfg)

    @property
    def settings(self) -> Any:
        """The method's node of the config."""
        return self.cfg.TRAINER[self.node()]

    @property
    def classnames(self) -> Sequence[str]:
        """Names of the classes, in order of their labels."""
        return self.dm.dataset.classnames

    @property
    def template(self) -> str:
        """The hand-written prompt: the config's, else the data set's."""
        return self.cfg.DATASET.TEMPLATE or getattr(self.dm.dataset, "template", "a photo of a {}.")

    @property
    def knows_classes(self) -> bool:
        """Whether the classes at hand are those of the training, for methods that evaluate others in another way.

        Where nobody has written down what a checkpoint was trained on, all classes but the new half count as known.
        """
        if self.loaded is None:
            return True
        if self.loaded.classnames and self.loaded.trained_on:
            same_data = self.loaded.trained_on.get("dataset") == self.cfg.DATASET.NAME
            return same_data and list(self.loaded.classnames) == list(self.classnames)
        return self.cfg.DATASET.SUBSAMPLE_CLASSES != "new"

    @cached_property
    def anatomy(self) -> Anatomy:
        """Sizes of the CLIP."""
        return anatomy(self.clip)

    def descriptions(self) -> list[list[str]] | None:
        """Return the sentences of each class, and log their source; None where templates are to be used."""
        source = self.text_source = self.find_text_source(self.cfg)
        if source is None:
            return None
        if source.file is None:
            logger.info("Class texts: %s, hand-written templates instead of written descriptions", source)
            return None
        sentences = read_descriptions(source.file, self.cfg.DATASET.NAME, self.classnames)
        count = sum(map(len, sentences))
        logger.info("Class texts: %s, %d sentences for %d classes, from %s", source, count, len(sentences), source.file)
        return sentences

    def build_data_loader(self) -> None:
        """Load CLIP, fit the input size to it, then build the loaders."""
        if self.task is None:
            check_place(self.cfg)
        measure.reset_peak_memory(self.device)
        self.precision = self.settings.PREC
        self.clip = load_clip(self.cfg.MODEL.BACKBONE.NAME, "fp32", self.device)
        size = (self.anatomy.input_resolution,) * 2
        given = tuple(self.cfg.INPUT.SIZE)
        if given != size:
            logger.info("INPUT.SIZE %s does not fit backbone %s: using %s", given, self.cfg.MODEL.BACKBONE.NAME, size)
            self.cfg = self.cfg.clone()
            self.cfg.defrost()
            self.cfg.INPUT.SIZE = size
            self.cfg.freeze()
        if self.task is None:
            self.dm = load_data(self.cfg)
            for name in ("train_loader_x", "train_loader_u", "val_loader", "test_loader"):
                setattr(self, name, getattr(self.dm, name))
            self.num_source_domains = self.dm.num_source_domains
            self.num_classes, self.lab2cname = self.dm.num_classes, self.dm.lab2cname
        else:
            self.dm = SimpleNamespace(dataset=self.task)
            self.train_loader_x = self.train_loader_u = self.val_loader = self.test_loader = None
            self.num_classes, self.lab2cname = len(self.classnames), dict(enumerate(self.classnames))

    def build_model(self) -> None:
        """Build the learner, then cast CLIP to the precision of the run."""
        self.learner = self.build_learner()
        if self.learner is not None and not any(p.numel() for p in self.learner.parameters()):
            raise ValueError(
                f"{type(self).__name__} has nothing to learn with these settings of TRAINER.{self.node()}: its learner "
                "holds no parameter"
            )
        set_precision(self.clip, self.precision)
        self._check_ops()
        self.scaler = None
        if self.learner is None:
            return
        self.learner.float().to(self.device)
        if self.cfg.MODEL.INIT_WEIGHTS:
            load_learner(self, self.cfg.MODEL.INIT_WEIGHTS)
        if self.device.type == "cuda" and self.precision == "amp":
            self.scaler = torch.amp.GradScaler("cuda")
        self.model = self.learner
        self.optim = self.build_optimizer()
        self._check_optimizer()
        self.sched = self.build_schedule()
        self.register_model(self.checkpoint_folder, self.learner, self.optim, self.sched)
        logger.info(
            "%s learns %s parameters on a frozen %s, precision %s, on %s",
            type(self).__name__,
            f"{sum(p.numel() for p in self.learner.parameters() if p.requires_grad):,}",
            self.cfg.MODEL.BACKBONE.NAME,
            self.precision,
            measure.device_name(self.device),
        )

    def _check_optimizer(self) -> None:
        """Refuse an optimiser that would leave some of the learner as it is, or move anything else."""
        optimised = {id(p) for group in self.optim.param_groups for p in group["params"]}
        wanted = {id(p): name for name, p in self.learner.named_parameters() if p.requires_grad}
        left_out = [name for key, name in wanted.items() if key not in optimised]
        foreign = len(optimised - wanted.keys() - {id(p) for p in self.learner.parameters()})
        if left_out or foreign:
            what = f"would not train {', '.join(left_out[:6])}" if left_out else f"would train {foreign} other tensors"
            staged = "; OPTIM.STAGED_LR True reaches tensors in submodules only: set it to False"
            raise ValueError(f"Dassl's optimiser {what}{staged if self.cfg.OPTIM.STAGED_LR else ''}")

    def _check_ops(self) -> None:
        """Fail early and clearly where a device lacks half-precision kernels."""
        if self.precision != "fp16" or self.device.type == "cuda":
            return
        try:
            with torch.no_grad():
                encoders.encode_image(self.clip, torch.zeros(1, 3, *self.cfg.INPUT.SIZE))
        except (RuntimeError, NotImplementedError) as error:
            raise ValueError(f"PREC fp16 cannot run on {self.device}: {error}; use PREC amp or fp32 there") from error

    # ------------------------------------------------------------------ training
    def train(self) -> None:
        """Train and test; a method that learns nothing is only tested."""
        if self.learner is None:
            logger.info("%s learns nothing: testing it", type(self).__name__)
            self.test()
        else:
            super().train()

    def check_validation(self) -> None:
        """Raise ValueError if the epoch is to be chosen by validation and the data set has no images for it.

        Dassl takes the test images then, and so chooses the epoch by the images that it reports on.
        """
        if self.cfg.TEST.FINAL_MODEL == "best_val" and not self.cfg.TEST.NO_TEST and not validates(self.dm.dataset):
            raise ValueError(
                f"TEST.FINAL_MODEL is best_val, but {no_validation(self.dm.dataset)}. Set TEST.FINAL_MODEL last_step, "
                "or give it some"
            )

    def before_train(self) -> None:
        """Refuse to choose an epoch by the test images; then see :meth:`ResumableTrainer.before_train`."""
        self.check_validation()
        self.loaded = None
        self._check_parts()
        super().before_train()

    def _check_parts(self) -> None:
        """Refuse to cut batches that cannot be cut, or into more parts than there are images."""
        parts = "in parts (TRAIN.MICRO_BATCH)" if self.cfg.TRAIN.get("MICRO_BATCH") else ""
        parts = f"by {ranks.count()} processes" if ranks.count() > 1 else parts
        if parts and self.batch_coupled:
            raise ValueError(f"{type(self).__name__} cannot take a batch {parts}: {self.batch_coupled}")
        size = min(self.cfg.DATALOADER.TRAIN_X.BATCH_SIZE, len(self.dm.dataset.train_x))
        if size < ranks.count():
            raise ValueError(
                f"a batch of {size} images is too small for {ranks.count()} processes: raise "
                "DATALOADER.TRAIN_X.BATCH_SIZE, or start fewer"
            )

    def run_epoch(self) -> None:
        """Run one epoch and append its averages to the history."""
        with self.recorder.epoch(self.epoch + 1, self.get_current_lr()):
            super().run_epoch()

    def parse_batch_train(self, batch: dict) -> Batch:
        """Move a batch of Dassl's loader to the device, views concatenated."""
        images = batch["img"] if isinstance(batch["img"], list) else [batch["img"]]
        img0 = batch.get("img0")
        return Batch(
            images=torch.cat([view.to(self.device) for view in images]),
            labels=batch["label"].to(self.device).repeat(len(images)),
            views=len(images),
            img0=None if img0 is None else img0.to(self.device),
            index=batch.get("index"),
        )

    def forward_backward(self, batch: dict) -> dict[str, float]:
        """Take one step of optimisation.

        Returns:
            Numbers for the log: the loss, its terms if there are several, and the batch's accuracy.

        Raises:
            FloatingPointError: The loss is not finite; names the terms, epoch and batch. The weights are unchanged.
        """
        self.begin_step()
        self.model_zero_grad()
        totals = backpropagate(self, self.parse_batch_train(batch))
        if not math.isfinite(totals.loss):
            raise FloatingPointError(
                f"the loss is not finite in epoch {self.epoch + 1}, batch {self.batch_idx + 1}: "
                + ", ".join(f"{name} {term:.4g}" for name, term in totals.terms.items())
                + ". Lower OPTIM.LR, or use PREC fp32"
            )
        self.change_gradients()
        if self.scaler is None:
            self.model_update()
        else:
            self.scaler.step(self.optim)
            self.scaler.update()
        if self.schedule_per_step or self.batch_idx + 1 == self.num_batches:
            self.update_lr()

        self.recorder.add_step(Step(totals.loss, totals.terms, totals.accuracy))
        summary = {"loss": totals.loss}
        if len(totals.terms) > 1:
            summary.update({f"loss_{name}": term for name, term in totals.terms.items()})
        if totals.accuracy is not None:
            summary["acc"] = totals.accuracy
        return summary

    def scaled(self, loss: Tensor) -> Tensor:
        """Scale the loss for fp16 (GradScaler); unchanged otherwise."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Return scaled cosine similarities in fp32, (B, C).

        Args:
            image_features: Normalised, (B, d).
            text_features: Normalised, (C, d), or (B, C, d) when they depend on the image.
        """
        with torch.autocast(self.device.type, enabled=False):
            image_features, text_features = image_features.float(), text_features.float()
            scale = logit_scale(self.clip)
            if text_features.dim() == 3:
                return scale * torch.einsum("bd,bcd->bc", image_features, text_features)
            return scale * image_features @ text_features.T

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy, and keep the batch's accuracy for the log."""
        self.batch_accuracy = compute_accuracy(logits.detach(), labels)[0].item()
        return F.cross_entropy(logits, labels)

    def after_epoch(self) -> None:
        """Run the method's end of epoch, then validate and save."""
        self.end_epoch()
        # Before the checkpoint, so that a resumed run finds the history of every epoch that it does not repeat.
        self.recorder.write()
        super().after_epoch()

    def after_train(self) -> None:
        """Test and write the finished record."""
        self.recorder.end_training(self.max_epoch - self.start_epoch)
        if not hasattr(dassl, "IMPLEMENTATION"):  # real Dassl says "Finish training"; MaPLe's parser waits for this
            print("Finished training")
        super().after_train()
        self.recorder.finish(self._deployed_checkpoint())

    # ------------------------------------------------------------------ evaluation
    @contextmanager
    def fixed_classes(self, features: Tensor | None = None) -> Iterator[None]:
        """Compute the classes' features once for all images inside the block, or take them from the caller.

        Args:
            features: Normalised, (C, d).
        """
        self._class_features, self._classes_fixed = features, True
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

    def model_inference(self, input: Tensor) -> Tensor:
        """Return the logits of a batch of images, (B, C); each process computes its share."""
        own = input[ranks.share(len(input))]
        if len(own):
            with autocast(self.precision, self.device):
                logits = self.classify(own)
        else:
            logits = torch.zeros(0, len(self.classnames), device=self.device)
        logits = ranks.gather(logits)
        self.recorder.predictions.add_logits(logits)
        return logits

    def parse_batch_test(self, batch: dict) -> tuple[Tensor, Tensor]:
        """Return images and labels on the device."""
        images, labels = super().parse_batch_test(batch)
        self.recorder.predictions.add_images(labels, batch.get("impath", ()))
        return images, labels

    @torch.no_grad()
    def test(self, split: str | None = None, **ignored: Any) -> float:
        """Evaluate on the test or validation images; write the record and, after a test, each image's prediction.

        Args:
            split: ``val`` or ``test``; default cfg.TEST.SPLIT.
            ignored: Keywords of forks of Dassl.

        Returns:
            The first of the evaluator's results, the accuracy in percent.

        Raises:
            ValueError: ``val`` without validation images; Dassl would take the test images.
        """
        split = split or self.cfg.TEST.SPLIT
        if split == "val" and self.val_loader is None:
            raise ValueError(f"{no_validation(self.dm.dataset)}: nothing can be said of split 'val'")
        with self.recorder.evaluation(), self.fixed_classes():
            accuracy = super().test(split)
        self.recorder.add_evaluation("val" if split == "val" else "test", accuracy)
        if self.recorder.status == "finished":  # after training, Dassl closes the writer itself
            self.close_writer()
        return accuracy

    # ------------------------------------------------------------------ scalars and checkpoints
    def write_scalar(self, tag: str, value: float, *step: int) -> None:
        """Log a number to tensorboard (Dassl's part), and to Weights & Biases if the config names a project."""
        if hasattr(TrainerX, "write_scalar"):  # forks of Dassl lack it
            super().write_scalar(tag, value, *step)
        self.recorder.log_scalar(tag, value, *step)

    def close_writer(self) -> None:
        """Close tensorboard's writer and the run at Weights & Biases."""
        if hasattr(TrainerX, "close_writer"):
            super().close_writer()
        self.recorder.close()
