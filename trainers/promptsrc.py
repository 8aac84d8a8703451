"""PromptSRC: deep prompts regularised towards frozen CLIP and averaged over training (Khattak et al., ICCV 2023)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..allowed import Real
from ..clip_patches import encoders
from ..clip_patches.class_texts import class_anchors, template_sentences
from ..clip_patches.imagenet_templates import IMAGENET_TEMPLATES
from .base import Batch, unit
from .ivlp import IVLP
from .parts.averaging import WeightAverage


def gaussian_weights(epochs: int, mean: float, std: float) -> list[float]:
    """Return the weights of the epochs 1..N in the average; they sum to 1."""
    weights = [_gaussian(epoch, mean, std) for epoch in range(1, epochs + 1)]
    return [w / sum(weights) for w in weights]


def _gaussian(epoch: int, mean: float, std: float) -> float:
    return math.exp(-0.5 * ((epoch - mean) / std) ** 2)


class PromptSRC(IVLP):
    """IVLP with three regularisers towards frozen CLIP and a Gaussian average of the epochs' weights."""

    options = {
        "N_CTX_VISION": 4,
        "N_CTX_TEXT": 4,
        "CTX_INIT": "a photo of a",
        "PREC": "fp16",
        "PROMPT_DEPTH_VISION": 9,
        "PROMPT_DEPTH_TEXT": 9,
        "TEXT_LOSS_WEIGHT": 25,
        "IMAGE_LOSS_WEIGHT": 10,
        "GPA_MEAN": 15,
        "GPA_STD": 1,
    }
    allowed = {
        "GPA_MEAN": Real("epoch that weighs most in the average of epochs", -1e6, 1e6),
        "GPA_STD": Real("width of the average's Gaussian in epochs", 1e-3, 1e6),
    }
    official_ignored = (r"prompt_learner\.ZS_image_encoder\..+",)

    @classmethod
    def check_cfg(cls, cfg: Any) -> None:
        """Refuse an average to which no epoch belongs."""
        super().check_cfg(cfg)
        s = cfg.TRAINER[cls.node()]
        if not any(_gaussian(epoch, s.GPA_MEAN, s.GPA_STD) for epoch in range(1, cfg.OPTIM.MAX_EPOCH + 1)):
            raise ValueError(
                f"TRAINER.{cls.node()}.GPA_MEAN {s.GPA_MEAN} and GPA_STD {s.GPA_STD} give none of the epochs 1 to "
                f"{cfg.OPTIM.MAX_EPOCH} a weight; allowed: a GPA_MEAN near these, or a wider GPA_STD"
            )

    def build_learner(self) -> nn.Module:
        """Compute the frozen class texts; start the average; build the prompts."""
        sentences = template_sentences(self.classnames, IMAGENET_TEMPLATES)
        self.text_anchors = class_anchors(self.clip, sentences)
        self.average = WeightAverage()
        self.epoch_weights = gaussian_weights(self.max_epoch, self.settings.GPA_MEAN, self.settings.GPA_STD)
        return super().build_learner()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy, and the distances of text features, image features and logits to frozen CLIP's."""
        text, image = self.class_features(), self.image_features(batch.images)
        logits = self.logits(image, text)
        with torch.no_grad():
            teacher = unit(encoders.encode_image(self.clip, batch.images))
            teacher_logits = self.logits(teacher, self.text_anchors)
        ours, theirs = F.log_softmax(logits, dim=1), F.log_softmax(teacher_logits, dim=1)
        divergence = F.kl_div(ours, theirs, reduction="sum", log_target=True)
        return {
            "ce": self.cross_entropy(logits, batch.labels),
            "text": self.settings.TEXT_LOSS_WEIGHT * F.l1_loss(text, self.text_anchors),
            "image": self.settings.IMAGE_LOSS_WEIGHT * F.l1_loss(image, teacher),
            "logits": divergence / logits.numel(),
        }

    def end_epoch(self) -> None:
        """Add the epoch to the average, which replaces the weights after the last epoch."""
        self.average.add(self.learner, self.epoch_weights[self.epoch])
        if self.epoch + 1 == self.max_epoch:
            self.average.load_into(self.learner)

    def trainer_state(self) -> dict:
        """Return the state that a resumed run needs beside the weights."""
        return {"average": self.average.state_dict()}

    def load_trainer_state(self, state: dict) -> None:
        """Restore :meth:`trainer_state`."""
        self.average.load_state_dict(state["average"])
