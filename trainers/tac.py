"""TAC: Task-Aware Clustering for Prompting Vision-Language Models (Hao et al., CVPR 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..allowed import Flag, OneOf, Real, Whole
from ..clip_patches import encoders
from ..clip_patches.anatomy import tokenize
from ..clip_patches.attention import precontext_mask
from ..clip_patches.class_texts import class_anchors, fill, template_sentences
from ..clip_patches.clustering import spherical_kmeans
from ..clip_patches.stock import CLIP
from .base import Batch, PromptTrainer, unit
from .ivlp import IVLP
from .parts.averaging import WeightAverage
from .parts.feature_cache import FeatureCache
from .parts.prompts import DeepPrompts, context_from_words, context_words


class TaskAwarePrompts(DeepPrompts):
    """Deep prompts with the task-aware pre-context in front of them.

    Args:
        towers: Towers that get the pre-context: ``both``, ``text``, ``vision`` or ``none``.
        centers: Task centres, unit length, (K, d). Not learned; saved in the checkpoint.
        clip, ctx, n_vision, depth_text, depth_vision: See :class:`DeepPrompts`.
    """

    def __init__(
        self,
        towers: str,
        centers: Tensor,
        clip: CLIP,
        ctx: Tensor,
        n_vision: int,
        depth_text: int,
        depth_vision: int,
    ):
        super().__init__(clip, ctx, n_vision, depth_text, depth_vision)
        self.towers = towers
        self.register_buffer("centers", centers.clone())
        self.to_text = nn.Linear(centers.shape[1], ctx.shape[1])
        self.to_vision = nn.Linear(centers.shape[1], self.deep_vision[0].shape[1] if len(self.deep_vision) else 1)

    def forward(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return ``[pre-context][prompts]`` of the prompted layers of both towers.

        Returns:
            Tokens of the text layers, each (K + n, D_t), and of the vision layers, each (K + n_vision, D_v).
        """
        text, vision = super().forward()
        pre_text, pre_vision = self.to_text(self.centers), self.to_vision(self.centers)
        if self.towers in ("both", "text"):
            text = [torch.cat([pre_text, p]) for p in text]
        if self.towers in ("both", "vision"):
            vision = [torch.cat([pre_vision, p]) for p in vision]
        return text, vision


class TAC(PromptTrainer):
    """Prompt both towers with the cluster centres of the task's class texts."""

    options = {
        "N_CTX_VISION": 5,
        "N_CTX_TEXT": 5,
        "CTX_INIT": "a photo of a",
        "PREC": "fp16",
        "PROMPT_DEPTH_VISION": 12,
        "PROMPT_DEPTH_TEXT": 12,
        "TEXT_LOSS_WEIGHT": 20,
        "IMAGE_LOSS_WEIGHT": 25,
        "N_CENTERS": 5,
        "CENTERS_INIT": "random",
        "RECLUSTER": False,
        "DESCRIPTIONS": "",
        "IMAGE_DROPOUT": 0.3,
        "TARGET_DROPOUT": 0.3,
        "PRECONTEXT": "both",
        "MASK": True,
    }
    allowed = {
        "N_CENTERS": Whole("task centres; no more than there are classes", 1, 100_000),
        "CENTERS_INIT": OneOf("start of the clustering", ("random", "k-means++")),
        "RECLUSTER": Flag("at a test, cluster the classes at hand instead of keeping the training task's centres"),
        "IMAGE_DROPOUT": Real("dropout of the image features in training", 0, 1, below=True),
        "TARGET_DROPOUT": Real("dropout of the frozen image features in training", 0, 1, below=True),
        "PRECONTEXT": OneOf("towers that see the task centres", ("both", "text", "vision", "none")),
        "MASK": Flag("keep patches from attending to the task centres"),
    }
    checkpoint_folder = "VLPromptLearner"
    official_names = (
        (r"VPT_topk_t\.(\w+)", r"to_text.\1"),
        (r"VPT_topk_v\.(\w+)", r"to_vision.\1"),
        (r"topk", "centers"),
        *IVLP.official_names,
    )
    official_ignored = (r"prompt_learner\.(topk|ZS_image_encoder\..+)",)

    @classmethod
    def check_cfg(cls, cfg: Any) -> None:
        """Refuse loaders that do not return the image without augmentation."""
        super().check_cfg(cfg)
        if not cfg.DATALOADER.RETURN_IMG0:
            raise ValueError("TAC's image term needs the un-augmented image: set DATALOADER.RETURN_IMG0 True")

    @classmethod
    def tokens_in_front(cls, settings: Any) -> int:
        """See :meth:`PromptTrainer.tokens_in_front`."""
        centers = settings.N_CENTERS if settings.PRECONTEXT in ("both", "text") else 0
        return super().tokens_in_front(settings) + settings.N_CTX_TEXT + centers

    def build_learner(self) -> TaskAwarePrompts:
        """Cluster the class texts; write the class sentences, whose words the prompts do not replace."""
        s = self.settings
        sentences = self.descriptions() or template_sentences(self.classnames)
        self.text_anchors = class_anchors(self.clip, sentences)
        centers = spherical_kmeans(self.text_anchors, min(s.N_CENTERS, len(sentences)), init=s.CENTERS_INIT)
        words = context_words(s.CTX_INIT)
        ctx = context_from_words(self.clip, words, s.N_CTX_TEXT)
        tokens = tokenize(self.clip, fill(words + " {}.", self.classnames))
        self.sentences = encoders.embed_tokens(self.clip, tokens)
        self.teacher = FeatureCache(len(self.dm.dataset.train_x))
        self.average = WeightAverage()
        return TaskAwarePrompts(
            s.PRECONTEXT, centers, self.clip, ctx, s.N_CTX_VISION, s.PROMPT_DEPTH_TEXT, s.PROMPT_DEPTH_VISION
        )

    def text_features(self) -> Tensor:
        """Return the features of the prompted class sentences, normalised, (C, d)."""
        return unit(encoders.encode_text(self.clip, self.sentences, self.learner()[0]))

    def image_features(self, images: Tensor) -> Tensor:
        """Return the features of the prompted images, with dropout in training, normalised, (B, d)."""
        prompts = self.learner()[1]
        mask = None
        if prompts and self.settings.MASK and self.settings.PRECONTEXT in ("both", "vision"):
            n_centers = len(self.learner.centers)
            mask = precontext_mask(self.anatomy.patches, n_centers, len(prompts[0]) - n_centers, images.device)
        features = encoders.encode_image(self.clip, images, prompts, mask).float()
        return unit(F.dropout(features, self.settings.IMAGE_DROPOUT, self.learner.training))

    def teacher_features(self, batch: Batch) -> Tensor:
        """Return frozen features of the images without augmentation, with dropout in training.

        Returns:
            Normalised, repeated for the views, (views * B, d).
        """
        img0 = batch.img0
        assert img0 is not None  # check_cfg asks for it

        def encode(rows: Tensor | slice) -> Tensor:
            return encoders.encode_image(self.clip, img0[rows]).float()

        with torch.no_grad():
            frozen = self.teacher.get_or_compute(batch.index, encode)
        return unit(F.dropout(frozen, self.settings.TARGET_DROPOUT, self.learner.training)).repeat(batch.views, 1)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy, and the distances of text and image features to the frozen ones."""
        text, image = self.class_features(), self.image_features(batch.images)
        target = self.teacher_features(batch)
        return {
            "ce": self.cross_entropy(self.logits(image, text), batch.labels),
            "text": self.settings.TEXT_LOSS_WEIGHT * F.l1_loss(text, self.text_anchors),
            "image": self.settings.IMAGE_LOSS_WEIGHT * F.l1_loss(image, target),
        }

    def end_epoch(self) -> None:
        """Add the epoch to the average, which replaces the weights after the last epoch."""
        self.teacher.share()
        self.average.add(self.learner, 1 / self.max_epoch)
        if self.epoch + 1 == self.max_epoch:
            self.average.load_into(self.learner)

    def trainer_state(self) -> dict:
        """Return the state that a resumed run needs beside the weights."""
        return {"average": self.average.state_dict(), "teacher": self.teacher.state_dict()}

    def load_trainer_state(self, state: dict) -> None:
        """Restore :meth:`trainer_state`."""
        self.average.load_state_dict(state["average"])
        self.teacher.load_state_dict(state["teacher"])

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load the weights and the training task's centres; with RECLUSTER, keep the centres of the classes at hand."""
        own = self.learner.centers.clone()
        super().load_model(directory, epoch)
        if self.settings.RECLUSTER:
            self.learner.centers = own

    def before_load(self, weights: Mapping[str, Tensor]) -> None:
        """Take as many centres as the checkpoint has: a task of fewer classes than N_CENTERS has fewer."""
        for name, value in weights.items():
            if name.split(".")[-1] in ("centers", "topk"):
                self.learner.centers = self.learner.centers.new_zeros(len(value), self.learner.centers.shape[1])
