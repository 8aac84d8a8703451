"""``result.json``: what was run, on what, with what, and what came out. This file is its only reader and writer."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..config import get, items, keys
from . import measure
from .files import write_text
from .json_files import read_json
from .names import printable
from .predictions import Prediction, read_predictions

FILE = "result.json"
LARGEST = 1 << 28  # bytes
LARGEST_NUMBER = 1e15
commit = lru_cache(measure.commit)  # of the code that this process has imported; the record is written after each epoch


class DamagedRecord(ValueError):
    """A result.json that cannot be used; the message says why."""


@dataclass(frozen=True)
class RunRecord:
    """One run. Accuracies in percent, times in seconds, memory in MiB.

    Records of older versions lack some of the fields that have a default here.

    Attributes:
        status: ``training`` or ``finished``.
        trainer: Name of the method.
        dataset: Class name of the data set that was tested (and trained on, in a training run).
        subsample: Classes: ``all``, or the half ``base`` or ``new``.
        shots: Training images a class.
        seed: Seed of the run; -1 where none was fixed.
        backbone: Name or file of the CLIP.
        accuracy: Of the last test, else of the last validation; None before the first.
        trained_on: Data set, subsample, shots and seed of the run that trained the model; None for zero-shot, and for
            an official checkpoint, which does not say.
        drawn: The data set was drawn by this program, for trying things out; None in records of older versions.
        transductive: The method saw unlabelled images of all classes in training, those tested as new ones included.
        precision: ``PREC`` of the run.
        macro_f1: Macro F1 over the classes that have images.
        n_test: Number of images tested.
        per_class: Recall by class name.
        classnames: In order of the labels.
        template: The hand-written prompt, with ``{}`` for the class name.
        text_source: Source of the class texts: ``official descriptions``, ``own file <name> (sha256 ...)`` or
            ``templates``; empty for a method that describes no classes, or where it is not known.
        fewshot_digest: SHA-256 of the training list before the classes are halved.
        test_digest: The same of all test images, in order of their paths.
        fewer_shots: Numbers of training images by class name, of classes that have fewer than the shots.
        checkpoint: ``file``, below the training run's folder, and ``sha256`` of the weights: in a test those that it
            loaded, in a finished training run those that a test will load; None where nothing was loaded.
        epoch: Epochs done, or the one in progress.
        learned_parameters: Number of learned parameters; 0 for a method that learns nothing, -1 where it is not known.
        seconds: Wall-clock time of ``train`` and ``test``.
        seconds_per_epoch: Wall-clock time of an epoch.
        peak_memory_mb: Most memory in use: allocated on the GPU, or resident on a CPU.
        device: Name of the device.
        processes: How many processes trained the model together, each on a device.
        versions: Versions of the packages that can move a number.
        commit: Commit of the checkout, with ``+`` if files differed from it; empty outside a checkout.
        history: One entry an epoch.
        config: The whole config, as nested dicts.
        extra: What the method adds, such as AttriPrompt's ``retrieval``.
    """

    status: str
    trainer: str
    dataset: str
    subsample: str
    shots: int
    seed: int
    backbone: str
    accuracy: float | None = None
    trained_on: dict | None = None
    drawn: bool | None = None
    transductive: bool = False
    precision: str = ""
    macro_f1: float | None = None
    n_test: int | None = None
    per_class: dict | None = None
    classnames: list = field(default_factory=list)
    template: str = ""
    text_source: str = ""
    fewshot_digest: str | None = None
    test_digest: str | None = None
    fewer_shots: dict = field(default_factory=dict)
    checkpoint: dict | None = None
    epoch: int | None = None
    learned_parameters: int = -1
    seconds: dict = field(default_factory=dict)
    seconds_per_epoch: float = 0.0
    peak_memory_mb: float = 0.0
    device: str = ""
    processes: int = 1
    versions: dict = field(default_factory=dict)
    commit: str = ""
    history: list = field(default_factory=list)
    config: dict = field(default_factory=dict)
    extra: dict = field(default_factory=dict)

    # ------------------------------------------------------------------ reading
    @classmethod
    def read(cls, folder: str | Path) -> RunRecord:
        """Read the record of a run.

        Args:
            folder: Output folder of the run.

        Raises:
            FileNotFoundError: The folder has no result.json.
            DamagedRecord: result.json is damaged.
        """
        file = Path(folder, FILE)
        try:
            if file.is_file() and file.stat().st_size > LARGEST:
                raise DamagedRecord(f"damaged (larger than {LARGEST >> 20} MB)")
            if file.exists() and not file.is_file():  # a pipe would be waited for
                raise DamagedRecord("damaged (not a regular file)")
            content = read_json(file)
        except FileNotFoundError:
            raise FileNotFoundError(f"{folder} holds no run (no {FILE})") from None
        except DamagedRecord:
            raise
        except (OSError, ValueError) as error:
            raise DamagedRecord(f"damaged ({error})") from error
        return cls.of_json(content)

    @classmethod
    def find(cls, folder: str | Path) -> RunRecord | None:
        """Read the record of a run; None where there is none, or a damaged one."""
        try:
            return cls.read(folder)
        except (FileNotFoundError, DamagedRecord):
            return None

    @classmethod
    def of_json(cls, content: Any) -> RunRecord:
        """Build a record from the content of a result.json.

        Raises:
            DamagedRecord: A field is missing or of another kind.
        """
        if not isinstance(content, dict) or not isinstance(content.get("status"), str):
            raise DamagedRecord("damaged (no record of a run)")
        names = [each.name for each in fields(cls) if each.name != "extra"]
        known = {name: content[name] for name in names if content.get(name) is not None}
        wrong = [name for name in names if name in known and not _fits(name, known[name])]
        wrong += [name for name in _REQUIRED if name not in known]
        if wrong:
            raise DamagedRecord(f"damaged (without {', '.join(dict.fromkeys(wrong))})")
        accuracy = known.get("accuracy")
        if accuracy is not None and not (math.isfinite(accuracy) and 0 <= accuracy <= 100):
            raise DamagedRecord(f"damaged (accuracy {accuracy})")
        odd = [name for name, value in known.items() if not _is_sound(name, value)]
        if odd:
            raise DamagedRecord(f"damaged (odd {', '.join(odd)})")
        known.setdefault("text_source", text_source_before(known["trainer"], known.get("config", {})))
        return cls(**known, extra={name: value for name, value in content.items() if name not in names})

    # ------------------------------------------------------------------ writing
    @classmethod
    def of(cls, trainer: Any) -> RunRecord:
        """Build the record of a running or finished trainer."""
        cfg, learner = trainer.cfg, trainer.learner
        recorder = trainer.recorder
        scores = recorder.scores.get("test") or recorder.scores.get("val") or {}
        return cls(
            status=recorder.status,
            trainer=type(trainer).__name__,
            **task_of(cfg),
            trained_on=recorder.trained_on,
            drawn=getattr(trainer.dm.dataset, "drawn", False),
            backbone=cfg.MODEL.BACKBONE.NAME,
            transductive=trainer.transductive,
            precision=trainer.precision,
            accuracy=scores.get("accuracy"),
            macro_f1=scores.get("macro_f1"),
            n_test=scores.get("n"),
            per_class=scores.get("per_class"),
            classnames=list(trainer.classnames),
            template=trainer.template,
            text_source=str(trainer.text_source or ""),
            fewshot_digest=getattr(trainer.dm.dataset, "fewshot_digest", None),
            test_digest=getattr(trainer.dm.dataset, "test_digest", None),
            fewer_shots=getattr(trainer.dm.dataset, "fewer_shots", {}),
            checkpoint=recorder.checkpoint,
            epoch=trainer.epoch + 1 if recorder.status == "training" else trainer.max_epoch,
            learned_parameters=sum(p.numel() for p in (learner.parameters() if learner else ()) if p.requires_grad),
            seconds={name: round(value, 2) for name, value in recorder.seconds.items()},
            seconds_per_epoch=round(recorder.seconds_per_epoch, 3),
            peak_memory_mb=round(measure.peak_memory_mb(trainer.device), 1),
            device=measure.device_name(trainer.device),
            processes=measure.processes(),
            versions=measure.versions(),
            commit=commit(),
            history=recorder.history,
            config=plain_config(cfg),
            extra=trainer.extra_results(),
        )

    def write(self, folder: str | Path) -> None:
        """Write ``result.json`` into a run's folder, whole or not at all."""
        content = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "extra"}
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_text(Path(folder, FILE), json.dumps({**content, **self.extra}, indent=2))

    # ------------------------------------------------------------------ questions
    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.status == "finished"

    @property
    def is_zero_shot(self) -> bool:
        """Whether nothing was learned."""
        return self.trainer == "ZeroshotCLIP" or self.learned_parameters == 0

    @property
    def is_embedded(self) -> bool:
        """Whether the run is of the small synthetic world: drawn data, or the embedded CLIP."""
        drawn = self.dataset in _DRAWN_BEFORE if self.drawn is None else self.drawn
        return drawn or self.backbone == "tiny"

    @property
    def is_validation(self) -> bool:
        """Whether the accuracy is of validation images, as in a search for settings."""
        test = self.config.get("TEST")
        return isinstance(test, dict) and test.get("SPLIT") == "val"

    def predictions(self, folder: str | Path) -> list[Prediction]:
        """Read the run's ``predictions.csv``; see :func:`.predictions.read_predictions`."""
        return read_predictions(folder, len(self.classnames))

    def changed_settings(self, cfg: Any) -> list[str]:
        """Return the settings in which this run differs from ``cfg``, as "KEY old -> new".

        Settings that do not change the numbers of a run do not count, nor do those of other methods.
        """
        return changed_settings(self.config, cfg, self.text_source)


# Settings that do not change the numbers of a run, or (INPUT.SIZE) follow from those that do.
LOCAL_SETTINGS = (
    "OUTPUT_DIR",
    "RESUME",
    "DATASET.ROOT",
    "VERBOSE",
    "USE_CUDA",
    "TRAIN.PRINT_FREQ",
    "TRAIN.WANDB",
    "TRAIN.MICRO_BATCH",
    "INPUT.SIZE",
)


def plain_config(cfg: Any) -> dict[str, Any]:
    """Return a config as nested dicts of what JSON holds."""
    return json.loads(json.dumps(cfg, default=list))


def changed_settings(old_config: dict[str, Any], cfg: Any, old_texts: str = "") -> list[str]:
    """Return the settings in which a run's config differs from ``cfg``; see :meth:`RunRecord.changed_settings`.

    Args:
        old_config: Config of the run.
        cfg: The config it is compared with.
        old_texts: Source of the run's class texts. Sources are compared by content, not by the names of files.
    """
    if not old_config:
        return []
    new_texts = _texts_of(cfg)
    now = plain_config(cfg)
    own = f"TRAINER.{_node(cfg.TRAINER.NAME)}."
    local = set(LOCAL_SETTINGS)
    if cfg.DATASET.NAME == "ImageFolder":  # its root says which data they are
        local.discard("DATASET.ROOT")
    changed = []
    for key in sorted(set(keys(old_config)) & set(keys(now))):
        old, new = get(old_config, key), get(now, key)
        of_a_trainer = key.startswith("TRAINER.") and key.count(".") > 1
        counts = key.startswith(own) if of_a_trainer else key not in local
        counts = counts and not (old_texts and new_texts and key.endswith(".DESCRIPTIONS"))
        if counts and old != new:
            changed.append(f"{key} {old!r} -> {new!r}")
    if old_texts and new_texts and old_texts != new_texts:
        changed.append(f"class texts {old_texts!r} -> {new_texts!r}")
    return changed


def text_source_before(trainer: str, config: dict[str, Any]) -> str:
    """Return the source of class texts of a run of an older version: templates, where its config names no file."""
    values = dict(items(config))
    own = values.get(f"TRAINER.{trainer.upper()}.DESCRIPTIONS")
    return "templates" if own == "" and not values.get("DATASET.DESCRIPTIONS") else ""


def _texts_of(cfg: Any) -> str:
    """Return the source of class texts that a config leads to; empty where a method has none, or a file is gone."""
    from dassl.engine import TRAINER_REGISTRY

    find = getattr(TRAINER_REGISTRY.get(cfg.TRAINER.NAME), "find_text_source", None)
    try:
        return str(find(cfg) or "") if find else ""
    except (OSError, ValueError):  # said by whoever wants to read it
        return ""


def task_of(cfg: Any) -> dict[str, Any]:
    """Return what a model is trained on by a config: data set, half of the classes, shots, seed."""
    return {
        "dataset": cfg.DATASET.NAME,
        "subsample": cfg.DATASET.SUBSAMPLE_CLASSES,
        "shots": cfg.DATASET.NUM_SHOTS,
        "seed": cfg.SEED,
    }


# Drawn data sets at the time when records did not say so.
_DRAWN_BEFORE = (
    "Shapes",
    "ShapesOutline",
    "ShapesNoise",
    "ShapesBackground",
    "ShapesLowRes",
    "ShapesTextures",
    "ShapesColours",
    "ShapesCounts",
)
_REQUIRED = ("status", "trainer", "dataset", "subsample", "shots", "seed", "backbone")
_KINDS: dict[str, Any] = {
    "str": str,
    "int": int,
    "bool": bool,
    "float": (int, float),
    "dict": dict,
    "list": list,
}
_TASK_KINDS: dict[str, Any] = {"dataset": str, "subsample": str, "shots": int, "seed": int}


def _fits(name: str, value: Any) -> bool:
    """Tell whether a field's value is of the kind that its annotation says; a bool is no number."""
    annotation = RunRecord.__annotations__[name].removesuffix(" | None")
    if isinstance(value, bool) != (annotation == "bool") or not isinstance(value, _KINDS[annotation]):
        return False
    if name == "trained_on":
        return all(isinstance(value.get(key, kind()), kind) for key, kind in _TASK_KINDS.items())
    if name == "history":
        return all(isinstance(entry, dict) and isinstance(entry.get("epoch"), int) for entry in value)
    return True


# One-line words; names of classes may hold anything.
_WORDS = (
    *("status", "trainer", "dataset", "subsample", "backbone", "precision", "text_source", "device", "commit"),
    "versions",
)
_NUMBERS = ("seconds", "per_class")


def _is_sound(name: str, value: Any) -> bool:
    """Tell whether a field can be shown and calculated with: the values in it are of the kind that runs write."""
    if name == "config":
        return _is_config(value)
    if name == "history":
        return all(abs(entry["epoch"]) < LARGEST_NUMBER for entry in value) and _is_text(value)
    if name == "classnames":
        return all(isinstance(each, str) for each in value) and _is_text(value)
    if name in _NUMBERS:
        return _is_text(list(value)) and all(_is_number(each) for each in value.values())
    if name in _WORDS:
        words = [value] if isinstance(value, str) else [*value, *value.values()]
        return all(isinstance(word, str) and printable(word) == word for word in words)
    return _is_number(value) if isinstance(value, (int, float)) else _is_text(value)


def _is_number(value: Any) -> bool:
    """Tell a finite number of a size that can be calculated with."""
    return isinstance(value, (int, float)) and abs(value) < LARGEST_NUMBER  # false for NaN


def _is_text(value: Any) -> bool:
    """Tell whether all words in a value can be written as UTF-8, and it is not nested deep."""
    if isinstance(value, (bool, float, type(None))):  # whole numbers may have too many digits
        return True
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        return False
    return True


def _is_config(value: Any, depth: int = 0) -> bool:
    """Tell whether keys of nested dicts have dotted names, each its own."""
    if not isinstance(value, dict):
        return _is_text(value)
    keys_fit = depth < 20 and all("." not in key and printable(key) == key for key in value)
    return keys_fit and all(_is_config(each, depth + 1) for each in value.values())


def _node(trainer: str) -> str:
    """Return the name of a trainer's config node; a host's trainer does not say it."""
    from dassl.engine import TRAINER_REGISTRY

    cls = TRAINER_REGISTRY.get(trainer)
    return cls.node() if hasattr(cls, "node") else trainer.upper()
