"""Where a checkpoint comes from: which method wrote it, and what it was trained on, as far as that can be told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import List, Mapping, NamedTuple, Optional, Sequence

from torch import Tensor

from ...record.result import RunRecord

# How official checkpoints are told apart: folder, a name that must be in it, and one that must not.
SIGNS = (
    ("MaPLe", "MultiModalPromptLearner", r"prompt_learner\.proj\.weight", None),
    ("TAC", "VLPromptLearner", r"VPT_topk_t\.weight", None),
    ("PromptSRC", "VLPromptLearner", r"prompt_learner\.ZS_image_encoder\..+", r"VPT_topk_t\.weight"),
    (
        "IVLP",
        "VLPromptLearner",
        r"prompt_learner\.ctx",
        r"prompt_learner\.(ZS_image_encoder|proj)\..+|VPT_topk_t\.weight",
    ),
    ("VPT", "prompt_learner", r"image_encoder\.VPT", r"(prompt_learner\.)?ctx"),
    ("KgCoOp", "prompt_learner", r"bias_vectors", r"meta_net\.linear2\..+"),
    ("CoCoOp", "prompt_learner", r"meta_net\.linear2\.weight", r"bias_vectors"),
    ("TCP", "prompt_learner", r"meta_net\.linear2\.weight", None),
    ("CoOp", "prompt_learner", r"ctx", r"meta_net\..+|bias_vectors|image_encoder\..+"),
    ("ProGrad", "prompt_learner", r"ctx", r"meta_net\..+|bias_vectors|image_encoder\..+"),
)


class Origin(NamedTuple):
    """What is known for sure about a checkpoint.

    Attributes:
        method: Name of the trainer that wrote it; empty where neither the file nor its run's ``result.json`` says so.
        trained_on: ``{"dataset", "subsample", "shots", "seed"}``; None where it is not known.
        classnames: Of the training, in order of the labels; empty where they are not known.
    """

    method: str
    trained_on: Optional[dict]
    classnames: Sequence[str] = ()


def origin_of(path, notes: Mapping) -> Origin:
    """Ask what a checkpoint holds beside its weights, else the ``result.json`` of the run in whose folder it lies.

    Args:
        path: The file, ``<run>/<model folder>/model.pth.tar-<epoch>`` or any other.
        notes: See :func:`.checkpoints.read_with_notes`.
    """
    if notes.get("method"):
        return Origin(notes["method"], notes.get("trained_on"), notes.get("classes") or ())
    return origin_of_run(Path(path).parent.parent)


def origin_of_run(folder) -> Origin:
    """Ask the record of a training run."""
    record = RunRecord.find(folder)
    if record is None:
        return Origin("", None)
    own = {key: getattr(record, key) for key in ("dataset", "subsample", "shots", "seed")}
    return Origin(record.trainer, record.trained_on or own, record.classnames)


def methods_by_names(folder: str, state: Mapping[str, Tensor]) -> List[str]:
    """Return the methods whose official checkpoints look like this one, by its folder's name and its entries' names."""

    def holds(pattern) -> bool:
        return bool(pattern) and any(re.fullmatch(pattern, name) for name in state)

    folders = {where for _, where, _, _ in SIGNS}
    fits = [
        name
        for name, where, has, has_not in SIGNS
        if folder in (where, *({folder} - folders)) and holds(has) and not holds(has_not)
    ]
    if (
        set(fits) == {"CoCoOp", "TCP"} and "ctx" in state
    ):  # the meta-net of one answers with a token, the other's with as many as the context has
        one_token = state["meta_net.linear2.weight"].shape[0] == state["ctx"].shape[-1]
        fits = ["CoCoOp" if one_token else "TCP"]
    return fits
