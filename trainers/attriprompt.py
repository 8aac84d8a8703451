"""AttriPrompt: Dynamic Prompt Composition Learning for CLIP (ACM MM 2025, arXiv 2509.05949), reconstructed: see
docs/attriprompt.md.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
import torch.nn.functional as F
from dassl.data.data_manager import build_data_loader

from ..clip_patches import encoders
from ..clip_patches.class_texts import class_anchors, template_sentences
from ..clip_patches.clustering import cluster_tokens
from ..clip_patches.loading import autocast
from .base import PromptTrainer, unit
from .ivlp import check_depth
from .parts.feature_cache import ViewCache
from .parts.prompt_pool import PromptPool, StaticPrompts, Usage, check_settings, write_sentences

logger = logging.getLogger(__name__)
KEY_SAMPLE = 512  # training images whose centroids place the keys


class AttriPrompt(PromptTrainer):
    """Compose deep text prompts for every image, from pools that its patch clusters choose from."""

    options = {
        "PREC": "fp16",
        "CTX_INIT": "a photo of a",
        "DESCRIPTIONS": "",
        "N_CTX": 1,
        "PROMPT_DEPTH": -1,
        "RETRIEVAL": True,
        "N_CLUSTERS": 4,
        "POOL_SIZE": 32,
        "POOL": "per_layer",
        "TOP_K": 1,
        "KEY_INIT": "data",
        "IMAGE_TO_TEXT": 1.0,
        "ALPHA": 1.0,
        "LAMBDA": 25.0,
        "KEY": 0.1,
        "TEXT_CHUNK": 256,
        "CACHE_VIEWS": 0,
        "CACHE_MB": 4096,
    }

    text_needs_image = property(lambda self: self.settings.RETRIEVAL)

    def check_cfg(self, cfg):
        """Refuse sizes and words that cannot be."""
        super().check_cfg(cfg)
        check_settings(cfg.TRAINER[self.node()])

    def build_learner(self):
        """Write the class sentences, freeze their un-prompted features, and make pools that fit both towers."""
        s, clip, self.cache, self.usage, self.retrieved = self.settings, self.clip, None, {}, {}
        depth, length = (
            check_depth("text", s.PROMPT_DEPTH, len(clip.transformer.resblocks), 1),
            s.N_CLUSTERS * s.TOP_K * s.N_CTX,
        )
        self.sentences = write_sentences(clip, s.CTX_INIT, self.classnames, length)
        self.text_anchors = class_anchors(clip, self.descriptions() or template_sentences(self.classnames))
        if not s.RETRIEVAL:
            return StaticPrompts(depth, length, clip.token_embedding.embedding_dim)
        patches = len(clip.visual.positional_embedding) - 1 if encoders.is_vit(clip) else 0
        if s.N_CLUSTERS > patches:
            why = (
                f"this backbone cuts an image into {patches}"
                if patches
                else "a ResNet has none: use a ViT backbone (e.g. ViT-B/16)"
            )
            raise ValueError(f"TRAINER.ATTRIPROMPT.N_CLUSTERS is {s.N_CLUSTERS} clusters of patch tokens, but {why}")
        if s.CACHE_VIEWS:
            shapes = clip.text_projection.shape[1:], (depth, s.N_CLUSTERS, clip.visual.class_embedding.shape[0])
            self.cache = ViewCache(len(self.dm.dataset.train_x), s.CACHE_VIEWS, shapes, s.CACHE_MB)
        return PromptPool(clip, depth, s.POOL_SIZE, s.N_CTX, s.TOP_K, s.POOL == "shared")

    # ------------------------------------------------------------------ image -> prompts -> text
    def see(self, images):
        """Return the normalised features of images, (B, d), and the patch centroids that feed each text layer, (B, L,
        K, D_v).
        """
        features, centroids = encoders.encode_image_layers(
            self.clip,
            images,
            self.learner.vision_layers,
            lambda tokens: cluster_tokens(tokens, self.settings.N_CLUSTERS)[0],
        )
        return unit(features), torch.stack(centroids, dim=1)

    def see_batch(self, batch):
        """See a training batch, or remember what CACHE_VIEWS kept; without retrieval there are no centroids."""
        if not self.settings.RETRIEVAL:
            return self.image_features(batch.images), None
        if self.cache is None or batch.index is None:
            return self.see(batch.images)
        return self.cache.look(self.epoch, batch.index, batch.images, self.see)

    def compose(self, centroids=None):
        """Return the class texts, prompted as the centroids choose, (B, C, d) or (C, d), and the key-matching distance."""
        composed = self.learner(centroids)
        if composed.chosen is not None:
            what, sizes = (
                "train" if self.learner.training else "test",
                (composed.chosen.shape[1], self.settings.POOL_SIZE),
            )
            self.usage.setdefault(what, Usage(*sizes)).add(composed.chosen)
        text = encoders.encode_text(self.clip, self.sentences, composed.prompts, budget_mb=self.settings.TEXT_CHUNK)
        return unit(text), composed.distance

    def text_features(self):
        """See :meth:`PromptTrainer.text_features`; for prompts that do not depend on the image."""
        return self.compose()[0]

    def classify(self, images):
        """See :meth:`PromptTrainer.classify`."""
        if not self.settings.RETRIEVAL:
            return super().classify(images)
        image, centroids = self.see(images)
        return self.logits(image, self.compose(centroids)[0])

    # ------------------------------------------------------------------ training
    def losses(self, batch):
        """Two contrastive streams, the distances to the un-prompted texts and of centroids to keys; a weight of 0
        leaves one out.
        """
        s, (image, centroids) = self.settings, self.see_batch(batch)
        text, distance = self.compose(centroids)
        ce, terms = self.cross_entropy(self.logits(image, text), batch.labels), {}
        if s.IMAGE_TO_TEXT:
            terms["i2t"] = s.IMAGE_TO_TEXT * ce
        if s.ALPHA:
            terms["t2i"] = s.ALPHA * self.text_to_image(image, text, batch.labels)
        if s.LAMBDA:
            terms["text"] = s.LAMBDA * F.l1_loss(text, self.text_anchors.expand_as(text))
        if s.KEY and distance is not None:
            terms["key"] = s.KEY * distance
        return terms

    def text_to_image(self, image, text, labels):
        """Cross-entropy of each image's own class text over the batch's images, spread evenly over those of its class."""
        own = (
            text[labels] if text.dim() == 2 else text[torch.arange(len(labels), device=labels.device), labels]
        )  # (B, d)
        same = (labels[:, None] == labels).float()
        return F.cross_entropy(self.logits(own, image), same / same.sum(dim=1, keepdim=True))

    @torch.no_grad()
    def start_keys(self):
        """Place the keys by a sample of the un-augmented training images; no global random state moves."""
        rng, images = np.random.RandomState(self.cfg.SEED if self.cfg.SEED >= 0 else None), self.dm.dataset.train_x
        sample = [images[i] for i in sorted(rng.permutation(len(images))[:KEY_SAMPLE])]
        with (
            torch.random.fork_rng(devices=[]),
            autocast(self.precision, self.device),
        ):  # a loader draws a seed for its workers
            loader = build_data_loader(
                self.cfg,
                data_source=sample,
                batch_size=self.cfg.DATALOADER.TEST.BATCH_SIZE,
                tfm=self.test_loader.dataset.transform,
                is_train=False,
            )
            centroids = torch.cat([self.see(batch["img"].to(self.device))[1] for batch in loader])
        self.learner.start_keys(centroids, rng)
        logger.info("Keys placed by the clusters of %d training images", len(sample))

    def before_train(self):
        """Place the keys at the first start: not after a resume, nor over loaded ones."""
        super().before_train()
        if self.settings.RETRIEVAL and self.settings.KEY_INIT == "data" and not self.learner.started:
            self.start_keys()

    def end_epoch(self):
        """Say what the epoch's images retrieved."""
        if "train" in self.usage:
            logger.info("epoch %d, %s", self.epoch + 1, self.usage["train"])
            self.retrieved["train"] = self.usage.pop("train").summary()

    def extra_results(self):
        """Add what was retrieved: by the last epoch's images, and by those of the last evaluation."""
        if "test" in self.usage:
            self.retrieved["test"] = self.usage.pop("test").summary()
        return {"retrieval": self.retrieved}

    def trainer_state(self):
        """What a resumed run needs beside the weights."""
        return {} if self.cache is None else {"cache": self.cache.state_dict()}

    def load_trainer_state(self, state):
        """Restore :meth:`trainer_state`."""
        if self.cache is not None and "cache" in state:
            self.cache.load_state_dict(state["cache"])
