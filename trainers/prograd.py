"""ProGrad: CoOp that never steps against what frozen CLIP knows (Zhu et al., ICCV 2023)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..allowed import Real
from ..clip_patches.class_texts import class_anchors, fill
from .base import Batch
from .coop import CoOp
from .parts.prompts import Context


class ProGrad(CoOp):
    """Minimise the cross-entropy without steps that raise the divergence from the zero-shot logits.

    The gradient of the cross-entropy loses its part against the gradient of the divergence. The projection is done
    here: real Dassl lacks ``prograd_backward_and_update``, which the authors' fork of it has.

    Written after the paper and not checked against recorded numbers; these details may differ from the authors' code:
    the zero-shot logits come from the data set's hand-written prompt alone, and the projection is done tensor by tensor
    (the context is one). T and LAMBDA are in ``cfg.LOSS`` there; here they are in CoOp's node, with
    the context's own options, or in ``cfg.LOSS``.
    """

    config_node = "COOP"
    official_keys = {"T": "LOSS.T", "LAMBDA": "LOSS.LAMBDA"}
    guides = ("divergence",)
    options = {**CoOp.options, "T": 1.0, "LAMBDA": 1.0}
    allowed = {
        "T": Real("temperature of the divergence", 0, 1000, above=True),
        "LAMBDA": Real("share of the gradient against the divergence that is taken away", 0, 1000),
    }

    def build_learner(self) -> Context:
        """Compute the frozen class texts; build the context."""
        sentences = fill(self.template, self.classnames)
        self.text_anchors = class_anchors(self.clip, [[sentence] for sentence in sentences])
        return super().build_learner()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy, and the divergence from the zero-shot logits, which only guides the step."""
        images, temperature = self.image_features(batch.images), self.option(self.cfg, "T")
        logits = self.logits(images, self.class_features())
        target = F.softmax(self.logits(images, self.text_anchors) / temperature, dim=-1)
        divergence = temperature**2 * F.cross_entropy(logits / temperature, target)  # up to the target's entropy
        return {"ce": self.cross_entropy(logits, batch.labels), "divergence": divergence}

    def change_gradients(self) -> None:
        """Subtract LAMBDA times the part of the gradient that would raise the divergence."""
        strength = self.option(self.cfg, "LAMBDA")
        for weight, gradient in zip(self.learner.parameters(), self.guide_gradients["divergence"]):
            direction = F.normalize(gradient.flatten(), dim=0)
            against = (weight.grad.flatten() @ direction).clamp(max=0)  # 0 where the two agree
            weight.grad -= strength * against * direction.view_as(weight)
