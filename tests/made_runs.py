"""Folders of runs as trainers leave them, without having run anything: for the tests of results."""

import csv
import json
from pathlib import Path

CONFIG = {
    "OUTPUT_DIR": "",
    "SEED": 0,
    "DATASET": {"ROOT": "", "NUM_SHOTS": 16},
    "OPTIM": {"MAX_EPOCH": 2, "LR": 0.002},
    "TRAINER": {"NAME": "", "TAC": {"N_CTX_TEXT": 4}, "COOP": {"N_CTX": 16}},
}
CLASSES = ["red star", "blue ring", '<b>&"$x$_']


def record(
    trainer, dataset, part, seed, accuracy, *, shots=16, backbone="ViT-B/16", trained_on="self", root="", **more
) -> dict:
    """Return a result.json's content; ``trained_on`` is a data set, "self", or None for zero-shot."""
    config = json.loads(json.dumps(CONFIG))
    config["SEED"], config["TRAINER"]["NAME"], config["DATASET"]["ROOT"], config["DATASET"]["NUM_SHOTS"] = (
        seed,
        trainer,
        str(root),
        shots,
    )
    if trained_on is not None:
        trained_on = {
            "dataset": dataset if trained_on == "self" else trained_on,
            "subsample": "base" if part == "new" else part,
            "shots": shots,
            "seed": seed,
        }
    history = [
        {
            "epoch": e,
            "lr": 0.1,
            "loss": 3.0 / e,
            "losses": {"ce": 2.0 / e, "text": 1.0 / e},
            "accuracy": 40.0 + e,
            "seconds": 1.0,
        }
        for e in (1, 2)
    ]
    return {
        "status": "finished",
        "trainer": trainer,
        "dataset": dataset,
        "subsample": part,
        "shots": shots,
        "seed": seed,
        "backbone": backbone,
        "precision": "fp32",
        "accuracy": accuracy,
        "per_class": dict(zip(CLASSES, (accuracy - 10, accuracy, accuracy + 10))),
        "classnames": CLASSES,
        "fewshot_digest": f"{dataset}{seed}",
        "learned_parameters": 0 if trained_on is None else 10,
        "seconds": {"train": 1.0, "test": 1.0},
        "seconds_per_epoch": 0.5,
        "n_test": 6,
        "peak_memory_mb": 100.0,
        "versions": {"torch": "2.0"},
        "device": "cpu",
        "commit": "abc",
        "config": config,
        "trained_on": trained_on,
        "history": [] if trained_on is None else history,
        **more,
    }


def write(folder: Path, content: dict, predictions=()):
    """Write a run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(content), encoding="utf-8")
    if predictions:
        with open(folder / "predictions.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("path", "label", "prediction", "confidence"), *predictions])
    return folder


def base2new(output: Path, trainer: str, dataset: str, accuracies: dict, shots: int = 16, predictions=(), **more):
    """Write both halves of runs, {seed: (base, new)}."""
    for seed, halves in accuracies.items():
        for part, step, accuracy in zip(("base", "new"), ("train_base", "test_new"), halves):
            folder = (
                output
                / "base2new"
                / step
                / dataset.lower()
                / f"shots_{shots}"
                / trainer
                / "basetonovel"
                / f"seed{seed}"
            )
            on = None if trainer == "ZeroshotCLIP" else "self"
            write(
                folder, record(trainer, dataset, part, seed, accuracy, shots=shots, trained_on=on, **more), predictions
            )


def transfer(output: Path, trainer: str, source: str, accuracies: dict, seed: int = 1, **more):
    """Write a run on a source and its tests on targets, {data set: accuracy}."""
    for dataset, accuracy in accuracies.items():
        folder = (
            output
            / "xd"
            / ("train" if dataset == source else "test")
            / dataset.lower()
            / "shots_16"
            / trainer
            / "crossdatasets"
            / f"seed{seed}"
        )
        on = None if trainer == "ZeroshotCLIP" else source
        write(folder, record(trainer, dataset, "all", seed, accuracy, trained_on=on, **more))
