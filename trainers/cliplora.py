"""CLIPLoRA: low-rank updates of the attention projections of both towers (Zanella, Ben Ayed, CVPR workshops 2024)."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from ..allowed import Flag, OneOf, Real, Several, Whole
from ..clip_patches import encoders, plain
from ..clip_patches.anatomy import tokenize
from ..clip_patches.class_texts import class_anchors, fill
from ..clip_patches.low_rank import PROJECTIONS, LowRankPaths, merged, with_paths
from ..clip_patches.stock import CLIP
from .base import Batch, PromptTrainer, unit
from .parts.schedules import StepCosine

logger = logging.getLogger(__name__)

TEMPLATE = "a photo of a {}."  # of every data set, in the authors' code
LEAST_LR = 1e-6
# Where the adapted layers begin and end, in twelfths of a tower; the authors list them for 12 layers.
POSITIONS = {"all": (0, 12), "bottom": (0, 4), "mid": (4, 8), "up": (8, 12), "half-bottom": (0, 6), "half-up": (6, 12)}


def adapted_layers(position: str, depth: int) -> range:
    """Return the layers that a position means in a tower of some depth, counted from 0.

    Raises:
        ValueError: The tower is too shallow for it.
    """
    if position == "top3":
        layers = range(depth - 3, depth)
    else:
        first, end = (depth * twelfths // 12 for twelfths in POSITIONS[position])
        layers = range(first, end)
    if not layers or layers[0] < 0:
        raise ValueError(
            f"TRAINER.CLIPLORA.POSITION {position} is no layer of a tower with {depth}; take all, or a deeper backbone"
        )
    return layers


class CLIPLoRA(PromptTrainer):
    """Learn ``W x + ALPHA / sqrt(R) B A drop(x)`` beside the projections W of the attention, by cross-entropy.

    The rate follows a cosine with every step, over N_ITERS steps a shot; LR_SCHEDULER and the warm-up of OPTIM are not
    used. MAX_EPOCH limits the epochs that these steps take. As in Dassl, the last batch of an epoch is left out where
    it is not full; the authors keep it, so their epochs are shorter and their steps as many. Temperature: CLIP's own.

    OFFICIAL draws the dropout of whole sequences, 77 positions of every class, in the authors' order; without it, only
    that of the tokens that are computed is drawn. With DROPOUT_RATE 0, OFFICIAL also does as their code does there: the
    gradient that reaches a projection's input is that of W alone.
    """

    options = {
        "PREC": "fp32",
        "R": 2,
        "ALPHA": 1,
        "DROPOUT_RATE": 0.25,
        "PARAMS": ["q", "k", "v"],
        "ENCODER": "both",
        "POSITION": "all",
        "N_ITERS": 500,
        "OFFICIAL": False,
    }
    allowed = {
        "R": Whole("rank of the updates", 1, 10_000),
        "ALPHA": Whole("weight of the updates, over the root of R", 1, 1_000_000),
        "DROPOUT_RATE": Real("share of the updates' input that is dropped in training", 0, 1, below=True),
        "PARAMS": Several("updated projections: queries, keys, values, output", OneOf("", PROJECTIONS)),
        "ENCODER": OneOf("updated towers", ("text", "vision", "both")),
        "POSITION": OneOf("updated layers of a tower", (*POSITIONS, "top3")),
        "N_ITERS": Whole("steps for each of NUM_SHOTS; 0: as many as MAX_EPOCH epochs have", 0, 1_000_000),
        "OFFICIAL": Flag("draw dropout, and backpropagate without it, as the authors' code does"),
    }
    checkpoint_folder = "clip_lora"
    official_names = tuple(
        (rf"{tower}transformer\.resblocks\.(\d+)\.attn\.{name}\.w_lora_([AB])", rf"{ours}.\1.{short}.\2")
        for tower, ours in (("", "text"), (r"visual\.", "vision"))
        for name, short in (("q_proj", "q"), ("k_proj", "k"), ("v_proj", "v"), ("proj", "o"))
    )
    schedule_per_step = True

    @classmethod
    def check_cfg(cls, cfg: Any) -> None:
        """Refuse updates of no projection."""
        super().check_cfg(cfg)
        if not cfg.TRAINER[cls.node()].PARAMS:
            raise ValueError(f"TRAINER.{cls.node()}.PARAMS is empty; allowed: some of {', '.join(PROJECTIONS)}")

    def build_data_loader(self) -> None:
        """Build the loaders, then count the steps and the epochs that they take."""
        super().build_data_loader()
        if self.task is not None:
            return
        per_epoch, shots = len(self.train_loader_x), self.cfg.DATASET.NUM_SHOTS
        self.steps = self.cfg.OPTIM.MAX_EPOCH * per_epoch
        if self.settings.N_ITERS and shots > 0:
            self.steps = min(self.steps, self.settings.N_ITERS * shots)
        self.max_epoch = math.ceil(self.steps / per_epoch)

    def build_learner(self) -> nn.Module:
        """Write the class sentences; put paths beside the projections."""
        s, sizes = self.settings, self.anatomy
        if s.ENCODER != "text" and not sizes.vision_layers:
            raise ValueError(
                f"TRAINER.{self.node()}.ENCODER {s.ENCODER} needs a ViT backbone (e.g. ViT-B/16), and this CLIP has a "
                "ResNet; with it, ENCODER text is possible"
            )
        sentences = fill(self.cfg.DATASET.TEMPLATE or TEMPLATE, self.classnames)
        self.sentences = encoders.embed_tokens(self.clip, tokenize(self.clip, sentences))
        if s.ENCODER == "vision":
            self.text_anchors = class_anchors(self.clip, [[sentence] for sentence in sentences])
        self._merged: CLIP | None = None

        def paths(tower: str, width: int, depth: int) -> LowRankPaths:
            layers = adapted_layers(s.POSITION, depth) if s.ENCODER in (tower, "both") else ()
            passes_gradient = s.DROPOUT_RATE > 0 or not s.OFFICIAL
            return LowRankPaths(width, layers, s.PARAMS, s.R, s.ALPHA / math.sqrt(s.R), s.DROPOUT_RATE, passes_gradient)

        text = paths("text", sizes.text_width, sizes.text_layers)
        return nn.ModuleDict({"text": text, "vision": paths("vision", sizes.vision_width, sizes.vision_layers)})

    def build_schedule(self) -> LRScheduler:
        """Return a cosine over all steps."""
        return StepCosine(self.optim, self.steps if self.task is None else 1, LEAST_LR)

    @contextmanager
    def fixed_classes(self, features: Tensor | None = None) -> Iterator[None]:
        """In evaluation, merge the updates into copies of the weights for all that is classified inside the block."""
        with super().fixed_classes(features):
            if not self.learner.training:
                self._merged = merged(self.clip, self.learner["text"], self.learner["vision"])
            try:
                yield
            finally:
                self._merged = None

    def updated_clip(self) -> CLIP:
        """Return CLIP as it looks with the updates."""
        return self._merged or with_paths(self.clip, self.learner["text"], self.learner["vision"])

    @property
    def towers(self) -> Any:
        """The forward passes of both towers: those that leave nothing out where the authors' dropout is drawn."""
        return plain if self.settings.OFFICIAL and self.learner.training and not self._merged else encoders

    def text_features(self) -> Tensor:
        """Return the features of the class sentences, normalised, (C, d)."""
        if not self.learner["text"]:
            return self.text_anchors
        return unit(self.towers.encode_text(self.updated_clip(), self.sentences))

    def image_features(self, images: Tensor) -> Tensor:
        """Return the features of images, normalised, (B, d)."""
        return unit(self.towers.encode_image(self.updated_clip(), images))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy; dropout is drawn for the texts first."""
        text = self.class_features()
        return {"ce": self.cross_entropy(self.logits(self.image_features(batch.images), text), batch.labels)}

    def named_weights(self, weights: Mapping[str, Tensor], notes: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Name the entries of an official file, which counts the adapted layers through both towers, text first.

        Raises:
            ValueError: The file was written with other settings.
        """
        if "metadata" not in notes:
            return weights
        self._check_metadata(notes["metadata"])
        layers = [f"{tower}.{layer}" for tower in ("text", "vision") for layer in self.learner[tower]]
        named = {}
        for name, value in weights.items():
            found = re.fullmatch(r"layer_(\d+)\.(?:([qkv])_)?proj\.w_lora_([AB])", name)
            known = found is not None and int(found[1]) < len(layers)
            named[f"{layers[int(found[1])]}.{found[2] or 'o'}.{found[3]}" if found and known else name] = value
        return named

    def _check_metadata(self, theirs: Mapping[str, Any]) -> None:
        """Refuse an official file of other settings."""
        ours = {key: self.settings[key.upper()] for key in ("r", "alpha", "encoder", "params", "position")}
        ours["params"], theirs = sorted(set(ours["params"])), {**theirs, "params": sorted(theirs.get("params", ()))}
        differ = [f"{key} {theirs.get(key)}, here {value}" for key, value in ours.items() if theirs.get(key) != value]
        if differ:
            raise ValueError(
                f"the checkpoint was trained with {'; '.join(differ)}. Set TRAINER.{self.node()} as in training"
            )
