"""The four protocols: their names, what each trains and tests on, and where its runs lie.

base2new                train on the base half of a data set's classes, test on both halves
cross_dataset           train on all classes of the source, test on other data sets
domain_generalisation   the same trained model, tested on copies of the source that look different
few_shot                train on all classes of a data set with 1, 2, 4, 8 and 16 images each, test on all

Data sets go by the names of their yamls in configs/datasets. Folders end in seed<S>; in them, ``cfg`` is the name of
the trainer's yaml.
"""

from pathlib import Path

PROTOCOLS = ("base2new", "cross_dataset", "domain_generalisation", "few_shot")
# The yaml of each trainer that a protocol uses: configs/trainers/<TRAINER>/<name>.yaml
YAMLS = {
    "base2new": "basetonovel",
    "cross_dataset": "crossdatasets",
    "domain_generalisation": "crossdatasets",
    "few_shot": "fewshot",
}
SHOTS = 16
FEW_SHOTS = (1, 2, 4, 8, 16)
# The eleven data sets of base2new and few_shot, in the order of the papers' tables.
DATASETS = (
    "imagenet",
    "caltech101",
    "oxford_pets",
    "stanford_cars",
    "oxford_flowers",
    "food101",
    "fgvc_aircraft",
    "sun397",
    "dtd",
    "eurosat",
    "ucf101",
)
# What the model trained on a source is tested on.
TARGETS = {
    "cross_dataset": {
        "imagenet": DATASETS[1:],
        "shapes": ("shapes_textures", "shapes_colours", "shapes_counts"),
    },
    "domain_generalisation": {
        "imagenet": ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"),
        "shapes": ("shapes_outline", "shapes_noise", "shapes_background", "shapes_lowres"),
    },
}


def targets(protocol: str, source: str) -> tuple:
    """Return the usual targets of ``cross_dataset`` or ``domain_generalisation``; empty for a source that has none of
    its own.
    """
    return TARGETS[protocol].get(source, ())


def base2new_folders(output, dataset: str, shots: int, trainer: str, seed: int, cfg: str = YAMLS["base2new"]) -> tuple:
    """Return the folders of the training run (base classes) and of the test on the new ones."""
    tail = _tail(dataset, shots, trainer, cfg, seed)
    return Path(output, "base2new", "train_base", tail), Path(output, "base2new", "test_new", tail)


def xd_train_folder(
    output, source: str, shots: int, trainer: str, seed: int, cfg: str = YAMLS["cross_dataset"]
) -> Path:
    """Return the folder of the training run that cross_dataset and domain_generalisation share."""
    return Path(output, "xd", "train", _tail(source, shots, trainer, cfg, seed))


def xd_test_folder(output, target: str, shots: int, trainer: str, seed: int, cfg: str = YAMLS["cross_dataset"]) -> Path:
    """Return the folder of the test on one target; ``shots`` are those of the training run."""
    return Path(output, "xd", "test", _tail(target, shots, trainer, cfg, seed))


def few_shot_folder(output, dataset: str, shots: int, trainer: str, seed: int, cfg: str = YAMLS["few_shot"]) -> Path:
    """Return the folder of a few-shot run."""
    return Path(output, "few_shot", _tail(dataset, shots, trainer, cfg, seed))


def _tail(dataset: str, shots: int, trainer: str, cfg: str, seed: int) -> Path:
    return Path(dataset, f"shots_{shots}", trainer, cfg, f"seed{seed}")
