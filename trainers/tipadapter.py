"""TipAdapter: a cache of the training images' features beside zero-shot CLIP (Zhang et al., ECCV 2022)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from dassl.data.data_manager import build_data_loader
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from ..allowed import Flag, Real, Several, Whole
from ..clip_patches import encoders
from ..clip_patches.class_texts import class_anchors, fill
from ..clip_patches.imagenet_templates import SELECTED_TEMPLATES
from ..clip_patches.loading import autocast
from ..clip_patches.weights import load_data
from .base import PromptTrainer, unit
from .parts.checkpoints import learner_weights
from .parts.data import ImageLoader, full_validation, no_validation, validates
from .parts.schedules import StepCosine

logger = logging.getLogger(__name__)


class Cache(nn.Module):
    """Features of the training images as keys, their classes as values.

    Attributes:
        keys: (N, d); learned by Tip-Adapter-F.
        values: One-hot labels, (N, C).
        alpha: Weight of what the cache says.
        beta: Sharpness of the similarity to the keys.
    """

    values: Tensor
    alpha: Tensor
    beta: Tensor

    def __init__(self, keys: Tensor, values: Tensor, alpha: float, beta: float):
        super().__init__()
        self.keys = nn.Parameter(keys)
        self.register_buffer("values", values.bool())
        self.register_buffer("alpha", torch.tensor(float(alpha)))
        self.register_buffer("beta", torch.tensor(float(beta)))

    def set(self, beta: float, alpha: float) -> None:
        """Set the two numbers."""
        self.beta.fill_(beta)
        self.alpha.fill_(alpha)

    def similarity(self, features: Tensor, beta: Tensor | float) -> Tensor:
        """Sum over each class's keys K the similarities ``exp(-beta (1 - v K))`` to features v, (B, d); (B, C)."""
        return torch.exp(-beta * (1 - features @ self.keys.T)) @ self.values.float()

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits of the cache for normalised features, (B, d); (B, C)."""
        return self.alpha * self.similarity(features, self.beta)

    @torch.no_grad()
    def search(
        self, features: Tensor, labels: Tensor, logits: Tensor, scale: Sequence[float], steps: Sequence[int]
    ) -> tuple[float, float]:
        """Choose beta and alpha by accuracy, on a grid from 0.1 to the scales; of equals, the first.

        Args:
            features: Normalised, (B, d).
            labels: (B,).
            logits: What the cache's are added to, (B, C).
            scale: Ends of beta and alpha, not reached.
            steps: Numbers of values of beta and alpha.
        """
        betas, alphas = ([0.1 + i * (end - 0.1) / count for i in range(count)] for end, count in zip(scale, steps))
        best, chosen = -1, (betas[0], alphas[0])
        for beta in betas:
            similarity = self.similarity(features, beta)
            for alpha in alphas:
                right = int(((logits + alpha * similarity).argmax(dim=1) == labels).sum())
                if right > best:
                    best, chosen = right, (beta, alpha)
        return chosen


class TipAdapter(PromptTrainer):
    """Add ``alpha exp(-beta (1 - v K)) V`` to zero-shot CLIP's logits, equation 5, and learn K (Tip-Adapter-F).

    FINETUNE False is the training-free Tip-Adapter: one epoch passes without a step. K are the mean features of
    AUGMENT_EPOCH augmented views of each training image. After the last epoch, beta and alpha are chosen by the
    few-shot validation images; without any, they stay as they began. The rate follows a cosine with every step;
    LR_SCHEDULER and the warm-up of OPTIM are not used. As in Dassl, the last batch of an epoch is left out where it is
    not full; the authors keep it. Temperature: CLIP's own.

    OFFICIAL does as the authors' code does: it keeps the epoch with the best accuracy on the **test** images, chooses
    beta and alpha by the full validation split (on ImageNet, by the test images), and falls back on the first beta and
    alpha where these are better on the test images. Its results are maxima over test results.
    """

    options = {
        "PREC": "fp32",
        "FINETUNE": True,
        "AUGMENT_EPOCH": 10,
        "INIT_ALPHA": 1.17,
        "INIT_BETA": 1.0,
        "SEARCH_HP": True,
        "SEARCH_SCALE": [7.0, 3.0],
        "SEARCH_STEP": [200, 20],
        "OFFICIAL": False,
    }
    allowed = {
        "FINETUNE": Flag("learn the keys; False: the training-free Tip-Adapter"),
        "AUGMENT_EPOCH": Whole("views of each training image behind its key", 1, 10_000),
        "INIT_ALPHA": Real("weight of the cache", 0, 1e6),
        "INIT_BETA": Real("sharpness of the similarity to the keys", 0, 1e6),
        "SEARCH_HP": Flag("choose beta and alpha by validation images in the end"),
        "SEARCH_SCALE": Several("ends of the search of beta and alpha", Real("", 0.1, 1e6), 2),
        "SEARCH_STEP": Several("values of beta and alpha that are tried", Whole("", 1, 10_000), 2),
        "OFFICIAL": Flag("choose epoch, beta and alpha as the authors' code does, by test images too"),
    }
    checkpoint_folder = "tip_adapter"
    official_names = (("weight", "keys"),)
    tied_to_classes = "its cache holds images of these classes alone"
    more_than_similarity = "a cache of training images is added"
    schedule_per_step = True

    def build_data_loader(self) -> None:
        """Build the loaders; without fine-tuning, one epoch is enough."""
        super().build_data_loader()
        if not self.settings.FINETUNE:
            self.max_epoch = 1

    def build_learner(self) -> Cache:
        """Compute the class texts and the cache."""
        templates = SELECTED_TEMPLATES if self.cfg.DATASET.NAME.startswith("ImageNet") else [self.template]
        by_template = [class_anchors(self.clip, [[s] for s in fill(each, self.classnames)]) for each in templates]
        self.text_anchors = unit(torch.stack(by_template).mean(dim=0))
        self._best: dict[str, Any] = {"accuracy": -1.0, "keys": None}
        self._test: tuple[Tensor, Tensor] | None = None
        if self.task is not None:  # the checkpoint brings the cache
            keys, labels = self.text_anchors.new_zeros(1, self.anatomy.joint_width), torch.zeros(1, dtype=torch.long)
        else:
            images = self.dm.dataset.train_x
            keys, labels = self.keys_of(self._views(images)), torch.tensor([item.label for item in images])
        values = labels[:, None] == torch.arange(len(self.classnames))
        cache = Cache(keys, values, self.settings.INIT_ALPHA, self.settings.INIT_BETA)
        return cache.requires_grad_(self.settings.FINETUNE)

    def _views(self, images: Sequence[Any]) -> Iterable[Iterable[Tensor]]:
        """Yield passes over the training images in order, each a series of batches of augmented views."""
        loader = build_data_loader(
            self.cfg,
            data_source=images,
            batch_size=self.cfg.DATALOADER.TEST.BATCH_SIZE,
            tfm=self.train_loader_x.dataset.transform,
            is_train=False,
            dataset_wrapper=ImageLoader,
        )
        for _ in range(self.settings.AUGMENT_EPOCH):
            yield (batch["img"].to(self.device) for batch in loader)

    @torch.no_grad()
    def keys_of(self, passes: Iterable[Iterable[Tensor]]) -> Tensor:
        """Return the mean features of each image over some passes, normalised, (N, d)."""
        views = [torch.cat([encoders.encode_image(self.clip, images) for images in each]) for each in passes]
        return unit(torch.stack(views).mean(dim=0))

    def build_schedule(self) -> LRScheduler:
        """Return a cosine over all steps."""
        if not self.settings.FINETUNE:
            self.scaler = None  # it refuses an optimiser that is never given a gradient
        return StepCosine(self.optim, 1 if self.task is not None else self.max_epoch * len(self.train_loader_x))

    def text_features(self) -> Tensor:
        """Return the frozen class texts, (C, d)."""
        return self.text_anchors

    def classify(self, images: Tensor) -> Tensor:
        """Return the logits of class texts and cache together, (B, C)."""
        return self._logits(self.image_features(images))

    def _logits(self, features: Tensor) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):
            return self.logits(features, self.text_anchors) + self.learner(features)

    # ------------------------------------------------------------------ choice of epoch, beta and alpha
    def end_epoch(self) -> None:
        """Search beta and alpha after the last epoch; OFFICIAL, go back to the best epoch by test images first."""
        s, learner = self.settings, self.learner
        last = self.epoch + 1 == self.max_epoch
        if s.OFFICIAL and s.FINETUNE:
            accuracy = self._accuracy(*self._test_features())
            if accuracy > self._best["accuracy"]:
                self._best = {"accuracy": accuracy, "keys": learner.keys.detach().clone()}
            if last:
                learner.keys.data.copy_(self._best["keys"])
        if last and s.SEARCH_HP:
            self._search()

    def _search(self) -> None:
        s, learner, dataset = self.settings, self.learner, self.dm.dataset
        if s.OFFICIAL:
            images = full_validation(self.cfg)
            chosen_by = self._features(images) if images is not None else self._test_features()
        elif self.val_loader is not None and validates(dataset):
            chosen_by = self._features(self.val_loader)
        else:
            logger.info("%s: beta and alpha stay %g and %g", no_validation(dataset), s.INIT_BETA, s.INIT_ALPHA)
            return
        features, labels = chosen_by
        beta, alpha = learner.search(
            features, labels, self.logits(features, self.text_anchors), s.SEARCH_SCALE, s.SEARCH_STEP
        )
        learner.set(beta, alpha)
        if s.OFFICIAL and s.FINETUNE and self._accuracy(*self._test_features()) < self._best["accuracy"]:
            learner.set(s.INIT_BETA, s.INIT_ALPHA)
        logger.info("%d images choose beta %.4g and alpha %.4g", len(labels), beta, alpha)

    @torch.no_grad()
    def _features(self, loader: Iterable[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
        """Return normalised features, (B, d), and labels, (B,), of all images of a loader."""
        with autocast(self.precision, self.device):
            parts = [(self.image_features(batch["img"].to(self.device)), batch["label"]) for batch in loader]
        features, labels = zip(*parts)
        return torch.cat(features), torch.cat(labels).to(self.device)

    def _test_features(self) -> tuple[Tensor, Tensor]:
        self._test = self._test or self._features(self.test_loader)
        return self._test

    @torch.no_grad()
    def _accuracy(self, features: Tensor, labels: Tensor) -> float:
        return float((self._logits(features).argmax(dim=1) == labels).float().mean())

    # ------------------------------------------------------------------ state and checkpoints
    def trainer_state(self) -> dict:
        """Return the state that a resumed run needs beside the weights."""
        return self._best

    def load_trainer_state(self, state: dict) -> None:
        """Restore :meth:`trainer_state`."""
        self._best = state

    def before_load(self, weights: Mapping[str, Tensor]) -> None:
        """Take as many images as a checkpoint's cache has."""
        for name, ours in (("keys", self.learner.keys), ("values", self.learner.values)):
            theirs = weights.get(name)
            if isinstance(theirs, Tensor) and theirs.dim() == 2:
                ours.data = ours.new_zeros(len(theirs), ours.shape[1])

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load a run's cache, or one of the authors' code: the folder with its ``values_<shots>shots.pt``."""
        shots = self.cfg.DATASET.NUM_SHOTS
        files = [f"{'best_F' if self.settings.FINETUNE else 'keys'}_{shots}shots.pt", f"values_{shots}shots.pt"]
        paths = [Path(directory, name) for name in files]
        if not directory or not all(path.is_file() for path in paths):
            super().load_model(directory, epoch)
            return
        keys, values = map(load_data, paths)
        keys = keys if self.settings.FINETUNE else keys.T
        weights = {**self.learner.state_dict(), "keys": keys, "values": values}
        self.before_load(weights)
        self.learner.load_state_dict(learner_weights(weights, self.learner, self.clip, source=str(paths[0])))
        print(f"Loaded {self.checkpoint_folder} from {' and '.join(map(str, paths))}")
