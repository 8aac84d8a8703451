"""MMRL and MMRL++: tokens of a shared space in the upper layers of both towers (Guo and Gu, CVPR 2025; IJCV 2026)."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..allowed import Flag, Real, Several, Whole
from ..clip_patches import encoders
from ..clip_patches.anatomy import tokenize, vision_projection
from ..clip_patches.class_texts import class_anchors, fill
from .base import Batch, PromptTrainer, unit
from .parts.options import LAYERS, LONGEST, WEIGHT
from .parts.stale import KeepsFirstTexts


class Maps(nn.ModuleList):
    """A linear map of its own for each layer, all with one start."""

    def __init__(self, width_in: int, width_out: int, layers: int):
        single = nn.Linear(width_in, width_out)
        super().__init__(copy.deepcopy(single) for _ in range(layers))

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """Return the tokens of each layer, (K, width_out)."""
        return [linear(tokens) for linear in self]


class LowRank(nn.Module):
    """What a layer adds to a weight that all share: ``A B``, zero at the start, and a bias."""

    def __init__(self, width_in: int, width_out: int, rank: int, bias: Tensor | None = None):
        super().__init__()
        self.A = nn.Parameter(torch.empty(width_out, rank))
        self.B = nn.Parameter(torch.zeros(rank, width_in))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        if bias is not None:
            self.bias = nn.Parameter(bias.detach().clone())


class SharedMaps(nn.Module):
    """One weight for all layers, and a low-rank residue and a bias for each (MMRL++)."""

    def __init__(self, width_in: int, width_out: int, layers: int, rank: int):
        super().__init__()
        single = nn.Linear(width_in, width_out)
        self.weight = single.weight
        self.srra = nn.ModuleList(LowRank(width_in, width_out, rank, single.bias) for _ in range(layers))

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """Return the tokens of each layer, (K, width_out)."""
        return [F.linear(tokens, self.weight + own.A @ own.B, own.bias) for own in self.srra]


class Representations(nn.Module):
    """Tokens of the shared space, their maps to both towers, and the projection of the vision tower's.

    Attributes:
        tokens: R, (K, r).
        vision: From R to the tokens of each vision layer.
        text: The same for the text tower.
        projection: P_rep, (D_v, d); of MMRL++, what is added to CLIP's projection, as ``A`` and ``B``.
    """

    def __init__(self, tokens: Tensor, vision: nn.Module, text: nn.Module, projection: nn.Parameter | nn.Module):
        super().__init__()
        self.tokens = nn.Parameter(tokens)
        self.vision, self.text = vision, text
        self.projection = projection


class MMRL(KeepsFirstTexts, PromptTrainer):
    """Learn tokens of a space that both towers share, next to CLIP's own, and read the vision tower's as a second view.

    The tokens enter at the first of REP_LAYERS and are given anew at each later one (PLUS_PLUS: blended with what the
    layer before made of them, MMRL++, progressive composition). The logits of the class token generalise, those of the
    representation tokens fit the training's classes: where these are tested, the two are fused, ``ALPHA logits +
    (1 - ALPHA) logits_r``, else the first are read alone. The authors' key TASK says so by protocol; without it, the
    checkpoint's own record does.

    The authors' code writes the factor 100 where this takes CLIP's own, which is 100 in all of OpenAI's, and keeps the
    texts and tokens of the first evaluation for good; here they follow the weights (OFFICIAL True: as theirs).
    """

    options = {
        "PREC": "amp",
        "ALPHA": 0.7,
        "REG_WEIGHT": 0.5,
        "N_REP_TOKENS": 5,
        "REP_LAYERS": [],
        "REP_DIM": 512,
        "PLUS_PLUS": False,
        "BETA": 0.9,
        "RES_LORA_DIM": 4,
        "PROJ_LORA_DIM": 64,
        "OFFICIAL": False,
    }
    allowed = {
        "ALPHA": Real("share of the class token's logits in loss and fusion", 0, 1),
        "REG_WEIGHT": WEIGHT,
        "N_REP_TOKENS": Whole("representation tokens", 1, LONGEST),
        "REP_LAYERS": Several("layers that get tokens, from 1; empty: from the middle on", Whole("", 1, LAYERS)),
        "REP_DIM": Whole("width of the shared space", 1, 100_000),
        "PLUS_PLUS": Flag("MMRL++: shared maps with low-rank residues, composed progressively"),
        "BETA": Real("MMRL++: share of a layer's own tokens", 0, 1),
        "RES_LORA_DIM": Whole("MMRL++: rank of a layer's residue", 1, 10_000),
        "PROJ_LORA_DIM": Whole("MMRL++: rank of the projection's residue", 1, 10_000),
    }
    checkpoint_folder = "MultiModalRepresentationLearner"
    official_names = (
        (r"representation_learner\.compound_rep_tokens", "tokens"),
        (r"representation_learner\.(?:compound_rep_tokens_r2|srra_r2)vproj\.(.+)", r"vision.\1"),
        (r"representation_learner\.(?:compound_rep_tokens_r2|srra_r2)tproj\.(.+)", r"text.\1"),
        (r"image_encoder\.proj_rep", "projection"),
        (r"image_encoder\.([AB])", r"projection.\1"),
    )
    official_ignored = (r"prompt_embeddings",)

    def build_learner(self) -> Representations:
        """Write the class sentences; keep their frozen features; build the tokens and their maps."""
        s, sizes = self.settings, self.anatomy
        self.layers = self.prompted_layers()
        sentences = fill(self.template, self.classnames)
        self.sentences = encoders.embed_tokens(self.clip, tokenize(self.clip, sentences))
        self.text_anchors = class_anchors(self.clip, [[sentence] for sentence in sentences])
        tokens = 0.02 * torch.randn(s.N_REP_TOKENS, s.REP_DIM)
        shape, count = (sizes.vision_width, sizes.joint_width), len(self.layers)
        if s.PLUS_PLUS:
            vision = SharedMaps(s.REP_DIM, sizes.vision_width, count, s.RES_LORA_DIM)
            text = SharedMaps(s.REP_DIM, sizes.text_width, count, s.RES_LORA_DIM)
            return Representations(tokens, vision, text, LowRank(shape[1], shape[0], s.PROJ_LORA_DIM))
        projection = nn.Parameter(shape[0] ** -0.5 * torch.randn(shape))
        own = Maps(s.REP_DIM, sizes.vision_width, count), Maps(s.REP_DIM, sizes.text_width, count)
        return Representations(tokens, own[0], own[1], projection)

    def prompted_layers(self) -> list[int]:
        """Return the layers that get tokens, ascending.

        Raises:
            ValueError: A layer that a tower does not have, or one twice.
        """
        sizes, asked = self.anatomy, list(self.settings.REP_LAYERS)
        depth = min(sizes.text_layers, sizes.vision_layers)
        if not depth:
            raise ValueError(f"{type(self).__name__} needs a ViT backbone (e.g. ViT-B/16), and this CLIP has a ResNet")
        if asked and (max(asked) > depth or len(set(asked)) < len(asked)):
            raise ValueError(
                f"TRAINER.{self.node()}.REP_LAYERS is {asked}; allowed: each layer of 1 to {depth} once, or [] for the "
                "layers from the middle on"
            )
        return sorted(asked) or list(range(max(1, depth // 2), depth + 1))

    def prompts(self, tokens: list[Tensor]) -> list[Any]:
        """Place the tokens of each layer; see `encoders.py`."""
        placed: list[Any] = [None] * self.layers[-1]
        for layer, own in zip(self.layers, tokens):
            placed[layer - 1] = own
            if self.settings.PLUS_PLUS and layer != self.layers[0]:
                placed[layer - 1] = self._blend(own)
        return placed

    def _blend(self, own: Tensor) -> Any:
        """Return the function from what the layer before made of the slots to their new states."""
        beta = self.settings.BETA
        return lambda states: beta * own + (1 - beta) * states

    def text_features(self) -> Tensor:
        """Return the features of the class sentences, normalised, (C, d)."""
        prompts = self.prompts(self.learner.text(self.learner.tokens))
        return unit(encoders.encode_text(self.clip, self.sentences, prompts, bare=True))

    def vision_prompts(self) -> list[Any]:
        """Return the tokens of the vision tower, placed."""
        return self.first("tokens", lambda: self.prompts(self.learner.vision(self.learner.tokens)))

    def both_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of the class token and of the representation tokens, normalised, each (B, d)."""
        features, states = encoders.encode_image_inserted(self.clip, images, self.vision_prompts(), bare=True)
        projection = self.learner.projection
        if self.settings.PLUS_PLUS:
            projection = vision_projection(self.clip).float() + projection.A @ projection.B
        return unit(features), unit(states.mean(dim=1).float() @ projection.float())

    def image_features(self, images: Tensor) -> Tensor:
        """Return what is compared with the class texts, (B, d).

        These are normalised features; where logits are fused, the blend of both, whose products with the texts are the
        fused cosines.
        """
        if not self.fuses:
            return unit(encoders.encode_image(self.clip, images, self.vision_prompts(), bare=True))
        alpha = self.settings.ALPHA
        features, representation = self.both_features(images)
        return alpha * features + (1 - alpha) * representation

    @property
    def fuses(self) -> bool:
        """Whether a test reads both logits: on the classes of the training, see the class."""
        data = self.cfg.DATASET
        by_task = {"B2N": data.SUBSAMPLE_CLASSES == "base", "FS": True, "CD": data.NAME == "ImageNet"}
        return by_task.get(self.cfg.TASK, self.knows_classes)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy of both logits, and the distances of both towers' features to frozen CLIP's."""
        s, text = self.settings, self.class_features()
        image, representation = self.both_features(batch.images)
        with torch.no_grad():
            teacher = unit(encoders.encode_image(self.clip, batch.images))
        fit = F.cross_entropy(self.logits(representation, text), batch.labels)
        return {
            "ce": s.ALPHA * self.cross_entropy(self.logits(image, text), batch.labels),
            "ce_rep": (1 - s.ALPHA) * fit,
            "image": s.REG_WEIGHT * (1 - (image * teacher).sum(dim=-1).mean()),
            "text": s.REG_WEIGHT * (1 - (text * self.text_anchors).sum(dim=-1).mean()),
        }


class MMRLpp(MMRL):
    """MMRL++ under its authors' name and node: MMRL with PLUS_PLUS."""

    config_node = "MMRLpp"
    options = {**MMRL.options, "PLUS_PLUS": True}
