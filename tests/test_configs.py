"""The yamls of the trainers, and yamls of the authors of the methods."""

import csv
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY

import clusterprompt
from clusterprompt import config, registration
from clusterprompt.running.dataset_settings import TABLE, dataset_settings
from clusterprompt.running.spec import known_datasets

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "trainers"
YAMLS = sorted(path for path in CONFIGS.glob("*/*.yaml") if path.name != TABLE)
TABLES = sorted(CONFIGS.glob(f"*/{TABLE}"))
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
    "MMRL": (
        4,
        0.001,
        10,
        {
            "MMRL": {
                "ALPHA": 0.7,
                "REG_WEIGHT": 0.5,
                "N_REP_TOKENS": 5,
                "REP_LAYERS": [6, 7, 8, 9, 10, 11, 12],
                "REP_DIM": 512,
                "PREC": "amp",
            }
        },
    ),
    "MMRLpp": (
        4,
        0.001,
        10,
        {"MMRLpp": {"BETA": 0.9, "PROJ_LORA_DIM": 64, "RES_LORA_DIM": 4, "REP_DIM": 512, "PREC": "amp"}},
    ),
    "MMA": (
        16,
        0.0015,
        5,
        {
            "MMADAPTER": {
                "TEXT_CTX_INIT": "a photo of a",
                "ADAPTER_START": 5,
                "ADAPTER_END": 12,
                "ADAPTER_DIM": 32,
                "ADAPTER_SCALE": 0.001,
                "PREC": "amp",
            }
        },
    ),
    "ATPrompt": (
        32,
        0.002,
        100,
        {
            "COOP": {"N_CTX": 2, "CSC": False, "CTX_INIT": False, "PREC": "fp16", "CLASS_TOKEN_POSITION": "end"},
            "ATPROMPT": {"USE_ATPROMPT": True, "ATT_NUM": 2, "ATT1_TEXT": "shape", "ATT2_TEXT": "size", "N_ATT1": 2},
        },
    ),
    "DePT": (
        4,
        0.0035,
        10,
        {
            "COOP": {"N_CTX": 16, "CSC": False, "CTX_INIT": "", "PREC": "fp16", "CLASS_TOKEN_POSITION": "end"},
            "LINEAR_PROBE": {"TYPE": "linear", "WEIGHT": 0.7, "TEST_TIME_FUSION": True},
            "FILM": {"LINEAR_PROBE": True},
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
    below = re.findall(r"^  (\w+):$", text[text.index("\nTRAINER:") :], re.M)
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


def official_sheet(path, dataset=""):
    """Return the official values of a yaml by key, from official_settings.csv; later rows go before earlier ones.

    With a data set, the values that are official for it alone.
    """
    name = f"{path.parent.name}/{path.stem}" + (f":{dataset}" if dataset else "")
    with open(Path(__file__).with_name("official_settings.csv"), newline="") as file:
        return {
            row["key"]: row["value"]
            for row in csv.DictReader(file)
            if fnmatch(name, row["yaml"]) and (":" in row["yaml"]) == bool(dataset)
        }


def claims_to_be_official(path):
    """Tell whether a yaml's header says that the settings are the authors', the paper's or official."""
    header = path.read_text().split("\n")[0]
    return re.search("authors|official settings|paper's", header) is not None


@pytest.mark.parametrize(
    "path", [path for path in YAMLS if claims_to_be_official(path)], ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_official_settings(path):
    """Catches: a yaml that says "the authors' settings" and has others: batch, rate, epochs, depth, weights."""
    cfg, wanted = extended(), extended()
    config.merge_file(cfg, path)
    sheet = official_sheet(path)
    assert {"DATALOADER.TRAIN_X.BATCH_SIZE", "OPTIM.MAX_EPOCH"} <= set(sheet)
    for key, value in sheet.items():
        wanted.merge_from_list([key, value])
        ours, theirs = config.get(cfg, key), config.get(wanted, key)
        all_layers = "PROMPT_DEPTH" in key and (ours, theirs) == (-1, 12)  # of ViT-B/16
        assert ours == theirs or all_layers, f"{key} is {ours}, official is {theirs}"


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.parent.name)
def test_tables_of_data_sets(path):
    """Catches: an entry of no data set, a key or value that does not fit, a value that is not the authors'.

    Rows such as "MMRL/fewshot:dtd" of the sheet are of one data set.
    """
    trainer = TRAINER_REGISTRY.get(path.parent.name)
    entries = config.read_yaml(path)
    assert set(entries) <= set(known_datasets())
    official = set()
    for dataset in entries:
        for yaml in sorted(path.parent.glob("*.yaml")):
            if yaml.name == TABLE:
                continue
            cfg, wanted = extended(), extended()
            for each in (cfg, wanted):
                config.merge_file(each, yaml)
            config.merge_settings(cfg, given := dataset_settings(yaml, dataset), path)
            cfg.TRAINER.NAME = path.parent.name
            trainer.check_cfg(cfg)
            sheet = official_sheet(yaml, dataset)
            official |= set(sheet)
            config.merge_settings(wanted, sheet, "official_settings.csv")
            for key in {*sheet, *given}:
                ours, theirs = config.get(cfg, key), config.get(wanted, key)
                assert ours == theirs, f"{yaml.stem}, {dataset}: {key} is {ours}, official is {theirs}"
    assert official


def test_most_claim_to_be_official():
    """Catches: a claim worded so that no sheet is compared, and a wrong setting that nobody sees."""
    others = {path.parent.name for path in YAMLS if not claims_to_be_official(path)}
    assert others == {"AttriPrompt", "ProGrad", "TAC", "ZeroshotCLIP"}  # of TAC, few-shot alone
    assert claims_to_be_official(CONFIGS / "TAC" / "basetonovel.yaml")
    for name in ("CoOp", "IVLP", "PromptSRC"):
        assert all(claims_to_be_official(CONFIGS / name / f"{protocol}.yaml") for protocol in PROTOCOLS)


PROGRAD = """
OPTIM:
  LR: 0.002
TRAINER:
  COOP:
    CTX_INIT: True
LOSS:
  NAME: "prograd"
  T: 2
  LAMBDA: 0.8
"""


def test_prograds_own_yamls(tmp_path):
    """Catches: ProGrad's official yamls refused for their LOSS node, or T and LAMBDA there read and not used."""
    (tmp_path / "official.yaml").write_text(PROGRAD)
    cfg = extended()
    config.merge_file(cfg, tmp_path / "official.yaml")
    prograd = TRAINER_REGISTRY.get("ProGrad")
    assert (prograd.option(cfg, "T"), prograd.option(cfg, "LAMBDA")) == (2.0, 0.8)
    config.merge_pairs(cfg, ["TRAINER.COOP.LAMBDA", "0.5", "MODEL.BACKBONE.NAME", "tiny"])
    with pytest.raises(ValueError, match="TRAINER.COOP.LAMBDA is 0.5 and LOSS.LAMBDA is 0.8; give one of the two"):
        prograd.check_cfg(cfg)


# ------------------------------------------------------------------ yamls as data


@pytest.mark.parametrize("name", ["mine.txt", "mine.json", "mine.YAML", "mine", "mine.yml"])
def test_any_name_of_a_yaml(name, tmp_path):
    """Catches: a yaml refused with somebody else's traceback for the ending of its name."""
    (tmp_path / name).write_text("OPTIM: {LR: 1, MAX_EPOCH: 7}")
    cfg = extended()
    config.merge_file(cfg, tmp_path / name)
    assert (cfg.OPTIM.LR, type(cfg.OPTIM.LR), cfg.OPTIM.MAX_EPOCH) == (1.0, float, 7)


def test_code_is_not_run(tmp_path):
    """Catches: a config named .py, valid yaml with a known key, that yacs imports."""
    mark = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"SEED: __import__('pathlib').Path({str(mark)!r}).touch()")
    with pytest.raises(ValueError, match="evil.py is a Python file; settings are read from a yaml file"):
        config.merge_file(extended(), tmp_path / "evil.py")
    assert not mark.exists()


@pytest.mark.parametrize(
    "text, message",
    [
        ("OPTIM:\n  LR: 0.1\n  LR: 0.2", r"'LR' is given twice, in lines 2 and 3; keep one"),
        ("OPTIM: 3", r"OPTIM is a group of keys and takes no value itself.*in .*mine.yaml"),
        ("OPTIM: {LR: fast}", r"OPTIM.LR takes a float such as 0.0003, not 'fast' \(in .*mine.yaml\)"),
        ("a: &a [*a]", r"unknown config key 'a'"),
        ("OPTIM: &a {LR: *a}", r"mine.yaml is not valid yaml"),
        ("[" * 5000, r"mine.yaml is not valid yaml"),
    ],
)
def test_malformed_yamls(text, message, tmp_path):
    """Catches: the last of two values taken in silence, a traceback, an error without key and file."""
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        config.merge_file(extended(), tmp_path / "mine.yaml")
