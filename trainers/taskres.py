"""TaskRes: a residual for each class on its frozen text feature (Yu et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..allowed import OneOf, Real
from ..clip_patches.class_texts import literal_sentences, text_features
from ..clip_patches.imagenet_templates import SELECTED_TEMPLATES
from .base import PromptTrainer, unit

SAME = 0.999  # cosine between the text features of one class, computed in two precisions


class Residuals(nn.Module):
    """A residual for each class, and the text features that it is added to.

    Args:
        base: Text features, not normalised, (C, d).
    """

    base_text_features: Tensor

    def __init__(self, base: Tensor):
        super().__init__()
        self.register_buffer("base_text_features", base)
        self.text_feature_residuals = nn.Parameter(torch.zeros_like(base))

    def forward(self, scale: float) -> Tensor:
        """Return the text features with ``scale`` times the residuals, not normalised, (C, d)."""
        return self.base_text_features + scale * self.text_feature_residuals


class TaskRes(PromptTrainer):
    """Learn ``t_c + RESIDUAL_SCALE x_c`` by cross-entropy, equation 4; t_c is the raw text feature of a class.

    As in the authors' code, class names keep their underscores in the sentence, and ImageNet's features are the mean of
    eight templates'. The authors' "enhanced base", a text projection trained beforehand, is not supported.
    """

    config_node = "TaskRes"
    options = {"PREC": "fp32", "RESIDUAL_SCALE": 1.0, "ENHANCED_BASE": "none"}
    allowed = {
        "RESIDUAL_SCALE": Real("weight of the residuals", 0, 1000),
        "ENHANCED_BASE": OneOf("a text projection trained beforehand; not supported", ("none",)),
    }
    official_names = ((r"prompt_learner\.(text_feature_residuals|base_text_features)", r"\1"),)
    tied_to_classes = "each class has a residual of its own"

    def build_learner(self) -> Residuals:
        """Compute the text features of the classes; start from no residual."""
        templates = [self.template]
        if self.cfg.DATASET.NAME.startswith("ImageNet"):
            templates = [*SELECTED_TEMPLATES, "a photo of a {}."]
        return Residuals(text_features(self.clip, literal_sentences(self.classnames, templates)).float())

    def before_load(self, weights: Mapping[str, Tensor]) -> None:
        """Refuse a checkpoint of other classes, which may well have the same shapes.

        Raises:
            ValueError: Its text features are not those of the classes here.
        """
        theirs, ours = weights.get("base_text_features"), self.learner.base_text_features
        if isinstance(theirs, Tensor) and theirs.shape == ours.shape:
            same = F.cosine_similarity(theirs.float().to(ours.device), ours, dim=-1) > SAME
            if not same.all():
                wrong = [name for name, fits in zip(self.classnames, same.tolist()) if not fits]
                raise ValueError(
                    f"the checkpoint's text features are not those of {', '.join(wrong[:3])} ({len(wrong)} of "
                    f"{len(ours)} classes): {self.tied_to_classes}. Use the classes, the template and the backbone of "
                    "its training"
                )

    def text_features(self) -> Tensor:
        """Return the features of the class texts with their residuals, normalised, (C, d)."""
        return unit(self.learner(self.settings.RESIDUAL_SCALE))
