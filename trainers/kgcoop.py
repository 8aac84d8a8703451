"""KgCoOp: CoOp whose text features stay near those of hand-written prompts (Yao et al., CVPR 2023)."""

from __future__ import annotations

from torch import Tensor

from ..allowed import Real
from ..clip_patches.class_texts import class_anchors, fill
from .base import Batch
from .coop import CoOp
from .parts.prompts import Context

# The only data set whose prompt differs from CoOp's in the authors' code.
TEMPLATES = {"DescribableTextures": "a photo of a {}, a type of texture."}


class KgCoOp(CoOp):
    """Add W times the mean cosine distance between learned and hand-written class texts.

    Its options are in CoOp's node of the config, as in the authors' code, where CTX_INIT is True rather than words.
    """

    config_node = "COOP"
    options = {**CoOp.options, "W": 8.0, "ALPHA": 1.0}
    allowed = {
        "W": Real("weight of the distance to the hand-written class texts", 0, 1e6),
        "ALPHA": Real("in the authors' configs; has no effect", 0, 1e6),
    }
    official_ignored = (r"(prompt_learner\.)?(meta_net\.linear1\..+|bias_vectors)",)  # unused in the authors' class

    def build_learner(self) -> Context:
        """Compute the frozen class texts; build the context."""
        template = self.cfg.DATASET.TEMPLATE or TEMPLATES.get(self.cfg.DATASET.NAME, self.template)
        self.text_anchors = class_anchors(self.clip, [[sentence] for sentence in fill(template, self.classnames)])
        return super().build_learner()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy, and the distance to the frozen class texts."""
        text = self.class_features()
        similarity = (text * self.text_anchors).sum(dim=-1)  # cosines, (C,)
        return {
            "ce": self.cross_entropy(self.logits(self.image_features(batch.images), text), batch.labels),
            "text": self.settings.W * (1 - similarity).mean(),
        }
