"""Identify the method and the training task behind a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ...record.result import RunRecord

# Marks of official checkpoints: method, folder, pattern of a name that must occur, pattern of one that must not.
SIGNS = (
    ("MMRL", "MultiModalRepresentationLearner", r"image_encoder\.proj_rep", None),
    ("MMRLpp", "MultiModalRepresentationLearner", r"representation_learner\.srra_r2vproj\.weight", None),
    ("MMA", "adapter_learner", r"shared_adapter\.\d+\.0\.weight", None),
    ("MaPLe", "MultiModalPromptLearner", r"prompt_learner\.proj\.weight", r"adapter_image\..+"),
    ("CoPrompt", "MultiModalPromptLearner", r"adapter_image\.fc\.0\.weight", None),
    ("TAC", "VLPromptLearner", r"VPT_topk_t\.weight", None),
    ("HiCroPL", "VLPromptLearner", r"prompt_learner\.cross_prompts_text\..+", None),
    ("PromptKD", "VLPromptLearner", r"VPT_image_trans\.conv1\..+", None),
    (
        "PromptSRC",
        "VLPromptLearner",
        r"prompt_learner\.ZS_image_encoder\..+",
        r"VPT_topk_t\.weight|prompt_learner\.cross_prompts_text\..+",
    ),
    (
        "IVLP",
        "VLPromptLearner",
        r"prompt_learner\.ctx",
        r"prompt_learner\.(ZS_image_encoder|proj|cross_prompts_text)\..+|VPT_topk_t\.weight",
    ),
    ("VPT", "prompt_learner", r"image_encoder\.VPT", r"(prompt_learner\.)?ctx"),
    ("KgCoOp", "prompt_learner", r"bias_vectors", r"meta_net\.linear2\..+"),
    ("CoCoOp", "prompt_learner", r"meta_net\.linear2\.weight", r"bias_vectors"),
    ("TCP", "prompt_learner", r"meta_net\.linear2\.weight", None),
    ("CLIPAdapter", "clip_adapter", r"fc\.0\.weight", None),
    ("TaskRes", "prompt_learner", r"text_feature_residuals", None),
    ("CLIPLoRA", "clip_lora", r"(text|vision)\.0\..\.A|layer_0\..+\.w_lora_A", None),
    ("TipAdapter", "tip_adapter", r"keys", None),
    ("CoOp", "prompt_learner", r"ctx", r"meta_net\..+|bias_vectors|image_encoder\..+"),
    ("ProGrad", "prompt_learner", r"ctx", r"meta_net\..+|bias_vectors|image_encoder\..+"),
)


class Origin(NamedTuple):
    """Origin of a checkpoint, as far as it is recorded.

    Attributes:
        method: Name of the trainer that wrote it; empty where neither the file nor its run's ``result.json`` has it.
        trained_on: ``{"dataset", "subsample", "shots", "seed"}``; None where it is not known.
        classnames: Classes of the training, in order of the labels; empty where they are not known.
        text_source: Source of the class texts; empty where it is not known.
    """

    method: str
    trained_on: dict | None
    classnames: Sequence[str] = ()
    text_source: str = ""


def origin_of(path: str | Path, notes: Mapping) -> Origin:
    """Return the origin that a checkpoint notes, else that of the run in whose folder it lies.

    Args:
        path: The file, ``<run>/<model folder>/model.pth.tar-<epoch>`` or any other.
        notes: See :func:`.checkpoints.read_with_notes`.
    """
    if notes.get("method"):
        texts = notes.get("text_source", "")
        return Origin(notes["method"], notes.get("trained_on"), notes.get("classes") or (), texts)
    return origin_of_run(Path(path).parent.parent)


def origin_of_run(folder: str | Path) -> Origin:
    """Return the origin of a training run's checkpoints, from its record."""
    record = RunRecord.find(folder)
    if record is None:
        return Origin("", None)
    own = {key: getattr(record, key) for key in ("dataset", "subsample", "shots", "seed")}
    return Origin(record.trainer, record.trained_on or own, record.classnames, record.text_source)


def methods_by_names(folder: str, state: Mapping[str, Tensor]) -> list[str]:
    """Return the methods whose official checkpoints look like this one, by the names of its folder and its entries."""

    def holds(pattern: str | None) -> bool:
        return pattern is not None and any(re.fullmatch(pattern, name) for name in state)

    folders = {where for _, where, _, _ in SIGNS}
    fits = [
        name
        for name, where, has, has_not in SIGNS
        if folder in (where, *({folder} - folders)) and holds(has) and not holds(has_not)
    ]
    if set(fits) == {"CoCoOp", "TCP"} and "ctx" in state:
        # CoCoOp's meta-net returns one token, TCP's as many as the context has.
        one_token = state["meta_net.linear2.weight"].shape[0] == state["ctx"].shape[-1]
        fits = ["CoCoOp" if one_token else "TCP"]
    return fits
