"""DePT on CoOp: the context is trained by a classifier of its own channels as well (Zhang et al., CVPR 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from dassl.optim import build_optimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from ..allowed import Flag, Real
from ..clip_patches import encoders
from ..clip_patches.anatomy import logit_scale
from ..dassl_keys import either
from .base import Batch, unit
from .coop import CoOp
from .parts.prompts import Context


class Channels(nn.Module):
    """A scale and a shift of each channel; at the start they change nothing."""

    def __init__(self, width: int):
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, features: Tensor) -> Tensor:
        """Return the transformed features, (..., d)."""
        return features * self.scale + self.bias


class DecoupledContext(Context):
    """A context, and a linear classifier of transformed channels of both towers' features.

    Args:
        ctx: Start of the context.
        width: Width of the joint space, d.
        classes: Classes of the training, C.
    """

    def __init__(self, ctx: Tensor, width: int, classes: int):
        super().__init__(ctx)
        self.image, self.text = Channels(width), Channels(width)
        self.head = nn.Linear(width, classes)


class DePT(CoOp):
    """Minimise ``WEIGHT`` times the head's cross-entropy plus ``1 - WEIGHT`` times CoOp's.

    The head classifies the raw features of the images and, with the same labels, of their classes' texts, each after a
    scale and a shift of its channels; it takes up what is special to the training's classes. A test on these fuses the
    logits by the same weights, on other classes it reads CoOp's alone.

    Written after the paper and checked against recorded numbers. The authors give a head to base classes and ImageNet,
    here all training has one. Options are in CoOp's node, or where the authors have them.
    """

    config_node = "COOP"
    official_trainer = "ExtrasLinearProbeCoOp"
    options = {**CoOp.options, "WEIGHT": 0.7, "LR_FACTOR": 6.5, "FUSION": True}
    allowed = {
        "WEIGHT": Real("share of the head in loss and fusion", 0, 1),
        "LR_FACTOR": Real("learning rate of the head over that of the context", 0, 1000, above=True),
        "FUSION": Flag("tests on the classes of the training read the head, too"),
    }
    checkpoint_folder = "PromptLearner"
    official_names = (
        *CoOp.official_names,
        (r"film_lp_img\.(.+)", r"image.\1"),
        (r"film_lp_text\.(.+)", r"text.\1"),
        (r"linear_probe_proj\.(.+)", r"head.\1"),
    )

    @classmethod
    def check_cfg(cls, cfg: Any) -> None:
        """Refuse two values for one option."""
        super().check_cfg(cfg)
        cls.weight_of(cfg)

    @classmethod
    def weight_of(cls, cfg: Any) -> float:
        """Return the head's share, which the authors' configs have in a node of its own."""
        return either(cfg, f"TRAINER.{cls.node()}.WEIGHT", "TRAINER.LINEAR_PROBE.WEIGHT", cls.options["WEIGHT"])

    def build_learner(self) -> DecoupledContext:
        """Build CoOp's context and the head."""
        return DecoupledContext(super().build_learner().ctx, self.anatomy.joint_width, len(self.classnames))

    def build_optimizer(self) -> Optimizer:
        """Return Dassl's optimiser, the head's rate LR_FACTOR times the context's.

        The authors' STAGED_LR and NEW_LAYERS say the same of their modules.
        """
        settings = self.cfg.OPTIM.clone()
        settings.defrost()
        settings.STAGED_LR = False
        optimizer = build_optimizer(self.learner, settings)
        group = optimizer.param_groups[0]
        rest = {**group, "params": [p for p in group["params"] if p is not self.learner.ctx]}
        group["params"] = [self.learner.ctx]
        optimizer.add_param_group({**rest, "lr": group["lr"] * self.settings.LR_FACTOR})
        return optimizer

    def before_load(self, weights: Mapping[str, Tensor]) -> None:
        """Give the head as many classes as the checkpoint's; on other classes it is kept and not read."""
        head = next((weights[name] for name in ("head.weight", "linear_probe_proj.weight") if name in weights), None)
        if head is not None and head.shape != self.learner.head.weight.shape:
            self.learner.head = nn.Linear(head.shape[1], head.shape[0]).to(self.device)

    def before_train(self) -> None:
        """Refuse to train the head of other classes.

        Raises:
            ValueError: MODEL.INIT_WEIGHTS was trained on another number of classes.
        """
        if self.learner.head.out_features != len(self.classnames):
            raise ValueError(
                f"MODEL.INIT_WEIGHTS {self.cfg.MODEL.INIT_WEIGHTS} holds a head of {self.learner.head.out_features} "
                f"classes, and here are {len(self.classnames)}; name a checkpoint of these classes, or none"
            )
        super().before_train()

    @property
    def fuses(self) -> bool:
        """Whether a test reads the head."""
        asked = self.settings.FUSION and self.cfg.TRAINER.LINEAR_PROBE.TEST_TIME_FUSION
        return asked and self.knows_classes and self.learner.head.out_features == len(self.classnames)

    def text_features(self) -> Tensor:
        """Return the normalised features of the classes, (C, d); fused, with the head's rows behind them."""
        text = super().text_features()
        if not self.fuses:
            return text
        head = self.learner.head
        return torch.cat([text, head.weight.float(), head.bias.float()[:, None]], dim=1)  # (C, 2 d + 1)

    def image_features(self, images: Tensor) -> Tensor:
        """Return the normalised features of images, (B, d).

        Fused, the channels that the head reads are behind them, weighted so that the products with
        :meth:`text_features` are the fused logits.
        """
        raw = encoders.encode_image(self.clip, images).float()
        if not self.fuses:
            return unit(raw)
        weight = self.weight_of(self.cfg)
        share = weight / logit_scale(self.clip)
        channels = self.learner.image(raw)
        return torch.cat([(1 - weight) * unit(raw), share * channels, share.expand(len(raw), 1)], dim=1)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy of similarities, and that of the head on images and their classes' texts."""
        weight, learner = self.weight_of(self.cfg), self.learner
        with torch.no_grad():
            raw = encoders.encode_image(self.clip, batch.images).float()
        text = self.raw_text_features().float()
        channels = torch.cat([learner.image(raw), learner.text(text[batch.labels])])  # (2 B, d)
        head = F.cross_entropy(learner.head(channels).float(), batch.labels.repeat(2))
        similarity = self.cross_entropy(self.logits(unit(raw), unit(text)), batch.labels)
        return {"ce": (1 - weight) * similarity, "head": weight * head}
