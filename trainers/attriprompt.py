"""AttriPrompt: Dynamic Prompt Composition Learning for CLIP (ACM MM 2025, arXiv 2509.05949).

Reconstructed from the paper: see docs/attriprompt.md.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from dassl.data.data_manager import build_data_loader
from torch import Tensor, nn

from ..allowed import Flag, OneOf, Real, Whole
from ..clip_patches import encoders
from ..clip_patches.class_texts import class_anchors, template_sentences
from ..clip_patches.clustering import cluster_tokens
from ..clip_patches.loading import autocast
from .base import Batch, PromptTrainer, unit
from .parts import ranks
from .parts.feature_cache import ViewCache
from .parts.options import LAYERS, LONGEST
from .parts.prompt_pool import PromptPool, StaticPrompts, Usage, check_settings, inserted_tokens, write_sentences
from .parts.prompts import check_depth, context_words

logger = logging.getLogger(__name__)
KEY_SAMPLE = 512  # training images whose centroids place the keys


class AttriPrompt(PromptTrainer):
    """Compose deep text prompts for every image, from pools that its patch clusters choose from.

    Attributes:
        unrecorded: What runs did that were made before an option existed.
    """

    options = {
        "PREC": "fp16",
        "CTX_INIT": "a photo of a",
        "DESCRIPTIONS": "",
        "N_CTX": 4,
        "PROMPT_DEPTH": -1,
        "RETRIEVAL": True,
        "N_CLUSTERS": 4,
        "POOL_SIZE": 32,
        "POOL": "per_layer",
        "TOP_K": 8,
        "COMBINE": "weighted",
        "TEMPERATURE": 1.0,
        "KEY_INIT": "data",
        "IMAGE_TO_TEXT": 1.0,
        "ALPHA": 1.0,
        "LAMBDA": 25.0,
        "KEY": 0.1,
        "DISTANCE": "l1",
        "ORTHOGONAL": 0.0,
        "STREAM": "end",
        "TEXT_CHUNK": 256,
        "CACHE_VIEWS": 0,
        "CACHE_MB": 4096,
    }

    unrecorded = {"COMBINE": "concatenate"}

    allowed = {
        "N_CTX": Whole("tokens of a prompt", 1, LONGEST),
        "PROMPT_DEPTH": Whole("prompted layers of the text tower; -1: all", 1, LAYERS, (-1,)),
        "RETRIEVAL": Flag("choose prompts for each image; False: the same prompts for all"),
        "N_CLUSTERS": Whole("clusters of an image's patches", 1, 10_000),
        "POOL_SIZE": Whole("prompts in a pool", 1, 100_000),
        "POOL": OneOf("a pool for each layer, or one for all", ("per_layer", "shared")),
        "TOP_K": Whole("prompts that each cluster takes", 1, LONGEST),
        "COMBINE": OneOf(
            "add up a cluster's prompts by their weights, take the nearest with their gradient, or concatenate them",
            ("weighted", "straight_through", "concatenate"),
        ),
        "TEMPERATURE": Real("of the weights: the lower, the more the nearest prompt counts", 1e-3, 1e3),
        "KEY_INIT": OneOf("start of the keys: clusters of the training images, or noise", ("data", "random")),
        "IMAGE_TO_TEXT": Real("weight of the image-to-text term; 0 leaves it out", 0, 1e6),
        "ALPHA": Real("weight of the text-to-image term; 0 leaves it out", 0, 1e6),
        "LAMBDA": Real("weight of the distance to the un-prompted texts; 0 leaves it out", 0, 1e6),
        "KEY": Real("weight of the distance of clusters to keys; 0 leaves it out", 0, 1e6),
        "DISTANCE": OneOf("between prompted and un-prompted texts", ("l1", "cosine")),
        "ORTHOGONAL": Real("weight of the squared cosines between the prompts of a pool; 0 leaves it out", 0, 1e6),
        "STREAM": OneOf(
            "where texts are contrasted with images: at the end, or at every layer with the final image features or "
            "with the layer's attributes",
            ("end", "layers_image", "layers_attributes"),
        ),
        "TEXT_CHUNK": Whole("memory for a chunk of texts, MiB", 1, 1_000_000),
        "CACHE_VIEWS": Whole("augmented views kept of each image; 0: none", 0, 10_000),
        "CACHE_MB": Whole("most memory of these views, MiB", 0, 100_000_000),
    }

    @property
    def text_needs_image(self) -> bool:
        """Whether prompts are retrieved for each image."""
        return self.settings.RETRIEVAL

    @classmethod
    def check_cfg(cls, cfg: Any) -> None:
        """Refuse settings that are invalid for any backbone."""
        super().check_cfg(cfg)
        check_settings(cfg.TRAINER[cls.node()], cls.node())

    @classmethod
    def tokens_in_front(cls, settings: Any) -> int:
        """See :meth:`PromptTrainer.tokens_in_front`."""
        return super().tokens_in_front(settings) + inserted_tokens(settings)

    def build_learner(self) -> nn.Module:
        """Write the class sentences; compute their un-prompted features; make pools that fit both towers."""
        s, sizes = self.settings, self.anatomy
        self.cache: ViewCache | None = None
        self.usage: dict[str, Usage] = {}
        self.retrieved: dict[str, dict] = {}

        depth = check_depth("text", s.PROMPT_DEPTH, sizes.text_layers, 1)
        length = inserted_tokens(s)
        self.sentences = write_sentences(self.clip, context_words(s.CTX_INIT), self.classnames, length)
        self.text_anchors = class_anchors(self.clip, self.descriptions() or template_sentences(self.classnames))
        if not s.RETRIEVAL:
            return StaticPrompts(depth, length, sizes.text_width)

        if s.N_CLUSTERS > sizes.patches:
            why = (
                f"this backbone cuts an image into {sizes.patches}"
                if sizes.patches
                else "a ResNet has none: use a ViT backbone (e.g. ViT-B/16)"
            )
            raise ValueError(f"TRAINER.{self.node()}.N_CLUSTERS is {s.N_CLUSTERS} clusters of patch tokens, but {why}")
        if s.CACHE_VIEWS:
            shapes = (sizes.joint_width,), (depth, s.N_CLUSTERS, sizes.vision_width)
            self.cache = ViewCache(len(self.dm.dataset.train_x), s.CACHE_VIEWS, shapes, s.CACHE_MB)
        temperature = None if s.COMBINE == "concatenate" else s.TEMPERATURE
        hard = s.COMBINE == "straight_through"
        return PromptPool(sizes, depth, s.POOL_SIZE, s.N_CTX, s.TOP_K, s.POOL == "shared", temperature, hard)

    # ------------------------------------------------------------------ image -> prompts -> text
    def encode_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images, and cluster their patch tokens.

        Returns:
            Features, normalised, (B, d), and the patch centroids that feed each text layer, (B, L, K, D_v).
        """
        features, centroids = encoders.encode_image_layers(
            self.clip,
            images,
            self.learner.vision_layers,
            lambda tokens: cluster_tokens(tokens, self.settings.N_CLUSTERS)[0],
        )
        return unit(features), torch.stack(centroids, dim=1)

    def encode_batch(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Encode a training batch, from the cache where CACHE_VIEWS keeps it; without retrieval, no centroids."""
        if not self.settings.RETRIEVAL:
            return self.image_features(batch.images), None
        if self.cache is None or batch.index is None:
            return self.encode_images(batch.images)
        features, centroids = self.cache.get_or_compute(self.epoch, batch.index, batch.images, self.encode_images)
        return features, centroids

    def compose(self, centroids: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Encode the class texts with the prompts that the centroids choose.

        Returns:
            Features, normalised, (B, C, d) or (C, d), and the distance of centroids to keys.
        """
        composed = self.learner(centroids)
        if composed.chosen is not None:
            part = "train" if self.learner.training else "test"
            if part not in self.usage:
                self.usage[part] = Usage(composed.chosen.shape[1], self.settings.POOL_SIZE)
            self.usage[part].add(composed.chosen)
        text = encoders.encode_text(self.clip, self.sentences, composed.prompts, budget_mb=self.settings.TEXT_CHUNK)
        return unit(text), composed.distance

    def text_features(self) -> Tensor:
        """Return the features of the class texts, (C, d), for prompts that do not depend on the image."""
        return self.compose()[0]

    def classify(self, images: Tensor) -> Tensor:
        """Return the logits of images, (B, C), each against class texts of its own."""
        if not self.settings.RETRIEVAL:
            return super().classify(images)
        image, centroids = self.encode_images(images)
        return self.logits(image, self.compose(centroids)[0])

    # ------------------------------------------------------------------ training
    def prepare_parts(self, parts: list[Batch]) -> list[Batch]:
        """Encode all images first: the text-to-image term looks at the whole batch."""
        encoded = [self.encode_batch(part) for part in parts]
        images = ranks.gather(torch.cat([features for features, _ in encoded]))
        labels = ranks.gather(torch.cat([part.labels for part in parts]))
        return [replace(part, prepared=(*each, images, labels)) for part, each in zip(parts, encoded)]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return two contrastive terms, and the distances to the un-prompted texts and of centroids to keys.

        A term whose weight is 0 is left out.
        """
        s = self.settings
        image, centroids, images, labels = (batch if batch.prepared else self.prepare_parts([batch])[0]).prepared
        if centroids is None:
            text, distance = self.class_features(), None
        else:
            text, distance = self.compose(centroids)
        ce = self.cross_entropy(self.logits(image, text), batch.labels)
        terms = {}
        if s.IMAGE_TO_TEXT:
            terms["i2t"] = s.IMAGE_TO_TEXT * ce
        if s.ALPHA:
            rows = torch.arange(len(batch.labels), device=text.device)
            own = text[batch.labels] if text.dim() == 2 else text[rows, batch.labels]  # (B, d)
            terms["t2i"] = s.ALPHA * self.text_to_image(own, batch.labels, images, labels)
            if s.STREAM != "end":
                terms["t2i"] = self.stream_of_layers(batch, centroids, images, labels, terms["t2i"])
        if s.LAMBDA and s.DISTANCE == "cosine":
            terms["text"] = s.LAMBDA * (1 - F.cosine_similarity(text, self.text_anchors.expand_as(text), dim=-1)).mean()
        elif s.LAMBDA:
            terms["text"] = s.LAMBDA * F.l1_loss(text, self.text_anchors.expand_as(text))
        if s.ORTHOGONAL and s.RETRIEVAL:
            terms["orthogonal"] = s.ORTHOGONAL * self.learner.overlap()
        if s.KEY and distance is not None:
            terms["key"] = s.KEY * distance
        return terms

    def stream_of_layers(self, batch: Batch, centroids: Tensor, images: Tensor, labels: Tensor, last: Tensor) -> Tensor:
        """Return the mean of the text-to-image term over the layers; ``last`` is that of the end."""
        prompts = self.learner(centroids).prompts
        states = []  # (L - 1, d) of each image
        for i, label in enumerate(batch.labels.tolist()):
            end = int(self.sentences.eot[label]) + 1
            one = encoders.Sentences(self.sentences.embeddings[label : label + 1, :end], self.sentences.eot[[label]], 1)
            seen: dict[int, Tensor] = {}

            def keep(_: str, layer: int, tokens: Tensor, seen: dict[int, Tensor] = seen) -> None:
                seen[layer] = tokens[..., -1, :].reshape(-1, tokens.shape[-1])[0]  # that of EOT comes last

            encoders.encode_text(self.clip, one, [p[i] for p in prompts], beside=keep)
            rows = torch.stack([seen[layer] for layer in range(2, self.anatomy.text_layers + 1)])
            states.append(unit(self.clip.ln_final(rows) @ self.clip.text_projection))
        terms = [last]
        for layer, own in enumerate(torch.stack(states, dim=1)):
            looked_at = images
            if self.settings.STREAM == "layers_attributes":
                visual = self.clip.visual
                looked_at = unit(visual.ln_post(centroids[:, layer].mean(dim=1)) @ visual.proj)
            terms.append(self.settings.ALPHA * self.text_to_image(own, batch.labels, looked_at, labels))
        return torch.stack(terms).mean()

    def text_to_image(self, own: Tensor, own_labels: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of each image's own class text over the images of the whole batch.

        The target is spread evenly over the images of the class.

        Args:
            own: Text features of the images' own classes, (B, d).
            own_labels: Those classes, (B,).
            images: Image features of the whole batch, (N, d).
            labels: Their labels, (N,).
        """
        same = (own_labels[:, None] == labels).float()
        return F.cross_entropy(self.logits(own, images), same / same.sum(dim=1, keepdim=True))

    @torch.no_grad()
    def start_keys(self) -> None:
        """Place the keys by a sample of the training images; no global random state changes."""
        rng = np.random.RandomState(self.cfg.SEED if self.cfg.SEED >= 0 else None)
        images = self.dm.dataset.train_x
        sample = [images[i] for i in sorted(rng.permutation(len(images))[:KEY_SAMPLE])]
        # The loader draws a seed for its workers.
        with torch.random.fork_rng(devices=[]), autocast(self.precision, self.device):
            loader = build_data_loader(
                self.cfg,
                data_source=sample,
                batch_size=self.cfg.DATALOADER.TEST.BATCH_SIZE,
                tfm=self.test_loader.dataset.transform,
                is_train=False,
            )
            centroids = torch.cat([self.encode_images(batch["img"].to(self.device))[1] for batch in loader])
        self.learner.start_keys(centroids, rng)
        logger.info("Keys placed by the clusters of %d training images", len(sample))

    def before_train(self) -> None:
        """Place the keys, unless they were resumed or loaded."""
        super().before_train()
        if self.settings.RETRIEVAL and self.settings.KEY_INIT == "data" and not self.learner.started:
            self.start_keys()

    def end_epoch(self) -> None:
        """Log how the epoch's images used the pools."""
        if self.cache is not None:
            self.cache.share()
        if "train" in self.usage:
            logger.info("epoch %d, %s", self.epoch + 1, self.usage["train"])
            self.retrieved["train"] = self.usage.pop("train").summary()

    def extra_results(self) -> dict:
        """Return how the images of the last epoch and of the last evaluation used the pools."""
        if "test" in self.usage:
            self.retrieved["test"] = self.usage.pop("test").summary()
        return {"retrieval": self.retrieved}

    def trainer_state(self) -> dict:
        """Return the state that a resumed run needs beside the weights."""
        return {} if self.cache is None else {"cache": self.cache.state_dict()}

    def load_trainer_state(self, state: dict) -> None:
        """Restore :meth:`trainer_state`."""
        if self.cache is not None and "cache" in state:
            self.cache.load_state_dict(state["cache"])
