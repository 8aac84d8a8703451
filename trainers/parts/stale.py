"""What some authors' code computes once in evaluation and keeps for good, whatever becomes of the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from ...allowed import Flag

if TYPE_CHECKING:
    from ..base import PromptTrainer as Base
else:
    Base = object

Kept = TypeVar("Kept")


class KeepsFirstTexts(Base):
    """Class texts that follow the weights; OFFICIAL True keeps those of the first evaluation, as its authors do.

    The two differ only where a model is evaluated more than once, as for TEST.FINAL_MODEL best_val.
    """

    allowed = {"OFFICIAL": Flag("keep the class texts of the first evaluation for good, as the authors' code does")}

    def first(self, name: str, compute: Callable[[], Kept]) -> Kept:
        """Return what ``compute`` returns now; OFFICIAL, in evaluation, what it returned first.

        Args:
            name: Of what is computed.
            compute: Takes nothing.
        """
        if torch.is_grad_enabled() or not self.settings.OFFICIAL:
            return compute()
        kept: dict[str, Any] = self.__dict__.setdefault("_kept", {})
        if name not in kept:
            kept[name] = compute()
        return kept[name]

    def class_features(self) -> Tensor:
        """See :meth:`PromptTrainer.class_features`."""
        return self.first("texts", super().class_features)
