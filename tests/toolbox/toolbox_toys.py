"""A small picture data set and a small trainer, written against the public names only."""

import os

import dassl
import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from PIL import Image

COLOURS = [("crimson", (200, 40, 40)), ("lime", (40, 200, 40)), ("navy", (40, 40, 200))]
SIZES = {"train": 8, "val": 3, "test": 4}


def write_pictures(root):
    """Write 3 classes of 20x24 pixels that a linear layer can learn."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS:
        for split, n in SIZES.items():
            os.makedirs(os.path.join(root, split), exist_ok=True)
            for i in range(n):
                pixels = np.array(colour) + rng.normal(0, 60, (24, 20, 3))
                image = Image.fromarray(np.minimum(np.maximum(pixels, 0), 255).astype(np.uint8))
                image.save(os.path.join(root, split, f"{name}_{i}.png"))


@DATASET_REGISTRY.register()
class ToyPictures(DatasetBase):
    def __init__(self, cfg):
        def read(split):
            return [
                Datum(impath=os.path.join(cfg.DATASET.ROOT, split, f"{name}_{i}.png"), label=label, classname=name)
                for label, (name, _) in enumerate(COLOURS)
                for i in range(SIZES[split])
            ]

        train = self.generate_fewshot_dataset(read("train"), num_shots=cfg.DATASET.NUM_SHOTS)
        super().__init__(train_x=train, val=read("val"), test=read("test"))


@TRAINER_REGISTRY.register()
class ToyTrainer(TrainerX):
    """A linear classifier with dropout; keeps a running sum of its weights, which no checkpoint holds."""

    def build_model(self):
        self.model = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(3 * 16 * 16, self.num_classes))
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("classifier", self.model, self.optim, self.sched)
        self.weight_sum = torch.zeros(())
        self.trace = []

    def forward_backward(self, batch):
        image, label, _ = self.parse_batch_train(batch)
        output = self.model(image)
        loss = F.cross_entropy(output, label)
        self.model_backward_and_update(loss)
        self.weight_sum = self.weight_sum + self.model[2].weight.detach().sum()
        self.trace.append((self.epoch, self.get_current_lr(), batch["index"].tolist(), loss.item()))
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "acc": compute_accuracy(output, label)[0].item()}

    def trainer_state(self):
        return {"weight_sum": self.weight_sum}

    def load_trainer_state(self, state):
        self.weight_sum = state["weight_sum"]


def toy_cfg(root, output_dir, *pairs):
    """Return a frozen config for the toys; ``pairs`` are KEY, VALUE, ... as on a command line."""
    cfg = get_cfg_default()
    cfg.merge_from_list(
        [
            "DATASET.ROOT",
            root,
            "DATASET.NAME",
            "ToyPictures",
            "TRAINER.NAME",
            "ToyTrainer",
            "OUTPUT_DIR",
            str(output_dir),
            "USE_CUDA",
            False,
            "VERBOSE",
            False,
            "INPUT.SIZE",
            (16, 16),
            "INPUT.TRANSFORMS",
            ("random_resized_crop", "random_flip", "normalize"),
            "DATALOADER.NUM_WORKERS",
            0,
            "DATALOADER.TRAIN_X.BATCH_SIZE",
            8,
            "DATALOADER.TEST.BATCH_SIZE",
            8,
            "OPTIM.NAME",
            "sgd",
            "OPTIM.LR",
            0.01,
            "OPTIM.MAX_EPOCH",
            4,
            "OPTIM.LR_SCHEDULER",
            "cosine",
            "OPTIM.WARMUP_EPOCH",
            1,
            "OPTIM.WARMUP_TYPE",
            "constant",
            "TRAIN.PRINT_FREQ",
            2,
        ]
    )
    cfg.merge_from_list(list(pairs))
    cfg.freeze()
    return cfg


# What only the toolbox promises; the other tests also hold for Dassl.pytorch, given by PYTHONPATH.
toolbox_only = pytest.mark.skipif(
    getattr(dassl, "IMPLEMENTATION", None) != "toolbox", reason="only the toolbox promises this"
)


def environment():
    """Return the variables for a process that imports this module."""
    here = os.path.dirname(__file__)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
