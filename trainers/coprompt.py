"""CoPrompt: coupled prompts kept consistent with frozen CLIP (Roy and Etemad, ICLR 2024)."""

from __future__ import annotations

import random
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..allowed import OneOf, Real
from ..clip_patches import encoders
from ..clip_patches.anatomy import anatomy
from ..clip_patches.class_texts import sentence_features
from ..clip_patches.stock import CLIP
from .base import Batch, unit
from .maple import CoupledPrompts, MaPLe
from .parts.described import Described, sentences_of

IMAGE_SHARE, TEXT_SHARE = 0.1, 0.2  # of the adapter's output in the features, constants of the authors' code
REDUCTION = 4  # of the adapters' hidden width


class FeatureAdapter(nn.Module):
    """A bottleneck whose output is blended into features.

    Args:
        width: Of the joint space, d.
        share: Of the output in the blend, 0 to 1.
    """

    def __init__(self, width: int, share: float):
        super().__init__()
        hidden = width // REDUCTION
        self.share = share
        self.fc = nn.Sequential(
            nn.Linear(width, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, width, bias=False), nn.ReLU()
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return ``(1 - share) features + share adapted``, (..., d)."""
        features = features.float()
        return (1 - self.share) * features + self.share * self.fc(features)


class AdaptedPrompts(CoupledPrompts):
    """Coupled prompts, and an adapter on the features of each tower; see :class:`CoupledPrompts`."""

    def __init__(self, clip: CLIP, ctx: Tensor, depth: int):
        super().__init__(clip, ctx, depth)
        width = anatomy(clip).joint_width
        self.adapter_image = FeatureAdapter(width, IMAGE_SHARE)
        self.adapter_text = FeatureAdapter(width, TEXT_SHARE)


class CoPrompt(Described, MaPLe):
    """MaPLe with feature adapters, consistent with frozen CLIP on another view and on a description of each class.

    ``CE + W [(1 - mean cos(t, e)) + (1 - mean cos(v, v0))]``: t, v are the adapted features of the class sentences and
    of the first view of the images; v0 are frozen features of the second view; e those of one description a class, the
    same index for all, drawn in each step. Evaluation reads no descriptions.

    The authors' table of N_CTX, PROMPT_DEPTH and W by data set beats even their command line; here it is
    ``configs/trainers/CoPrompt/datasets.yaml``, and the command line comes last. W and DISTILL are taken from
    ``TRAINER.W`` and ``TRAINER.DISTILL``, too, where the authors have them.
    """

    config_node = "CoPrompt"
    official_keys = {"W": "TRAINER.W", "DISTILL": "TRAINER.DISTILL"}
    options = {
        "N_CTX": 2,
        "CTX_INIT": "a photo of a",
        "PREC": "fp16",
        "PROMPT_DEPTH": 9,
        "W": 1.0,
        "DISTILL": "cosine",
        "DESCRIPTIONS": "",
    }
    allowed = {
        "W": Real("weight of the consistency with frozen CLIP", 0, 1e6),
        "DISTILL": OneOf("distance to frozen CLIP: cosine, or mean squared error", ("cosine", "mse")),
    }
    described_tests = False
    official_ignored = (r"model_distill\..+",)

    @classmethod
    def check_cfg(cls, cfg: Any) -> None:
        """Refuse loaders without a second view."""
        super().check_cfg(cfg)
        if cfg.DATALOADER.K_TRANSFORMS != 2:
            raise ValueError(
                f"CoPrompt compares two views of each image: DATALOADER.K_TRANSFORMS is {cfg.DATALOADER.K_TRANSFORMS}; "
                "set it to 2"
            )

    def build_learner(self) -> AdaptedPrompts:
        """Write the class sentences; start the prompts of layer 1 from the words that they replace."""
        s = self.settings
        return AdaptedPrompts(self.clip, self.write_sentences(s.N_CTX), s.PROMPT_DEPTH)

    @cached_property
    def description_features(self) -> Tensor:
        """Frozen features of the descriptions, unit length, (S, C, d).

        Raises:
            ValueError: There are none, or not as many of each class.
        """
        sentences = sentences_of(self)
        counts = [len(group) for group in sentences]
        if min(counts) < max(counts):
            most, least = (self.classnames[counts.index(count)] for count in (max(counts), min(counts)))
            raise ValueError(
                f"CoPrompt draws one index for all classes, and {most!r} has {max(counts)} descriptions, {least!r} "
                f"{min(counts)}; give as many for each"
            )
        return unit(torch.stack(sentence_features(self.clip, sentences), dim=1))

    def check_validation(self) -> None:
        """Refuse to train without descriptions, too, before anything is written."""
        super().check_validation()
        _ = self.description_features

    def begin_step(self) -> None:
        """Draw the step's description, from Python's generator as in the authors' code."""
        self.described = random.randint(0, len(self.description_features) - 1)

    def text_features(self) -> Tensor:
        """Return the adapted features of the prompted class sentences, normalised, (C, d)."""
        features = encoders.encode_text(self.clip, self.sentences, self.learner()[0])
        return unit(self.learner.adapter_text(features))

    def image_features(self, images: Tensor) -> Tensor:
        """Return the adapted features of the prompted images, normalised, (B, d)."""
        return unit(self.learner.adapter_image(encoders.encode_image(self.clip, images, self.learner()[1])))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy of the first view, and the distances to frozen CLIP."""
        first, second = batch.images.chunk(2)
        text, image = self.class_features(), self.image_features(first)
        with torch.no_grad():
            teacher = unit(encoders.encode_image(self.clip, second))
        weight, target = self.option(self.cfg, "W"), self.description_features[self.described]
        return {
            "ce": self.cross_entropy(self.logits(image, text), batch.labels[: len(first)]),
            "text": weight * self.distance(text, target),
            "image": weight * self.distance(image, teacher),
        }

    def distance(self, ours: Tensor, frozen: Tensor) -> Tensor:
        """Return the mean distance of normalised features from frozen ones, as DISTILL says."""
        if self.option(self.cfg, "DISTILL") == "cosine":
            return 1 - (ours * frozen).sum(dim=1).mean()
        return F.mse_loss(ours, frozen)
