"""What options that several methods share take; a method's own are in its ``allowed``."""

from __future__ import annotations

from typing import Any

from ...allowed import Flag, OneOf, Real, Rule, Text, Whole, Words
from ...clip_patches.loading import PRECISIONS
from ...config import get

LONGEST = 75  # tokens between SOS and EOT
LAYERS = 1000
WEIGHT = Real("weight of the term", 0, 1e6)

SHARED: dict[str, Rule] = {
    "PREC": OneOf("precision; amp: fp32 weights under autocast", tuple(p for p in PRECISIONS if p != "bf16")),
    "N_CTX": Whole("context tokens", 1, LONGEST),
    "N_CTX_TEXT": Whole("text prompts a layer, in tokens", 1, LONGEST),
    "N_CTX_VISION": Whole("vision prompts a layer, in tokens", 1, 10_000),
    "CTX_INIT": Words("words that the context starts from"),
    "CSC": Flag("a context of its own for each class"),
    "PROMPT_DEPTH": Whole("prompted layers of both towers; -1: all", 1, LAYERS, (-1,)),
    "PROMPT_DEPTH_TEXT": Whole("prompted layers of the text tower; -1: all", 1, LAYERS, (-1,)),
    "PROMPT_DEPTH_VISION": Whole("prompted layers of the vision tower; -1: all", 0, LAYERS, (-1,)),
    "TEXT_LOSS_WEIGHT": Real("weight of the text term", 0, 1e6),
    "IMAGE_LOSS_WEIGHT": Real("weight of the image term", 0, 1e6),
    "DESCRIPTIONS": Text("JSON of class descriptions, or a folder of them; empty: templates"),
}


def either(cfg: Any, own: str, other: str, default: Any) -> Any:
    """Return an option that may be given in two places: the value that is not the default.

    Args:
        cfg: The config.
        own: Its key in the method's node.
        other: Its key in the authors' configs.
        default: Of both.

    Raises:
        ValueError: Both are given and differ.
    """
    ours, theirs = get(cfg, own), get(cfg, other)
    if default not in (ours, theirs) and ours != theirs:
        raise ValueError(f"{own} is {ours} and {other} is {theirs}; give one of the two")
    return theirs if ours == default else ours
