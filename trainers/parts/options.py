"""What options that several methods share take; a method's own are in its ``allowed``."""

from __future__ import annotations

from ...allowed import Flag, OneOf, Real, Rule, Text, Whole, Words
from ...clip_patches.loading import PRECISIONS

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
    "DESCRIPTIONS": Text("JSON of class descriptions, a folder of them, or templates; empty: DATASET.DESCRIPTIONS"),
}
