"""TCP: class-aware prompts in a middle layer of the text tower (Yao et al., CVPR 2024)."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from ..allowed import OneOf, Whole
from ..clip_patches import encoders
from ..clip_patches.anatomy import activation
from .base import unit
from .kgcoop import KgCoOp
from .parts.options import LAYERS
from .parts.prompts import Context


class ClassAwareContext(Context):
    """A context for all classes, and a bottleneck that maps the frozen text feature of a class to one of its own.

    Args:
        ctx: Start of the context, (n, D).
        joint: Width d of the text features.
        non_linearity: Between the two layers.
    """

    def __init__(self, ctx: Tensor, joint: int, non_linearity: nn.Module):
        super().__init__(ctx)
        self.meta_net = nn.Sequential(
            OrderedDict(
                linear1=nn.Linear(joint, joint // 4),
                relu=non_linearity,
                linear2=nn.Linear(joint // 4, ctx.numel()),
            )
        )

    def forward(self, text_features: Tensor) -> Tensor:
        """Turn normalised text features (C, d) into class-aware prompts, (C, n, D)."""
        return self.meta_net(text_features).unflatten(-1, self.ctx.shape)


class TCP(KgCoOp):
    """Learn a context that class-aware prompts replace half-way through the text tower; W weighs KgCoOp's term.

    Written after the paper and not checked against recorded numbers; these details may differ from the authors' code:

    * the layer at whose input the class-aware prompts enter (the paper says 8 of 12),
    * their weight against the tokens they replace (all),
    * the bottleneck's width (d / 4) and activation (CLIP's own),
    * the text behind the frozen features (the data set's hand-written prompt).
    """

    options = {**KgCoOp.options, "PROMPT_LAYER": -1}
    allowed = {
        "PROMPT_LAYER": Whole("layer of the class-aware prompts; -1: at two thirds of the tower", 2, LAYERS, (-1,)),
        "CSC": OneOf("one context serves all classes", (False,)),
        "CLASS_TOKEN_POSITION": OneOf("the class name follows the context", ("end",)),
    }
    official_names = ((r"prompt_learner\.(ctx|meta_net\..+)", r"\1"),)
    official_ignored = (r"(prompt_learner\.)?bias_vectors",)

    def build_learner(self) -> ClassAwareContext:
        """Choose the layer of the class-aware prompts; build both contexts."""
        layers, layer = self.anatomy.text_layers, self.settings.PROMPT_LAYER
        if layer != -1 and not 2 <= layer <= layers:
            raise ValueError(
                f"TRAINER.{self.node()}.PROMPT_LAYER {layer} is not possible: allowed are 2 to {layers}, or -1 for "
                "two thirds of the tower"
            )
        if layer == -1:
            layer = round(layers * 2 / 3)
        self.unprompted_layers: list[None] = [None] * (layer - 2)  # between the context and the class-aware prompts
        context = super().build_learner()
        return ClassAwareContext(context.ctx, self.text_anchors.shape[1], activation(self.clip))

    def text_features(self) -> Tensor:
        """Return the features of the class names behind both contexts, normalised, (C, d)."""
        by_class = self.learner(self.text_anchors).unsqueeze(0)  # (1, C, n, D)
        prompts = [self.learner.ctx, *self.unprompted_layers, by_class]
        return unit(encoders.encode_text(self.clip, self.names, prompts)).squeeze(0)
