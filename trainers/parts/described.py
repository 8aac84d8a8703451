"""Class descriptions for methods that cannot do without: written sentences, or hand-written templates on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dassl.data.datasets import DATASET_REGISTRY

from ...clip_patches.class_texts import template_sentences
from ...clip_patches.text_source import TEMPLATES, TextSource
from .declaration import Declaration

if TYPE_CHECKING:
    from ..base import PromptTrainer

WAY_OUT = (
    "fetch the published sentences with 'clusterprompt data descriptions', or set one of the two to "
    f"'{TEMPLATES}' for hand-written sentences, which is not the published method"
)


class Described(Declaration):
    """A method whose class descriptions have to be there: named by DESCRIPTIONS, or in the data root.

    Drawn data sets, for which nobody has written any, take the templates by themselves.
    """

    @classmethod
    def find_text_source(cls, cfg: Any) -> TextSource | None:
        """See :meth:`Declaration.find_text_source`.

        Raises:
            ValueError: There are none, and templates are not asked for.
        """
        source, data = super().find_text_source(cfg), cfg.DATASET.NAME
        asked = TEMPLATES in (cfg.TRAINER[cls.node()].DESCRIPTIONS, cfg.DATASET.DESCRIPTIONS)
        drawn = data in DATASET_REGISTRY.registered_names() and getattr(DATASET_REGISTRY.get(data), "drawn", False)
        if source is None or source.file is not None or asked or drawn:
            return source
        raise ValueError(
            f"{cls.__name__} needs descriptions of the classes of {data}: TRAINER.{cls.node()}.DESCRIPTIONS and "
            f"DATASET.DESCRIPTIONS name none, and none lie in the data root; {WAY_OUT}"
        )


def sentences_of(trainer: PromptTrainer) -> list[list[str]]:
    """Return the sentences of each class, written or from templates."""
    return trainer.descriptions() or template_sentences(trainer.classnames)
