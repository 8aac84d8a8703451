"""A second CLIP beside the one that is prompted: the frozen teacher of a method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...clip_patches.anatomy import anatomy
from ...clip_patches.loading import load_clip
from ...clip_patches.stock import CLIP

if TYPE_CHECKING:
    from ..base import PromptTrainer


def load_teacher(trainer: PromptTrainer, name: str) -> CLIP:
    """Load the teacher in fp32; its towers and joint space may be of other widths.

    Args:
        trainer: Its own CLIP is loaded, and is the teacher where ``name`` is that of the backbone.
        name: Name or file of a CLIP, as for the backbone; empty for the backbone itself.

    Raises:
        ValueError: It takes images of another size, or see :func:`load_clip`.
    """
    backbone = trainer.cfg.MODEL.BACKBONE.NAME
    if name in ("", backbone):
        return trainer.clip
    teacher = load_clip(name, "fp32", trainer.device)
    size, own = anatomy(teacher).input_resolution, trainer.anatomy.input_resolution
    if size != own:
        raise ValueError(
            f"the teacher {name} takes images of {size} pixels and the backbone {backbone} of {own}, but both see the "
            f"same; name a teacher of {own} pixels in TRAINER.{trainer.node()}.TEACHER_NAME"
        )
    return teacher
