"""The runs of each protocol: what is trained and tested, with which settings, in which folders."""

import os
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

from ..record import protocols
from .base2new import EMBEDDED, common_options, fitting_depths, words_of_halves
from .budget import Method
from .runner import Run

# Small pictures are read faster than worker processes start. One thread: with models as small as the embedded one
# several runs side by side are faster than several threads a run, and the numbers do not depend on how many cores there
# are.
SETTINGS = ("DATALOADER.NUM_WORKERS", "0")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# CoOp's authors train fewer epochs with fewer shots; its yaml says the 200 of 8 and 16.
FEW_SHOT_EPOCHS = {"CoOp": {1: 50, 2: 100, 4: 100}}
TEST_GUESS = 10.0  # seconds to start and to test, on one core


class Task(NamedTuple):
    """What the runs of a plan share.

    Attributes:
        output: Folder of all results.
        shots: Training images a class; few_shot has its own.
        seeds: Seeds of all runs.
        pairs: KEY VALUE pairs of the user, which come last.
    """

    output: str
    shots: int
    seeds: tuple
    pairs: tuple = ()


def base2new(task: Task, methods, dataset: str) -> list:
    """Plan one run for each method and seed: it trains on the base classes, and tests on both halves."""
    runs = []
    for seed in task.seeds:
        for method in methods:
            environment = environment_of(task, method, dataset, "base2new")
            settings = (*SETTINGS * is_embedded(dataset), *method.settings, *task.pairs)
            name = f"{method.trainer}, {label(dataset)} base to new, seed {seed}"
            runs.append(base2new_run(name, method, dataset, seed, settings, environment))
    return runs


def base2new_run(name: str, method: Method, dataset: str, seed: int, settings, environment: dict) -> Run:
    """Return the run of scripts/base2new.py for one method and seed; ``environment`` says OUTPUT, SHOTS, CFG and
    EPOCHS.
    """
    args = Namespace(trainer=method.trainer, dataset=dataset, seed=seed)
    words = words_of_halves(args, settings, {**os.environ, **environment}, quiet=True)
    options = ("--trainer", method.trainer, "--dataset", dataset, "--seed", str(seed))
    folder = words[0][words[0].index("--output-dir") + 1]
    return Run(
        name,
        "scripts/base2new.py",
        options,
        settings,
        words,
        log_of(environment["OUTPUT"], folder),
        environment,
        (dataset,) * is_embedded(dataset),
        method.guess,
    )


def cross(task: Task, methods, source: str, targets) -> list:
    """Plan, for each method and seed, the training run on all classes of the source, and a test of it on each target."""
    runs = []
    for seed in task.seeds:
        for method in methods:
            environment = environment_of(task, method, source, "cross_dataset")
            place = task.shots, method.trainer, seed
            trained = str(protocols.xd_train_folder(task.output, label(source), *place))
            runs.append(
                train_run(
                    f"{method.trainer}, trained on {label(source)}, seed {seed}",
                    method,
                    source,
                    seed,
                    task.pairs,
                    environment,
                    trained,
                )
            )
            for target in targets:
                tested = str(protocols.xd_test_folder(task.output, label(target), *place))
                # All training images, as the family's test scripts have it: only their class names are used.
                run = train_run(
                    f"{method.trainer}, {label(source)} -> {label(target)}, seed {seed}",
                    method,
                    target,
                    seed,
                    task.pairs,
                    {**environment, "SHOTS": "-1"},
                    tested,
                    ("--eval-only", "--model-dir", trained),
                )
                runs.append(run._replace(after=trained, guess=TEST_GUESS))
    return runs


def few_shot(task: Task, methods, dataset: str, few_shots) -> list:
    """Plan a run for each method, seed and number of shots, on all classes."""
    runs = []
    for seed in task.seeds:
        for shots in few_shots:
            for method in methods:
                if not (is_embedded(dataset) or method.epochs):
                    method = method._replace(epochs=FEW_SHOT_EPOCHS.get(method.trainer, {}).get(shots))
                environment = environment_of(task._replace(shots=shots), method, dataset, "few_shot")
                folder = str(protocols.few_shot_folder(task.output, label(dataset), shots, method.trainer, seed))
                name = f"{method.trainer}, {label(dataset)} {in_words(shots)}, seed {seed}"
                run = train_run(name, method, dataset, seed, task.pairs, environment, folder)
                runs.append(run._replace(guess=TEST_GUESS + method.guess * shots / protocols.SHOTS))
    return runs


def train_run(
    name: str, method: Method, dataset: str, seed: int, pairs, environment: dict, folder: str, options=()
) -> Run:
    """Return a run of train.py on all classes."""
    common = common_options(
        Namespace(trainer=method.trainer, dataset=dataset, seed=seed), {**os.environ, **environment}
    )
    settings = ["DATASET.SUBSAMPLE_CLASSES", "all", *SETTINGS * is_embedded(dataset), *method.settings, *pairs]
    settings += fitting_depths(common, settings, quiet=True)
    words = (*common, "--output-dir", folder, *options)
    return Run(
        name,
        "train.py",
        words,
        tuple(settings),
        ((*words, *settings),),
        log_of(environment["OUTPUT"], folder),
        environment,
        (dataset,) * is_embedded(dataset),
        method.guess,
    )


def environment_of(task: Task, method: Method, dataset: str, protocol: str) -> dict:
    """Return the variables that say a run's settings; those of the same name that are set for others do not count."""
    embedded = is_embedded(dataset)
    return {
        "OUTPUT": task.output,
        "SHOTS": str(task.shots),
        "CFG": protocols.YAMLS[protocol],
        "EPOCHS": str(method.epochs or ""),
        **({"BACKBONE": os.environ.get("BACKBONE") or "tiny", **ONE_THREAD} if embedded else {}),
    }


def is_embedded(dataset: str) -> bool:
    """Tell whether a data set draws itself."""
    return dataset.startswith(EMBEDDED)


def label(dataset: str) -> str:
    """Return a data set's name in folders; of a yaml of one's own, the file's."""
    return Path(dataset).stem


def in_words(shots: int) -> str:
    """Write a number of shots."""
    return f"{shots} shot{'s' * (shots > 1)}"


def log_of(output: str, folder: str) -> Path:
    """Return the file for what the process that fills ``folder`` says."""
    return Path(output, "logs", os.path.relpath(folder, output) + ".txt")
