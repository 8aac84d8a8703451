"""The yamls of the trainers, and yamls of the authors of the methods."""

import re
from pathlib import Path

import pytest
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY

import clusterprompt
from clusterprompt import config, registration

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "trainers"
YAMLS = sorted(CONFIGS.glob("*/*.yaml"))
PROTOCOLS = ("basetonovel", "fewshot", "crossdatasets")

# What the authors' yamls have in common (CoOp, CoCoOp, KgCoOp, MaPLe, PromptSRC, TAC).
COMMON = """
DATALOADER:
  TRAIN_X:
    BATCH_SIZE: {batch}
  TEST:
    BATCH_SIZE: 100
  NUM_WORKERS: 8
INPUT:
  SIZE: (224, 224)
  INTERPOLATION: "bicubic"
  PIXEL_MEAN: [0.48145466, 0.4578275, 0.40821073]
  PIXEL_STD: [0.26862954, 0.26130258, 0.27577711]
  TRANSFORMS: ["random_resized_crop", "random_flip", "normalize"]
OPTIM:
  NAME: "sgd"
  LR: {lr}
  MAX_EPOCH: {epochs}
  LR_SCHEDULER: "cosine"
  WARMUP_EPOCH: 1
  WARMUP_TYPE: "constant"
  WARMUP_CONS_LR: 1e-5
TRAIN:
  PRINT_FREQ: 20
MODEL:
  BACKBONE:
    NAME: "ViT-B/16"
"""
# Official keys and values below TRAINER, as recorded from runs of the official code (tests/golden).
OFFICIAL = {
    "CoOp": (
        32,
        0.002,
        50,
        {"COOP": {"N_CTX": 16, "CSC": False, "CTX_INIT": "", "PREC": "fp16", "CLASS_TOKEN_POSITION": "end"}},
    ),
    "CoCoOp": (1, 0.002, 10, {"COCOOP": {"N_CTX": 4, "CTX_INIT": "a photo of a", "PREC": "fp16"}}),
    "KgCoOp": (128, 0.002, 100, {"COOP": {"CTX_INIT": True, "W": 8.0, "ALPHA": 1.0}, "COCOOP": {"CTX_INIT": False}}),
    "VPT": (
        4,
        0.0025,
        5,
        {"VPT": {"N_CTX_VISION": 8, "CTX_INIT": "a photo of a", "PREC": "fp16", "PROMPT_DEPTH_VISION": 12}},
    ),
    "IVLP": (
        4,
        0.0025,
        5,
        {
            "IVLP": {
                "N_CTX_VISION": 2,
                "N_CTX_TEXT": 2,
                "CTX_INIT": "a photo of a",
                "PREC": "fp16",
                "PROMPT_DEPTH_VISION": 9,
                "PROMPT_DEPTH_TEXT": 9,
            }
        },
    ),
    "MaPLe": (4, 0.0035, 5, {"MAPLE": {"N_CTX": 2, "CTX_INIT": "a photo of a", "PREC": "fp16", "PROMPT_DEPTH": 9}}),
    "PromptSRC": (
        4,
        0.0025,
        20,
        {
            "PROMPTSRC": {
                "N_CTX_VISION": 4,
                "N_CTX_TEXT": 4,
                "CTX_INIT": "a photo of a",
                "PREC": "fp16",
                "PROMPT_DEPTH_VISION": 9,
                "PROMPT_DEPTH_TEXT": 9,
                "TEXT_LOSS_WEIGHT": 25,
                "IMAGE_LOSS_WEIGHT": 10,
                "GPA_MEAN": 15,
                "GPA_STD": 1,
            }
        },
    ),
    "TAC": (
        8,
        0.0025,
        20,
        {
            "TAC": {
                "N_CTX_VISION": 5,
                "N_CTX_TEXT": 5,
                "CTX_INIT": "a photo of a",
                "PREC": "fp16",
                "PROMPT_DEPTH_VISION": 12,
                "PROMPT_DEPTH_TEXT": 12,
                "TEXT_LOSS_WEIGHT": 20,
                "IMAGE_LOSS_WEIGHT": 25,
            }
        },
    ),
}


def extended():
    cfg = get_cfg_default()
    clusterprompt.extend_cfg(cfg)
    return cfg


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_ours(path):
    """Catches: a key that does not exist or has no effect on its trainer, a protocol under another name, a setting of
    unknown origin.
    """
    cfg = extended()
    config.merge_file(cfg, path)
    node = TRAINER_REGISTRY.get(path.parent.name).node()
    text = path.read_text()
    below = re.findall(r"^  ([A-Z]+):$", text[text.index("\nTRAINER:") :], re.M)
    assert below == [node]
    assert path.stem in PROTOCOLS and text.startswith(
        f"# {'Zero-shot CLIP' if path.parent.name == 'ZeroshotCLIP' else path.parent.name}"
    )


def test_every_method_has_one():
    """Catches: a method that its door cannot run."""
    for trainer in registration.own_trainers():
        assert CONFIGS / trainer.__name__ / "basetonovel.yaml" in YAMLS


def test_doors_have_all():
    """Catches: a method with doors to protocols that it has no yaml for, on which `--trainers all` would end."""
    doors = sorted((CONFIGS.parent.parent / "scripts").glob("*/few_shot.sh"))
    trainers = [door.read_text().split()[-2] for door in doors]
    assert len(trainers) > 10
    for trainer in trainers:
        assert {path.stem for path in YAMLS if path.parent.name == trainer} == set(PROTOCOLS)


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_ones_merge_unchanged(name, tmp_path):
    """Catches: a key of the authors that we spell otherwise, or a default of another type; by yacs alone, as in their
    train.py.
    """
    batch, lr, epochs, nodes = OFFICIAL[name]
    text = COMMON.format(batch=batch, lr=lr, epochs=epochs) + "TRAINER:\n"
    for node, values in nodes.items():
        text += f"  {node}:\n" + "".join(
            f"    {key}: {chr(34) + value + chr(34) if isinstance(value, str) else value}\n"
            for key, value in values.items()
        )
    (tmp_path / "official.yaml").write_text(text)
    cfg = extended()
    cfg.merge_from_file(str(tmp_path / "official.yaml"))
    assert (cfg.DATALOADER.TRAIN_X.BATCH_SIZE, cfg.OPTIM.LR, cfg.OPTIM.MAX_EPOCH) == (batch, lr, epochs)
    assert all(cfg.TRAINER[node][key] == value for node, values in nodes.items() for key, value in values.items())
    assert TRAINER_REGISTRY.get(name).node() in nodes


@pytest.mark.parametrize("name", OFFICIAL)
def test_base_to_new_is_the_authors(name):
    """Catches: our base-to-new yaml drifting from the authors' batch, rate, epochs or loss weights."""
    batch, lr, epochs, nodes = OFFICIAL[name]
    cfg = extended()
    config.merge_file(cfg, CONFIGS / name / "basetonovel.yaml")
    assert (cfg.DATALOADER.TRAIN_X.BATCH_SIZE, cfg.OPTIM.LR, cfg.OPTIM.MAX_EPOCH) == (batch, lr, epochs)
    ours = cfg.TRAINER[TRAINER_REGISTRY.get(name).node()]
    for key, value in nodes[TRAINER_REGISTRY.get(name).node()].items():
        if key not in ("PREC", "CTX_INIT", "N_CTX"):
            assert ours[key] == value or (key.startswith("PROMPT_DEPTH") and (ours[key], value) == (-1, 12)), key
