"""CoOp: a learned context in front of, around or behind the class name (Zhou et al., IJCV 2022)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..allowed import OneOf, Words
from ..clip_patches import encoders
from ..clip_patches.anatomy import tokenize
from ..clip_patches.class_texts import readable
from .base import PromptTrainer, unit
from .parts.checkpoints import Renames
from .parts.prompts import Context, context_from_words, context_words


class CoOp(PromptTrainer):
    """Learn the context of the class sentence by cross-entropy."""

    options = {"N_CTX": 16, "CSC": False, "CTX_INIT": None, "PREC": "fp16", "CLASS_TOKEN_POSITION": "end"}
    allowed = {
        "CTX_INIT": Words("words that the context starts from; then their tokens count, not N_CTX", optional=True),
        "CLASS_TOKEN_POSITION": OneOf("where the class name is in the context", ("end", "middle", "front")),
    }
    official_names: Renames = ((r"prompt_learner\.ctx", "ctx"),)

    @classmethod
    def tokens_in_front(cls, settings: Any) -> int:
        """See :meth:`PromptTrainer.tokens_in_front`."""
        return super().tokens_in_front(settings) or settings.N_CTX

    @property
    def tied_to_classes(self) -> str:
        """Class-specific contexts (CSC) serve no other classes; see :attr:`PromptTrainer.tied_to_classes`."""
        own = self.settings.CSC and not context_words(self.settings.CTX_INIT)
        return "each class has a context of its own (CSC)" if own else ""

    def build_learner(self) -> Context:
        """Embed the class names; start the context from words, or from noise."""
        s = self.settings
        sentences = [f"{readable(name)}." for name in self.classnames]
        self.names = encoders.embed_tokens(self.clip, tokenize(self.clip, sentences))
        self.name_lengths = self.names.eot - 2  # tokens between SOS and the full stop
        words = context_words(s.CTX_INIT)
        if words:
            ctx = context_from_words(self.clip, words)
        else:
            shape = (s.N_CTX, self.anatomy.text_width)
            ctx = 0.02 * torch.randn(len(self.classnames), *shape) if s.CSC else 0.02 * torch.randn(*shape)
        return Context(ctx)

    def text_features(self) -> Tensor:
        """Return the features of context and class name; see :meth:`PromptTrainer.text_features`."""
        return unit(self.raw_text_features())

    def raw_text_features(self) -> Tensor:
        """Return the same, not normalised, (C, d)."""
        ctx, position = self.learner.ctx, self.settings.CLASS_TOKEN_POSITION
        if position == "end" and ctx.dim() == 2:
            return encoders.encode_text(self.clip, self.names, [ctx])
        return encoders.encode_text(self.clip, self.surround(ctx, position))

    def surround(self, ctx: Tensor, position: str) -> encoders.Sentences:
        """Write the context around each class name.

        Args:
            ctx: (n, D) or (C, n, D).
            position: Where the class name goes: ``end`` [ctx][name], ``middle`` [half ctx][name][half ctx], ``front``
                [name][ctx].

        Returns:
            Sentences of T + n tokens.
        """
        x, eot, _ = self.names
        n = ctx.shape[-2]
        ctx = ctx.to(x.dtype).expand(len(x), -1, -1)
        before = {"end": n, "middle": n // 2, "front": 0}[position]
        rows = [
            torch.cat([x[i, :1], ctx[i, :before], x[i, 1 : 1 + k], ctx[i, before:], x[i, 1 + k :]])
            for i, k in enumerate(self.name_lengths.tolist())
        ]
        return encoders.Sentences(torch.stack(rows), eot + n, 1)
