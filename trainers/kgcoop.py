"""KgCoOp: CoOp whose text features stay near those of hand-written prompts (Yao et al., CVPR 2023)."""

from __future__ import annotations

from ..clip_patches.class_texts import class_anchors, fill
from .coop import CoOp

# The one data set whose prompt differs from CoOp's in the authors' code.
TEMPLATES = {"DescribableTextures": "a photo of a {}, a type of texture."}


class KgCoOp(CoOp):
    """Add W times the mean cosine distance between learned and hand-written class texts.

    Its options stand in CoOp's node of the config, as in the authors' code, where CTX_INIT is True rather than words.
    """

    config_node = "COOP"
    options = {**CoOp.options, "W": 8.0, "ALPHA": 1.0}  # ALPHA stands in the authors' configs and plays no part
    official_ignored = (r"(prompt_learner\.)?(meta_net\.linear1\..+|bias_vectors)",)  # left over in the authors' class

    def build_learner(self):
        """Keep the frozen class texts."""
        template = self.cfg.DATASET.TEMPLATE or TEMPLATES.get(self.cfg.DATASET.NAME, self.template)
        self.text_anchors = class_anchors(self.clip, [[s] for s in fill(template, self.classnames)])
        return super().build_learner()

    def losses(self, batch):
        """Cross-entropy and the distance to the frozen class texts."""
        text = self.text_features()
        similarity = (text * self.text_anchors).sum(dim=-1)  # cosines, (C,)
        return {
            "ce": self.cross_entropy(self.logits(self.image_features(batch.images), text), batch.labels),
            "text": self.settings.W * (1 - similarity).mean(),
        }
