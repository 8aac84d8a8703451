"""A second CLIP beside the one that is prompted: the frozen teacher of a method."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...clip_patches import encoders
from ...clip_patches.anatomy import anatomy, logit_scale
from ...clip_patches.class_texts import class_anchors, fill
from ...clip_patches.loading import is_published, load_clip, set_precision
from ...clip_patches.stock import CLIP
from .checkpoints import Renames, check_usable, checkpoint_path, learner_weights, new_name, read_with_notes
from .origin import origin_of
from .prompts import DeepPrompts, context_from_words, context_words, prompted_sentences

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


def teacher_file(cfg: Any, name: str) -> list[str]:
    """Name the teacher's CLIP for :meth:`.Declaration.further_files`; nothing for a published one or the backbone."""
    return [] if name in ("", cfg.MODEL.BACKBONE.NAME) or is_published(name) else [f"teacher's CLIP {name}"]


class Teacher:
    """A frozen CLIP that tells classes apart, with fixed deep prompts in both towers or without any.

    Args:
        clip: Stock CLIP, fp32; it is cast with :meth:`set_precision`.
        template: Hand-written prompt, used without learned ones.
        ctx_init: Words that the learned text prompts replaced.
        prompts: The deep prompts; None for none.
    """

    def __init__(self, clip: CLIP, template: str, ctx_init: str, prompts: DeepPrompts | None = None):
        self.clip, self.template, self.ctx_init, self.prompts = clip, template, ctx_init, prompts
        self.text, self.vision = ([], []) if prompts is None else prompts()

    def set_precision(self, precision: str) -> None:
        """Cast the CLIP; its class texts are computed before, in fp32."""
        set_precision(self.clip, precision)

    @torch.no_grad()
    def text_features(self, classnames: Sequence[str]) -> Tensor:
        """Return the normalised features of classes, (C, d)."""
        if self.prompts is None:
            return class_anchors(self.clip, [[sentence] for sentence in fill(self.template, classnames)])
        sentences, _ = prompted_sentences(self.clip, self.ctx_init, len(self.text[0]), classnames)
        return F.normalize(encoders.encode_text(self.clip, sentences, self.text).float(), dim=-1)

    @torch.no_grad()
    def logits(self, images: Tensor, text_features: Tensor) -> Tensor:
        """Return the logits of images, fp32, (B, C)."""
        features = encoders.encode_image(self.clip, images, self.vision).float()
        with torch.autocast(images.device.type, enabled=False):
            return logit_scale(self.clip) * F.normalize(features, dim=-1) @ text_features.T


def read_prompts(
    clip: CLIP, path: str | Path, folder: str, renames: Renames, ctx_init: str = ""
) -> tuple[CLIP, DeepPrompts]:
    """Read a teacher's deep prompts.

    Args:
        clip: The teacher's CLIP, fp32.
        path: Checkpoint file, or output folder of a run.
        folder: Name of the model folder below it.
        renames: (pattern, replacement) pairs from official names to those of :class:`DeepPrompts`.
        ctx_init: Words that the prompts replaced. Where layer 1 has fewer text prompts than the others, as the authors'
            code allows, the next of these words stand in it for the missing ones.

    Returns:
        The CLIP, and its prompts. An official checkpoint holds the whole model; where that is another CLIP, it is a
        copy with these weights.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: It holds other things than deep prompts, or prompts or a CLIP of other sizes.
    """
    file = checkpoint_path(path, folder)
    weights, notes = read_with_notes(file)
    method = origin_of(file, notes).method
    if method not in ("", "PromptSRC", "IVLP"):
        raise ValueError(f"{file} was written by {method}; the prompts of a teacher are PromptSRC's or IVLP's")
    weights = {name.removeprefix("module."): value for name, value in weights.items()}
    named = {new_name(name, renames) or name: value for name, value in weights.items()}
    check_usable({name: value for name, value in named.items() if re.match("ctx$|deep_", name)}, file)
    if "ctx" not in named:
        raise ValueError(f"{file} holds no prompts of PromptSRC or IVLP (no 'ctx'); name a run of PromptSRC")
    missing = len(named.get("deep_text.0", named["ctx"])) - len(named["ctx"])
    if missing > 0:
        words = context_from_words(clip, context_words(ctx_init), len(named["deep_text.0"]))
        named["ctx"] = torch.cat([named["ctx"].to(words), words[-missing:]])
    depths = {tower: sum(name.startswith(f"deep_{tower}.") for name in named) for tower in ("text", "vision")}
    n_vision = len(named["deep_vision.0"]) if depths["vision"] else 1
    prompts = DeepPrompts(clip, named["ctx"], n_vision, depths["text"] + 1, depths["vision"])
    ignored = (r"prompt_learner\.ZS_image_encoder\..+",)
    prompts.load_state_dict(learner_weights(named, prompts, clip, (), ignored, str(file)))
    return _stored_clip(clip, weights, str(file)), prompts.requires_grad_(False).to(next(clip.parameters()).device)


def _stored_clip(clip: CLIP, weights: Mapping[str, Tensor], source: str) -> CLIP:
    """Return the CLIP of an official checkpoint: ``clip`` itself, or a copy where the checkpoint's is another."""
    own = clip.state_dict()
    places = {f"image_encoder.{name.removeprefix('visual.')}": name for name in own if name.startswith("visual.")}
    places.update({f"text_encoder.{name}": name for name in own if not name.startswith("visual.")})
    places["logit_scale"] = "logit_scale"
    found = {places[name]: value for name, value in weights.items() if name in places}
    wrong = [name for name, value in found.items() if value.shape != own[name].shape]
    if wrong:
        raise ValueError(
            f"{source} is of another CLIP than the teacher's: {', '.join(wrong[:3])} differ in shape; name its CLIP in "
            "TEACHER_NAME"
        )
    check_usable(found, source)
    if all(torch.equal(own[name], value.to(own[name])) for name, value in found.items()):
        return clip
    clip = copy.deepcopy(clip)
    clip.load_state_dict(found, strict=False)
    return clip
