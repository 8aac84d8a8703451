"""MMA: adapters beside the upper blocks of both towers, joined by a shared map (Yang et al., CVPR 2024)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..allowed import Real, Whole, Words
from ..clip_patches import encoders
from ..clip_patches.anatomy import block_norm, tokenize
from ..clip_patches.class_texts import fill
from ..clip_patches.loading import token_ids
from .base import PromptTrainer, unit
from .parts.options import LAYERS
from .parts.prompts import context_words
from .parts.stale import KeepsFirstTexts


def bottleneck(width_in: int, width_out: int) -> nn.Linear:
    """Return a linear map that starts from Kaiming's normal draw by its outputs, its bias from zero."""
    linear = nn.Linear(width_in, width_out)
    nn.init.kaiming_normal_(linear.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(linear.bias)
    return linear


class Adapters(nn.Module):
    """Adapters of both towers by layer, ``scale * up(relu(shared(relu(down(x)))))``.

    Their parameters get the gradient without the factor ``scale``, what flows on to the tower the true one.

    Args:
        widths: Width of each tower, by its name.
        layers: Adapted layers, from 1.
        hidden: Width of the bottleneck.
        scale: Factor on the output; above 0.
    """

    def __init__(self, widths: dict[str, int], layers: Iterable[int], hidden: int, scale: float):
        super().__init__()
        self.scale, names = scale, [str(layer) for layer in layers]
        self.towers = nn.ModuleDict()
        for tower, width in widths.items():
            self.towers[tower] = nn.ModuleDict(
                {i: nn.ModuleDict({"down": bottleneck(width, hidden), "up": bottleneck(hidden, width)}) for i in names}
            )
        self.shared = nn.ModuleDict({i: bottleneck(hidden, hidden) for i in names})
        for parameter in self.parameters():
            parameter.register_hook(lambda gradient: gradient / scale)

    def forward(self, tower: str, layer: int, x: Tensor) -> Tensor:
        """Return what a layer of a tower adds for tokens, (..., D)."""
        own = self.towers[tower][str(layer)]
        return self.scale * own["up"](F.relu(self.shared[str(layer)](F.relu(own["down"](x)))))


class MMA(KeepsFirstTexts, PromptTrainer):
    """Learn adapters beside whole blocks of both towers by cross-entropy.

    An adapter sees each token at the input of its block, after the block's own norm, and adds to the block's output.
    As in the authors' code its parameters' gradients are those of the true loss over ADAPTER_SCALE, without which the
    method does not train at their rates. Their layer 0, before the first block, is left out: no setting of theirs uses
    it. Their code keeps the class texts of the first evaluation for good; here they follow the weights (OFFICIAL True:
    as theirs).
    """

    config_node = "MMADAPTER"
    official_trainer = "MultiModalAdapter"
    options = {
        "PREC": "amp",
        "TEXT_CTX_INIT": "a photo of a",
        "ADAPTER_START": -1,
        "ADAPTER_END": -1,
        "ADAPTER_DIM": 32,
        "ADAPTER_SCALE": 0.001,
        "OFFICIAL": False,
    }
    allowed = {
        "TEXT_CTX_INIT": Words("words in front of the class name"),
        "ADAPTER_START": Whole("first adapted layer; -1: after a third of the layers", 1, LAYERS, (-1,)),
        "ADAPTER_END": Whole("last adapted layer; -1: the last that both towers have", 1, LAYERS, (-1,)),
        "ADAPTER_DIM": Whole("width of the bottleneck", 1, 100_000),
        "ADAPTER_SCALE": Real("factor on what an adapter adds", 0, 1000, above=True),
    }
    checkpoint_folder = "adapter_learner"
    official_names = (
        (r"(?:adapter_learner\.)?(text|visual)_adapter\.(\d+)\.down\.0\.(.+)", r"towers.\1.\2.down.\3"),
        (r"(?:adapter_learner\.)?(text|visual)_adapter\.(\d+)\.up\.(.+)", r"towers.\1.\2.up.\3"),
        (r"(?:adapter_learner\.)?shared_adapter\.(\d+)\.0\.(.+)", r"shared.\1.\2"),
    )
    official_ignored = (r"(adapter_learner\.)?(token_embedding|tokenized_prompts)",)

    @classmethod
    def tokens_in_front(cls, settings: Any) -> int:
        """See :meth:`PromptTrainer.tokens_in_front`."""
        return len(token_ids(context_words(settings.TEXT_CTX_INIT)))

    def build_learner(self) -> Adapters:
        """Write the class sentences; build the adapters."""
        s, sizes = self.settings, self.anatomy
        sentences = fill(f"{context_words(s.TEXT_CTX_INIT)} {{}}.", self.classnames)
        self.sentences = encoders.embed_tokens(self.clip, tokenize(self.clip, sentences))
        widths = {"text": sizes.text_width, "visual": sizes.vision_width}
        return Adapters(widths, self.adapted_layers(), s.ADAPTER_DIM, s.ADAPTER_SCALE)

    def adapted_layers(self) -> range:
        """Return the layers that have an adapter.

        Raises:
            ValueError: No such layers in both towers.
        """
        start, end = self.settings.ADAPTER_START, self.settings.ADAPTER_END
        depth = min(self.anatomy.text_layers, self.anatomy.vision_layers)
        if not depth:
            raise ValueError(f"{type(self).__name__} needs a ViT backbone (e.g. ViT-B/16), and this CLIP has a ResNet")
        first, last = depth // 3 + 1 if start == -1 else start, depth if end == -1 else end
        if not first <= last <= depth:
            raise ValueError(
                f"TRAINER.{self.node()}.ADAPTER_START {start} and ADAPTER_END {end} give no layers that both towers of "
                f"this CLIP have; allowed: 1 to {depth}, the start not after the end"
            )
        return range(first, last + 1)

    def beside(self, tower: str, layer: int, x: Tensor) -> Tensor | None:
        """Return what the adapter of a layer adds; see `encoders.py`."""
        if str(layer) not in self.learner.shared:
            return None
        return self.learner(tower, layer, block_norm(self.clip, tower, layer)(x).float())

    def text_features(self) -> Tensor:
        """Return the features of the class sentences, normalised, (C, d)."""
        return unit(encoders.encode_text(self.clip, self.sentences, beside=self.beside))

    def image_features(self, images: Tensor) -> Tensor:
        """Return the features of images, normalised, (B, d)."""
        return unit(encoders.encode_image(self.clip, images, beside=self.beside))
