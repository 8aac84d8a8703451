"""CLIPAdapter: a bottleneck over frozen image features (Gao et al., CLIP-Adapter, IJCV 2023)."""

from __future__ import annotations

from torch import Tensor, nn

from ..allowed import Real, Whole
from ..clip_patches import encoders
from ..clip_patches.class_texts import class_anchors, fill
from .base import PromptTrainer, unit


class Adapter(nn.Module):
    """Two linear layers without bias, each followed by a ReLU: its output is never negative.

    Args:
        width: Width d of the features.
        hidden: Width of the layer between.
    """

    def __init__(self, width: int, hidden: int):
        super().__init__()
        layers = (nn.Linear(width, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, width, bias=False), nn.ReLU())
        self.fc = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Adapt features, (B, d)."""
        return self.fc(features)


class CLIPAdapter(PromptTrainer):
    """Mix the raw image feature v with what a bottleneck makes of it: ``RATIO a(v) + (1 - RATIO) v``, equation 5.

    The class texts are those of the data set's hand-written prompt. In the released code the ratio is a literal, 0.2,
    and the width that of ResNet-50, 1024; here the first is an option and the second the backbone's. The paper's
    adapter of the class texts is in neither.
    """

    options = {"PREC": "fp32", "RATIO": 0.2, "REDUCTION": 4}
    allowed = {
        "RATIO": Real("share of the adapted feature", 0, 1),
        "REDUCTION": Whole("width of the features over that of the bottleneck", 1, 10_000),
    }
    official_trainer = "CLIP_Adapter"
    checkpoint_folder = "clip_adapter"
    official_names = ((r"(?:adapter\.)?fc\.([02])\.weight", r"fc.\1.weight"),)

    def build_learner(self) -> Adapter:
        """Compute the class texts; build the bottleneck."""
        self.text_anchors = class_anchors(self.clip, [[sentence] for sentence in fill(self.template, self.classnames)])
        width = self.anatomy.joint_width
        return Adapter(width, max(1, width // self.settings.REDUCTION))

    def text_features(self) -> Tensor:
        """Return the frozen class texts, (C, d)."""
        return self.text_anchors

    def image_features(self, images: Tensor) -> Tensor:
        """Return the adapted features of images, normalised, (B, d)."""
        features = encoders.encode_image(self.clip, images).float()
        return unit(self.settings.RATIO * self.learner(features) + (1 - self.settings.RATIO) * features)
