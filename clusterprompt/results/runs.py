"""Finished runs below a folder: which protocol and method each belongs to, and what of the folder cannot be used."""

import csv
import json
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from ..config import get, keys
from ..record import protocols
from ..record.folder import LOCAL_SETTINGS

LAYOUT = re.compile(
    r"(?P<root>.*/)?(?P<kind>base2new|xd|few_shot)(?:/(?P<step>train_base|test_new|train|test))?"
    r"/(?P<data>[^/]+)/shots_-?\d+/[^/]+/(?P<cfg>[^/]+)/seed[^/]+"
)
OWN_IMAGES = (
    "ImageFolder",
    "ImageCSV",
)  # classes of any number of data sets: the folder of a run, named after its yaml, tells them apart
TRANSFER = ("cross_dataset", "domain_generalisation")  # one trained model serves both
# As in the papers' tables: by year. Others follow in alphabetical order.
METHODS = (
    "ZeroshotCLIP",
    "CoOp",
    "CoCoOp",
    "ProGrad",
    "KgCoOp",
    "VPT",
    "IVLP",
    "MaPLe",
    "PromptSRC",
    "TCP",
    "TAC",
    "AttriPrompt",
)
NOT_COMPARED = (
    *LOCAL_SETTINGS,
    "SEED",
    "DATASET.SUBSAMPLE_CLASSES",
)  # differ between the runs of a row as a matter of course


class Method(NamedTuple):
    """What a row of a table is about.

    Attributes:
        cfg: Name of the trainer's yaml, from the folder; empty if the folder is not one of the usual layout.
        shots: 0 for zero-shot.
        folder: The part of the path before the usual layout, below the folder that was asked for; empty for that folder
            itself.
    """

    trainer: str
    backbone: str
    cfg: str
    shots: int
    folder: str

    def order(self) -> tuple:
        """Return what rows are sorted by."""
        place = METHODS.index(self.trainer) if self.trainer in METHODS else len(METHODS)
        return self.folder, self.backbone, place, self.trainer, self.cfg, self.shots


class Run(NamedTuple):
    """A finished run in one protocol.

    Attributes:
        dataset: What it was tested on, as the data set's class is called; of own images, the folder's name.
        source: What it was trained on, by the same name; ``dataset`` for zero-shot runs outside transfer.
        part: "base", "new" or "all".
        result: What result.json says.
    """

    path: Path
    protocol: str
    method: Method
    dataset: str
    source: str
    part: str
    seed: int
    result: dict

    @property
    def name(self) -> str:
        """Name the run in a message."""
        return f"{self.method.trainer} on {self.dataset}, seed {self.seed}"


class Findings(NamedTuple):
    """The runs of a folder, and sentences about what could not be used."""

    runs: list
    notes: list


def key(dataset: str) -> str:
    """Return one spelling for the names of a data set's class and of its yaml (OxfordPets, oxford_pets)."""
    plain = re.sub(r"[^a-z0-9]", "", dataset.lower())
    return "dtd" if plain == "describabletextures" else plain


def is_embedded(run: Run) -> bool:
    """Tell whether a run is of the synthetic world: drawn data or the embedded CLIP."""
    return key(run.dataset).startswith("shapes") or run.method.backbone == "tiny"


def find(folder) -> Findings:
    """Read every result.json below ``folder``.

    Raises:
        FileNotFoundError: There is no such folder, or nothing in it.
        ValueError: None of its runs can be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no such folder: {folder}; give the folder that your runs were written to, such as output/"
        )
    files = sorted(folder.rglob("result.json"))
    if not files:
        raise FileNotFoundError(
            f"no result.json below {folder}; run something first, for example: bash scripts/demo.sh"
        )
    results, unfinished, notes = {}, [], []
    for file in files:
        result, fault = read(file)
        if fault:
            notes.append(f"Left out, {fault}: {file}")
        elif result["status"] != "finished":
            unfinished.append(str(file.parent))
        else:
            results[file.parent] = result
    if unfinished:
        notes.append(f"Not finished, left out ({len(unfinished)}): {'; '.join(unfinished)}")
    runs = place(results, folder, notes)
    runs = without_duplicates(runs, notes)
    runs = whole_pairs(runs, notes)
    if not runs:
        raise ValueError(f"no run below {folder} can be used:\n" + "\n".join(f"  {note}" for note in notes))
    return Findings(
        sorted(runs, key=lambda run: (run.protocol, run.method.order(), run.dataset, run.part, run.seed)), notes
    )


def read(file: Path) -> tuple:
    """Return a result.json's content and what is wrong with it (empty if nothing is)."""
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {}, f"damaged ({error})"
    if not isinstance(result, dict) or not isinstance(result.get("status"), str):
        return {}, "damaged (no record of a run)"
    if result["status"] != "finished":
        return result, ""
    kinds = {
        "trainer": str,
        "dataset": str,
        "subsample": str,
        "shots": int,
        "seed": int,
        "backbone": str,
        "accuracy": (int, float),
    }
    wrong = [
        name for name, kind in kinds.items() if not isinstance(result.get(name), kind) or isinstance(result[name], bool)
    ]
    on = result.get("trained_on")
    if on is not None and not (
        isinstance(on, dict)
        and all(isinstance(on.get(name, result.get(name)), kinds[name]) for name in ("dataset", "shots", "seed"))
    ):
        wrong.append("a readable trained_on")
    if wrong:
        return {}, f"damaged (without {', '.join(wrong)})"
    if not math.isfinite(result["accuracy"]) or not 0 <= result["accuracy"] <= 100:
        return {}, f"damaged (accuracy {result['accuracy']})"
    return result, ""


def place(results: dict, folder: Path, notes: list) -> list:
    """Make runs of results: decide protocol, method and source of each, by content and, where that leaves it open, by
    folder.
    """
    trained_on = {path: origin(result) for path, result in results.items()}
    # What others were trained from: outside the usual layout, that tells a source from a few-shot run.
    sources = {
        (result["trainer"], *on)
        for path, result in results.items()
        if (on := trained_on[path]) and key(on[0]) != key(result["dataset"])
    }
    runs = []
    for path, result in results.items():
        layout = LAYOUT.fullmatch(path.resolve().as_posix())
        on, dataset, part = trained_on[path], result["dataset"], result["subsample"]
        kind = layout["kind"] if layout else ""
        shots, seed = (on[1], on[2]) if on else (0, result["seed"])
        method = Method(
            result["trainer"], result["backbone"], layout["cfg"] if layout else "", shots, below(layout, folder)
        )
        own = layout["data"] if layout and dataset in OWN_IMAGES else ""
        elsewhere = on is not None and (key(on[0]) != key(dataset) or bool(own) and layout["step"] == "test")
        if part in ("base", "new") and not elsewhere:
            found = [("base2new", dataset)]
        elif part != "all":
            found = []
        elif elsewhere:
            known = [
                protocol
                for protocol in TRANSFER
                if key(dataset) in map(key, protocols.targets(protocol, yaml_of(protocol, on[0])))
            ]
            found = [(protocol, on[0]) for protocol in known or ["cross_dataset"]]
        elif kind == "few_shot":
            found = [("few_shot", dataset)]
        elif on and (kind == "xd" or (result["trainer"], *on) in sources):
            found = [(protocol, dataset) for protocol in TRANSFER]
        elif not on:
            found = zero_shot_places(dataset) or [("few_shot", dataset)]
        else:
            found = [("few_shot", dataset)]
        classes = (result.get("trained_on") or {}).get("subsample", "")
        told = isinstance(result.get("trained_on"), dict) or (
            "trained_on" not in result and not (kind == "xd" and layout["step"] == "test")
        )
        if on and not told and part == "all":
            notes.append(f"Left out, it is not known what it was trained on: {path}")
            continue
        if not found or (on and classes not in ("", "all" if part == "all" else "base")):
            notes.append(
                f"Left out, of no known protocol (trained on {classes or 'unknown'} classes, tested on {part}): {path}"
            )
            continue
        for protocol, source in found:
            if own and protocol not in TRANSFER:
                dataset = source = own
            elif own and elsewhere:  # as a source it keeps its class's name, the only one that its tests know
                dataset = own
            runs.append(Run(path, protocol, method, dataset, source, part, seed, result))
    return runs


def origin(result: dict):
    """Return (data set, shots, seed) of the training run behind a result; None for zero-shot."""
    if result["trainer"] == "ZeroshotCLIP" or result.get("learned_parameters") == 0:
        return None
    on = result.get("trained_on") or {}  # older records, and tests of official checkpoints, have none
    return tuple(on.get(name, result[name]) for name in ("dataset", "shots", "seed"))


def yaml_of(protocol: str, source: str) -> str:
    """Return the name that a protocol's table of targets has for a source; the name itself if it has none."""
    return next((name for name in protocols.TARGETS[protocol] if key(name) == key(source)), source)


def zero_shot_places(dataset: str) -> list:
    """Return the transfer protocols in which a data set is a source or a target, with the source."""
    found = []
    for protocol in TRANSFER:
        for source, targets in protocols.TARGETS[protocol].items():
            if key(dataset) in map(key, (source, *targets)):
                found.append((protocol, source))
    return found


def below(layout, folder: Path) -> str:
    """Return the part of a path between the folder asked for and the usual layout."""
    root = Path(layout["root"] or "/") if layout else folder.resolve()
    return (
        root.relative_to(folder.resolve()).as_posix()
        if root.is_relative_to(folder.resolve()) and root != folder.resolve()
        else ""
    )


def without_duplicates(runs: list, notes: list) -> list:
    """Keep the run written last where several are of the same protocol, method, data, and seed."""
    same = defaultdict(list)
    for run in runs:
        same[run.protocol, run.method, key(run.dataset), key(run.source), run.part, run.seed].append(run)
    for group in same.values():
        group.sort(key=lambda run: ((run.path / "result.json").stat().st_mtime, str(run.path)))
        # The zero-shot run of each number of shots is the same run again.
        if len(group) > 1 and (group[0].method.shots or len({run.result["accuracy"] for run in group}) > 1):
            others = "; ".join(str(run.path) for run in group[:-1])
            note = f"Duplicates: {group[-1].name} ({group[-1].part}) is counted once, from {group[-1].path}; left out: {others}"
            if note not in notes:
                notes.append(note)
    return [group[-1] for group in same.values()]


def whole_pairs(runs: list, notes: list) -> list:
    """Leave out runs of one half of the classes that lack the other half."""
    halves = defaultdict(dict)
    for run in runs:
        if run.protocol == "base2new":
            halves[run.method, key(run.dataset), run.seed][run.part] = run
    for pair in halves.values():
        if len(pair) == 1:
            ((part, run),) = pair.items()
            lacks = {
                "new": "a test on the new classes without its base half",
                "base": "the base half without a test on the new classes",
            }[part]
            notes.append(f"Left out, {lacks}: {run.path}")
    single = {id(run) for pair in halves.values() if len(pair) == 1 for run in pair.values()}
    return [run for run in runs if id(run) not in single]


def differing_settings(runs: list) -> list:
    """Return the settings in which runs of one row differ, as "KEY: 5 (seed 1), 10 (seeds 2, 3)"."""
    configs = [(run, settings(run)) for run in runs]
    shared = set.intersection(*(set(config) for _, config in configs)) if configs else set()
    texts = []
    for name in sorted(shared):
        values = defaultdict(set)
        for run, config in configs:
            values[config[name]].add(run.seed)
        if len(values) > 1:
            texts.append(
                f"{name}: "
                + ", ".join(f"{value} (seed{'s' * (len(seeds) > 1)} {span(seeds)})" for value, seeds in values.items())
            )
    return texts


def settings(run: Run) -> dict:
    """Return the settings that make a run's numbers, {"OPTIM.LR": "0.002", ...}; other methods' left out."""
    config = run.result.get("config")
    if not isinstance(config, dict):
        return {}
    node = run.method.trainer.upper()
    own = isinstance(config.get("TRAINER"), dict) and node in config["TRAINER"]  # some share the node of another method
    found = {}
    for name in keys(config):
        if name in NOT_COMPARED or (
            own and name.startswith("TRAINER.") and not name.startswith(f"TRAINER.{node}.") and name != "TRAINER.NAME"
        ):
            continue
        if name == "DATASET.NUM_SHOTS" and not run.method.shots:
            continue
        found[name] = str(get(config, name))
    return found


def span(numbers) -> str:
    """Write numbers shortly: "1-3", "1, 4"."""
    numbers = sorted(numbers)
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ", ".join(map(str, numbers))


def read_predictions(run: Run) -> list:
    """Return the rows of a run's predictions.csv as (path, label, prediction); empty where there is none.

    Raises:
        ValueError: The file is damaged.
    """
    file, classes = run.path / "predictions.csv", len(run.result.get("classnames") or ())
    if not file.is_file():
        return []
    try:
        with open(
            file, newline="", encoding="utf-8", errors="backslashreplace"
        ) as lines:  # an image's name may be any bytes
            rows = [(row["path"], int(row["label"]), int(row["prediction"])) for row in csv.DictReader(lines)]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"Left out, damaged ({type(error).__name__}: {error}): {file}") from None
    if any(not 0 <= index < classes for _, label, prediction in rows for index in (label, prediction)):
        raise ValueError(f"Left out, damaged (a class beyond the {classes} of result.json): {file}")
    return rows
