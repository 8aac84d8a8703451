"""TCP: class-aware prompts in a middle layer of the text tower (Yao et al., CVPR 2024)."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from ..clip_patches import encoders
from .base import unit
from .kgcoop import KgCoOp


class ClassAwareContext(nn.Module):
    """A context for all classes, and a bottleneck that makes one for each class out of its frozen text feature.

    Args:
        ctx: Start of the context, (n, D).
        joint: Width d of the text features.
        activation: What stands between the two layers.
    """

    def __init__(self, ctx: Tensor, joint: int, activation: nn.Module):
        super().__init__()
        self.ctx = nn.Parameter(ctx.detach().float().clone())
        self.meta_net = nn.Sequential(
            OrderedDict(
                linear1=nn.Linear(joint, joint // 4), relu=activation, linear2=nn.Linear(joint // 4, ctx.numel())
            )
        )

    def forward(self, text_features: Tensor) -> Tensor:
        """Turn normalised text features (C, d) into class-aware prompts, (C, n, D)."""
        return self.meta_net(text_features).unflatten(-1, self.ctx.shape)


class TCP(KgCoOp):
    """Learn a context that class-aware prompts replace half-way through the text tower; W weighs KgCoOp's term.

    Written after the paper; not held to recorded numbers, and these details may differ from the authors' code: the
    layer at whose input the class-aware prompts come in (the paper says 8 of 12), their weight against the tokens they
    replace (all), the bottleneck's width (d / 4) and activation (CLIP's own), and that the frozen features are those of
    the data set's hand-written prompt.
    """

    options = {**KgCoOp.options, "PROMPT_LAYER": -1}  # -1: two thirds of the tower, 8 of 12
    official_names = ((r"prompt_learner\.(ctx|meta_net\..+)", r"\1"),)
    official_ignored = (r"(prompt_learner\.)?bias_vectors",)

    def check_cfg(self, cfg):
        """Refuse contexts that the class-aware prompts could not replace."""
        super().check_cfg(cfg)
        s = cfg.TRAINER[self.node()]
        if s.CSC or s.CLASS_TOKEN_POSITION != "end":
            raise ValueError(
                f"TCP takes one context in front of the class name: CSC False and CLASS_TOKEN_POSITION 'end', not CSC {s.CSC} "
                f"and {s.CLASS_TOKEN_POSITION!r}"
            )

    def build_learner(self):
        """Place the class-aware prompts."""
        layers, layer = len(self.clip.transformer.resblocks), self.settings.PROMPT_LAYER
        if layer != -1 and not 2 <= layer <= layers:
            raise ValueError(
                f"PROMPT_LAYER {layer} is not possible: allowed are 2 to {layers}, or -1 for two thirds of the tower"
            )
        self.flow_on = [None] * ((round(layers * 2 / 3) if layer == -1 else layer) - 2)
        ctx, activation = super().build_learner().ctx, self.clip.transformer.resblocks[0].mlp.gelu
        return ClassAwareContext(ctx, self.text_anchors.shape[1], activation)

    def text_features(self):
        """See :meth:`PromptTrainer.text_features`."""
        by_class = self.learner(self.text_anchors).unsqueeze(0)  # (1, C, n, D)
        prompts = [self.learner.ctx, *self.flow_on, by_class]
        return unit(encoders.encode_text(self.clip, self.names, prompts)).squeeze(0)
