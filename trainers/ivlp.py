"""IVLP: independent deep prompts in both towers (the baseline of MaPLe, CVPR 2023, and PromptSRC, ICCV 2023)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..clip_patches import encoders
from .base import PromptTrainer, unit
from .parts.prompts import DeepPrompts, prompted_sentences


class IVLP(PromptTrainer):
    """Learn deep prompts in both towers by cross-entropy alone."""

    options = {
        "N_CTX_VISION": 2,
        "N_CTX_TEXT": 2,
        "CTX_INIT": "a photo of a",
        "PREC": "fp16",
        "PROMPT_DEPTH_VISION": 9,
        "PROMPT_DEPTH_TEXT": 9,
    }
    checkpoint_folder = "VLPromptLearner"
    official_names = (
        (r"prompt_learner\.ctx", "ctx"),
        (r"image_encoder\.VPT", "deep_vision.0"),
        (r"image_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow", r"deep_vision.\1"),
        *((rf"text_encoder\.transformer\.resblocks\.{i}\.VPT_shallow", f"deep_text.{i - 1}") for i in range(1, 64)),
    )

    @classmethod
    def tokens_in_front(cls, settings: Any) -> int:
        """See :meth:`PromptTrainer.tokens_in_front`; prompts replace words, or what is in their place."""
        return max(super().tokens_in_front(settings), settings.get("N_CTX_TEXT", settings.get("N_CTX", 0)))

    def build_learner(self) -> nn.Module:
        """Write the class sentences; start the prompts of layer 1 from the words that they replace."""
        s = self.settings
        ctx = self.write_sentences(s.N_CTX_TEXT)
        return DeepPrompts(self.clip, ctx, s.N_CTX_VISION, s.PROMPT_DEPTH_TEXT, s.PROMPT_DEPTH_VISION)

    def write_sentences(self, n_ctx: int) -> Tensor:
        """Write the class sentences; return the start of the prompts of layer 1. See :func:`prompted_sentences`."""
        self.sentences, ctx = prompted_sentences(self.clip, self.settings.CTX_INIT, n_ctx, self.classnames)
        return ctx

    def text_features(self) -> Tensor:
        """Return the features of the prompted class sentences, normalised, (C, d)."""
        return unit(encoders.encode_text(self.clip, self.sentences, self.learner()[0]))

    def image_features(self, images: Tensor) -> Tensor:
        """Return the features of the prompted images, normalised, (B, d)."""
        return unit(encoders.encode_image(self.clip, images, self.learner()[1]))
