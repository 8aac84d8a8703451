"""ATPrompt on CoOp: learned vectors in front of words for attributes, then a context (Li et al., ICCV 2025)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..allowed import Flag, OneOf, Whole, Words
from ..clip_patches import encoders
from ..clip_patches.anatomy import token_embeddings, tokenize
from ..clip_patches.class_texts import readable
from ..clip_patches.loading import token_ids
from ..dassl_keys import either
from .base import PromptTrainer, unit
from .parts.options import LONGEST
from .parts.prompts import context_from_words, context_words

ATTRIBUTES = (1, 2, 3)


class AttributeContext(nn.Module):
    """A context and the vectors in front of each attribute; those of attributes that are not used stay as they are.

    Args:
        ctx: Start of the context, (n, D).
        attributes: Starts of the vectors of each attribute, (n_i, D).
        used: Number of attributes that are used.
    """

    def __init__(self, ctx: Tensor, attributes: list[Tensor], used: int):
        super().__init__()
        self.ctx = nn.Parameter(ctx)
        for i, start in enumerate(attributes, start=1):
            self.register_parameter(f"ctx_att{i}", nn.Parameter(start, requires_grad=i <= used))

    def forward(self, words: list[Tensor]) -> Tensor:
        """Return all that stands in front of the class name, (E, D).

        Args:
            words: Embeddings of each attribute's word, (tokens, D).
        """
        groups = [(getattr(self, f"ctx_att{i}"), word.to(self.ctx.dtype)) for i, word in enumerate(words, start=1)]
        return torch.cat([*(part for group in groups for part in group), self.ctx])


class ATPrompt(PromptTrainer):
    """Learn ``[vectors][attribute] ... [context][class name]`` by cross-entropy; the attributes are fixed words.

    The authors' code takes the attributes by data set and over the command line, in tests on other data sets those of
    the target; here `datasets.yaml` holds them, the command line goes before it, and a model keeps the words that it
    was trained with. Their code places attributes as if each were one token: of "playfulness" it keeps "play", and two
    literal "x" stand where "energy" should (OxfordPets). Here words are whole; OFFICIAL True places them as there.
    """

    official_trainer = "CoOp_ATP"
    options = {
        "PREC": "fp16",
        "USE_ATPROMPT": True,
        "N_CTX": 16,
        "ATT_NUM": 2,
        **{f"ATT{i}_TEXT": word for i, word in zip(ATTRIBUTES, ("color", "shape", "none"))},
        **{f"N_ATT{i}": 2 for i in ATTRIBUTES},
        "OFFICIAL": False,
    }
    allowed = {
        "USE_ATPROMPT": OneOf("in the authors' configs; without attributes, the method is CoOp", (True,)),
        "ATT_NUM": Whole("attributes", ATTRIBUTES[0], ATTRIBUTES[-1]),
        **{f"ATT{i}_TEXT": Words(f"word of attribute {i}") for i in ATTRIBUTES},
        **{f"N_ATT{i}": Whole(f"learned vectors in front of attribute {i}", 1, LONGEST) for i in ATTRIBUTES},
        "OFFICIAL": Flag("place attributes of several tokens as the authors' code does, one token of each"),
    }
    official_names = ((r"prompt_learner\.(ctx(_att\d)?)", r"\1"),)
    official_ignored = (r"(prompt_learner\.)?token_middle\d",)

    @classmethod
    def check_cfg(cls, cfg: Any) -> None:
        """Refuse an attribute without a word, and two numbers of context tokens."""
        super().check_cfg(cfg)
        cls.n_ctx(cfg)
        settings = cfg.TRAINER[cls.node()]
        for i in ATTRIBUTES[: settings.ATT_NUM]:
            word = settings[f"ATT{i}_TEXT"]
            if not context_words(word) or word == "none":
                raise ValueError(
                    f"TRAINER.{cls.node()}.ATT{i}_TEXT is {word!r} and ATT_NUM is {settings.ATT_NUM}; allowed: a word "
                    "for each attribute, or a smaller ATT_NUM"
                )

    @classmethod
    def n_ctx(cls, cfg: Any) -> int:
        """Return the number of context tokens, which the authors' configs have in CoOp's node."""
        return either(cfg, f"TRAINER.{cls.node()}.N_CTX", "TRAINER.COOP.N_CTX", cls.options["N_CTX"])

    @classmethod
    def tokens_in_front(cls, settings: Any) -> int:
        """See :meth:`PromptTrainer.tokens_in_front`."""
        used = ATTRIBUTES[: settings.ATT_NUM]
        return settings.N_CTX + sum(settings[f"N_ATT{i}"] + len(token_ids(settings[f"ATT{i}_TEXT"])) for i in used)

    def build_learner(self) -> AttributeContext:
        """Embed attributes and class names; start the vectors from noise."""
        s, width = self.settings, self.anatomy.text_width
        self.words, n_ctx = [s[f"ATT{i}_TEXT"] for i in ATTRIBUTES[: s.ATT_NUM]], self.n_ctx(self.cfg)
        if s.OFFICIAL:
            self.attributes, self.names = self._official_sentences(n_ctx)
        else:
            self.attributes = [context_from_words(self.clip, context_words(word)) for word in self.words]
            names = [f"{readable(name)}." for name in self.classnames]
            self.names = encoders.embed_tokens(self.clip, tokenize(self.clip, names))
        ctx = 0.02 * torch.randn(n_ctx, width)
        return AttributeContext(ctx, [0.01 * torch.randn(s[f"N_ATT{i}"], width) for i in ATTRIBUTES], s.ATT_NUM)

    def _official_sentences(self, n_ctx: int) -> tuple[list[Tensor], encoders.Sentences]:
        """Write an x for each vector and take the tokens where each attribute would be if it were one.

        Returns:
            Embeddings of the attributes, each (1, D), and what is left from where the class name should begin.
        """
        before, places, at = "", [], 1
        for i, word in enumerate(self.words, start=1):
            count = self.settings[f"N_ATT{i}"]
            before += "x " * count + f"{word} "
            places.append(at + count)
            at += count + 1
        before += "x " * n_ctx
        tokens = tokenize(self.clip, [f"{before}{readable(name)}." for name in self.classnames])
        words = [token_embeddings(self.clip, tokens[:1, place : place + 1])[0] for place in places]
        return words, encoders.embed_tokens(self.clip, tokens, skip=at - 1 + n_ctx)

    def text_features(self) -> Tensor:
        """Return the features of attributes, context and class name, normalised, (C, d)."""
        return unit(encoders.encode_text(self.clip, self.names, [self.learner(self.attributes)]))
