"""Make a small data set in Caltech101's layout, a small CLIP on disk, and trainers over both."""

import json
import os
import re
import struct
import warnings
import zlib

import numpy as np
import torch
from PIL import Image

CLASSES = [
    ("Faces", "face"),
    ("Leopards", "leopard"),
    ("Motorbikes", "motorbike"),
    ("accordion", "accordion"),
    ("airplanes", "airplane"),
    ("anchor", "anchor"),
    ("car_side", "car_side"),
    ("ceiling_fan", "ceiling_fan"),
    ("dollar_bill", "dollar_bill"),
    ("electric_guitar", "electric_guitar"),
    ("grand_piano", "grand_piano"),
    ("sea_horse", "sea_horse"),
    ("stop_sign", "stop_sign"),
    ("water_lilly", "water_lilly"),
    ("yin_yang", "yin_yang"),
]
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]

# What a method cannot be built without.
NEEDED = {
    "TAC": ["DATALOADER.K_TRANSFORMS", 2, "DATALOADER.RETURN_IMG0", True],
    "CoPrompt": ["DATALOADER.K_TRANSFORMS", 2, "DATASET.DESCRIPTIONS", "templates"],
    "HiCroPL": ["DATASET.DESCRIPTIONS", "templates", "TRAINER.HICROPL.CROSS_LAYER", 1],
    "PromptKD": ["TRAINER.PROMPTKD.TEACHER_MODEL", "zero-shot"],
    "TipAdapter": ["TRAINER.TIPADAPTER.AUGMENT_EPOCH", 1],
}


# Each part of a batch, and each process, draws dropout of its own: comparisons with a whole batch leave it out.
WITHOUT_DROPOUT = {
    "TAC": ("TRAINER.TAC.IMAGE_DROPOUT", 0.0, "TRAINER.TAC.TARGET_DROPOUT", 0.0),
    "CLIPLoRA": ("TRAINER.CLIPLORA.DROPOUT_RATE", 0.0),
}


def random_clip():
    """Weights of a CLIP of 32 px, 2 layers, width 64, drawn at random; enough to run everything."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from clip.model import CLIP
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIP(
            embed_dim=32,
            image_resolution=32,
            vision_layers=2,
            vision_width=64,
            vision_patch_size=16,
            context_length=77,
            vocab_size=49408,
            transformer_width=64,
            transformer_heads=1,
            transformer_layers=2,
        )
    return model.state_dict()


def write_data(root, per_split=(4, 2, 2)):
    """Write JPEG files of noise around a colour of the class, and the split file."""
    rng = np.random.default_rng(0)
    folder = root / "caltech-101"
    split = {"train": [], "val": [], "test": []}
    for label, (name, classname) in enumerate(CLASSES):
        (folder / "101_ObjectCategories" / name).mkdir(parents=True)
        colour = rng.uniform(60, 200, 3)
        parts = [part for part, count in zip(split, per_split) for _ in range(count)]
        for i, part in enumerate(parts):
            path = f"{name}/image_{i:04d}.jpg"
            pixels = np.clip(colour + rng.normal(0, 30, (48, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "101_ObjectCategories" / path)
            split[part].append([path, label, classname])
    (folder / "split_zhou_Caltech101.json").write_text(json.dumps(split))
    return root


def config(trainer, data, backbone, output, *pairs):
    """A frozen config of a short run on the small data."""
    from dassl.config import get_cfg_default

    import clusterprompt

    cfg = get_cfg_default()
    clusterprompt.extend_cfg(cfg)
    cfg.merge_from_list(
        [
            "DATASET.NAME",
            "Caltech101",
            "DATASET.ROOT",
            str(data),
            "DATASET.NUM_SHOTS",
            4,
            "DATASET.SUBSAMPLE_CLASSES",
            "base",
            "SEED",
            1,
            "OUTPUT_DIR",
            str(output),
            "TRAINER.NAME",
            trainer,
            "MODEL.BACKBONE.NAME",
            str(backbone),
            "USE_CUDA",
            os.environ.get("CLUSTERPROMPT_TEST_DEVICE") == "cuda",  # scripts/gpu_check.sh
            "VERBOSE",
            False,
            "DATALOADER.NUM_WORKERS",
            0,
            "DATALOADER.TRAIN_X.BATCH_SIZE",
            8,
            "INPUT.SIZE",
            (64, 64),
            "INPUT.INTERPOLATION",
            "bicubic",
            "INPUT.PIXEL_MEAN",
            [float(m) for m in MEAN.flatten()],
            "INPUT.PIXEL_STD",
            [float(s) for s in STD.flatten()],
            "INPUT.TRANSFORMS",
            ("random_resized_crop", "random_flip", "normalize"),
            "OPTIM.NAME",
            "sgd",
            "OPTIM.MAX_EPOCH",
            2,
            "OPTIM.LR_SCHEDULER",
            "cosine",
            "OPTIM.WARMUP_EPOCH",
            1,
            "OPTIM.WARMUP_TYPE",
            "constant",
            "OPTIM.LR",
            0.0025,
        ]
    )
    node = cfg.TRAINER[node_of(trainer)]
    node.PREC = "fp32"
    for key in node:
        if key.startswith("PROMPT_DEPTH"):
            node[key] = 2
    cfg.merge_from_list(NEEDED.get(trainer, []))
    cfg.merge_from_list(list(pairs))
    cfg.freeze()
    return cfg


def node_of(trainer):
    """Name of a trainer's node below cfg.TRAINER."""
    from clusterprompt.registration import own_trainers

    return next(cls.node() for cls in own_trainers() if cls.__name__ == trainer)


def build(*args, **kwargs):
    """Seed and construct a trainer; arguments as for :func:`config`."""
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed

    cfg = config(*args, **kwargs)
    set_random_seed(cfg.SEED)
    return build_trainer(cfg)


def rename(trainer, weights):
    """Give recorded weights the learner's names."""

    def new(name):
        return next(
            (re.sub(pattern, to, name) for pattern, to in trainer.official_names if re.fullmatch(pattern, name)), name
        )

    return {new(name): value for name, value in weights.items()}


def decode(images):
    """uint8 images as the loader delivers them."""
    return images.float().div(255).sub(MEAN).div(STD)


def png(width, height, bits, colours, data):
    """Return a PNG of any header."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return b"\x89PNG\r\n\x1a\n" + body
