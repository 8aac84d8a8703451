"""Class descriptions for methods that cannot do without: a JSON of sentences, or hand-written templates on request."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dassl.data.datasets import DATASET_REGISTRY

from ...allowed import Text
from ...clip_patches.class_texts import read_descriptions, template_sentences
from .declaration import Declaration

if TYPE_CHECKING:
    from .batch import Task

logger = logging.getLogger(__name__)

TEMPLATES = "templates"  # the value of DESCRIPTIONS that asks for hand-written sentences
WAY_OUT = (
    "fetch the published sentences with 'clusterprompt data descriptions' and name their folder there, or set it to "
    f"'{TEMPLATES}' for hand-written sentences, which is not the published method"
)


class Described(Declaration):
    """A method whose class descriptions have to be there, the option DESCRIPTIONS or the data set's.

    Drawn data sets, for which nobody has written any, take the templates by themselves.
    """

    allowed = {"DESCRIPTIONS": Text(f"JSON of class descriptions, or a folder of them; or the word {TEMPLATES}")}
    cfg: Any
    classnames: Sequence[str]
    task: Task | None

    @classmethod
    def uses_descriptions(cls, cfg: Any) -> str:
        """See :meth:`Declaration.uses_descriptions`; the word for templates is no file.

        Raises:
            ValueError: None are named, and templates are not asked for.
        """
        named = super().uses_descriptions(cfg)
        if named:
            return "" if named == TEMPLATES else named
        data = cfg.DATASET.NAME
        if data in DATASET_REGISTRY.registered_names() and getattr(DATASET_REGISTRY.get(data), "drawn", False):
            return ""
        raise ValueError(
            f"{cls.__name__} needs descriptions of the classes of {data}, and neither "
            f"TRAINER.{cls.node()}.DESCRIPTIONS nor DATASET.DESCRIPTIONS names any: {WAY_OUT}"
        )

    def descriptions(self) -> list[list[str]]:
        """Return the sentences of each class.

        Raises:
            ValueError: None are named, and templates are not asked for; or see :func:`read_descriptions`.
        """
        path = self.uses_descriptions(self.cfg)
        if path:
            return read_descriptions(path, self.cfg.DATASET.NAME, self.classnames)
        sentences = template_sentences(self.classnames)
        logger.info("Text source: templates, %d hand-written sentences for each class", len(sentences[0]))
        return sentences
