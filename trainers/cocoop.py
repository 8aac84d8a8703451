"""CoCoOp: a context that a small network shifts for every image (Zhou et al., CVPR 2022)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from ..allowed import Words
from ..clip_patches import encoders
from ..clip_patches.anatomy import tokenize
from ..clip_patches.class_texts import fill
from .base import PromptTrainer, unit
from .parts.prompts import Context, context_from_words, context_words


class ConditionalContext(Context):
    """A context and the meta-net that shifts it.

    Args:
        ctx: Start of the context, (n, D).
        joint: Width d of the image features.
    """

    def __init__(self, ctx: Tensor, joint: int):
        super().__init__(ctx)
        self.meta_net = nn.Sequential(
            OrderedDict(
                linear1=nn.Linear(joint, joint // 16),
                relu=nn.ReLU(inplace=True),
                linear2=nn.Linear(joint // 16, ctx.shape[1]),
            )
        )

    def forward(self, image_features: Tensor) -> Tensor:
        """Shift all context tokens by the meta-net's output for normalised image features, (B, d); (B, n, D)."""
        return self.ctx + self.meta_net(image_features).unsqueeze(1)


class CoCoOp(PromptTrainer):
    """Learn an image-conditioned context by cross-entropy; text features are computed for every image and class."""

    options = {"N_CTX": 16, "CTX_INIT": None, "PREC": "fp16"}
    allowed = {
        "CTX_INIT": Words("words that the context starts from; then their tokens count, not N_CTX", optional=True),
    }
    official_names = ((r"prompt_learner\.(ctx|meta_net\..+)", r"\1"),)

    text_needs_image = True

    @classmethod
    def tokens_in_front(cls, settings: Any) -> int:
        """See :meth:`PromptTrainer.tokens_in_front`."""
        return super().tokens_in_front(settings) or settings.N_CTX

    def build_learner(self) -> ConditionalContext:
        """Embed the class names; start the context from words, or from noise."""
        s = self.settings
        words = context_words(s.CTX_INIT)
        if words:
            ctx = context_from_words(self.clip, words)
        else:
            ctx = 0.02 * torch.randn(s.N_CTX, self.anatomy.text_width)
        self.names = encoders.embed_tokens(self.clip, tokenize(self.clip, fill("{}.", self.classnames)))
        return ConditionalContext(ctx, self.anatomy.joint_width)

    def classify(self, images: Tensor) -> Tensor:
        """Return the logits of images, (B, C), each against class texts of its own."""
        features = self.image_features(images)
        text = encoders.encode_text(self.clip, self.names, [self.learner(features)])  # (B, C, d)
        return self.logits(features, unit(text))
