"""A run as a value: what is trained or tested, with which settings, into which folder.

Only this module reads the environment that a shell gives to every command:

    DATA                folder of the data sets                            default: data
    OUTPUT              folder of all results                              default: output
    BACKBONE            tiny, an OpenAI name, or a file                    default: the yaml's; tiny for drawn data sets
    EPOCHS              OPTIM.MAX_EPOCH                                    default: the yaml's
    SHOTS               training images a class                            default: 16
    CFG                 name of the trainer's yaml                         default: the protocol's
    CLUSTERPROMPT_HOME  folder that data/ and output/ are looked for in    default: the current folder; for the scripts
                                                                           of a checkout, the checkout
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from .. import configs
from ..config import items, read_yaml
from ..record.protocols import Leg
from .dataset_settings import TABLE, dataset_settings
from .options import TrainOptions

CONFIGS = Path(configs.__file__).parent
# Settings that name layers, by their first letters, and what suits a tower of any depth.
ANY_DEPTH = {"PROMPT_DEPTH": "-1", "REP_LAYERS": "[]", "ADAPTER_START": "-1", "ADAPTER_END": "-1", "CROSS_LAYER": "-1"}
# Keys that a spec sets itself, and where they come from.
OWN_KEYS = {
    "DATASET.NUM_SHOTS": "SHOTS=<number> in the environment, or --shots",
    "DATASET.SUBSAMPLE_CLASSES": "the protocol",
    "OUTPUT_DIR": "OUTPUT=<folder> in the environment, or --output",
    "SEED": "--seed or --seeds",
    "TRAINER.NAME": "--trainer or --trainers",
}


class Environment(NamedTuple):
    """What the environment says; see the module.

    Attributes:
        data: Folder of the data sets; empty where it is not set, like all others.
        epochs: None where it is not set.
        shots: None where it is not set.
    """

    data: str = ""
    output: str = ""
    backbone: str = ""
    epochs: int | None = None
    shots: int | None = None
    cfg: str = ""

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Environment:
        """Read the environment.

        Raises:
            ValueError: EPOCHS or SHOTS is not a number from 1 on.
        """

        def number(name: str) -> int | None:
            value = environ.get(name) or ""
            if value and not re.fullmatch("[1-9][0-9]*", value):
                raise ValueError(f"the environment's {name} is {value!r}; it takes a number from 1 on")
            return int(value) if value else None

        return cls(
            data=environ.get("DATA") or "",
            output=environ.get("OUTPUT") or "",
            backbone=environ.get("BACKBONE") or "",
            epochs=number("EPOCHS"),
            shots=number("SHOTS"),
            cfg=environ.get("CFG") or "",
        )


def home() -> Path:
    """Return the folder that ``data/`` and ``output/`` are looked for in.

    The environment's CLUSTERPROMPT_HOME, else the checkout whose ``train.py`` or script was called, else the current
    folder.
    """
    checkout = Path(__file__).resolve().parents[2]
    is_door = Path(sys.argv[0]).resolve().parent in (checkout, checkout / "scripts")
    return Path(os.environ.get("CLUSTERPROMPT_HOME") or (checkout if is_door else "."))


def data_root(given: str | Path = "") -> str:
    """Return the folder of the data sets: the one given, else the environment's, else ``data``."""
    root = str(given or Environment.read().data or home() / "data")
    return str(Path(os.path.expandvars(root)).expanduser())


def output_root(given: str | Path | None = None) -> str:
    """Return the folder of all results: the one given, else the environment's, else ``output``."""
    if given or Environment.read().output:
        return str(given or Environment.read().output)
    return "output" if home().resolve() == Path.cwd() else str(home() / "output")


# ---------------------------------------------------------------------- yaml files
def find_config(path: str | Path) -> Path:
    """Return a yaml file, looked for below the current folder, then among those of this package.

    Raises:
        FileNotFoundError: There is none; the message lists its neighbours.
    """
    for candidate in (Path(path).expanduser(), CONFIGS.parent / path):
        if candidate.is_file():
            return candidate
    folder = (CONFIGS.parent / path).parent
    near = ", ".join(sorted(entry.name for entry in folder.glob("*.yaml") if entry.name != TABLE))
    raise FileNotFoundError(f"config file not found: {path}" + (f"; {folder} holds {near}" if near else ""))


def dataset_config(dataset: str) -> str:
    """Return the path of a data set's yaml: the user's own, or ``configs/datasets/<name>.yaml``."""
    return dataset if dataset.endswith((".yaml", ".yml")) else f"configs/datasets/{dataset}.yaml"


def trainer_config(trainer: str, cfg: str) -> str:
    """Return the path of a trainer's yaml."""
    return f"configs/trainers/{trainer}/{cfg}.yaml"


def known_datasets() -> list[str]:
    """Return the names of the data sets of this package, as ``--datasets`` takes them."""
    return sorted(path.stem for path in (CONFIGS / "datasets").glob("*.yaml"))


def check_dataset(dataset: str) -> None:
    """Refuse a data set that does not exist.

    Raises:
        ValueError: No yaml of that name, or no such file.
    """
    path = dataset_config(dataset)
    try:
        find_config(path)
    except FileNotFoundError:
        if path == dataset:
            raise ValueError(f"no such file: {dataset}") from None
        raise ValueError(f"no data set {dataset!r}; there are {', '.join(known_datasets())}") from None


@lru_cache
def is_drawn(dataset: str) -> bool:
    """Tell whether a data set draws its images itself, by its class."""
    from .. import dassl_compat, registration

    group = read_yaml(find_config(dataset_config(dataset))).get("DATASET")
    name = group.get("NAME") if isinstance(group, dict) else None
    dassl_compat.prepare()
    return any(cls.drawn for cls in registration.own_datasets() if cls.__name__ == name)


def _any_depth(key: str) -> str:
    """Return the value of a setting of layers that suits a tower of any depth; empty for other settings."""
    if not re.match(r"TRAINER\.\w+\.", key):
        return ""
    return next((value for start, value in ANY_DEPTH.items() if key.split(".")[-1].startswith(start)), "")


# ---------------------------------------------------------------------- a run
@dataclass(frozen=True)
class RunSpec:
    """One training run, or one test of a trained model.

    Attributes:
        leg: The part of the protocol.
        trainer: Name of the method.
        seed: Seed of the run.
        cfg: Name of the trainer's yaml, such as ``basetonovel``.
        output: Folder of all results.
        backbone: Name or file of the CLIP; empty for the yaml's.
        epochs: ``OPTIM.MAX_EPOCH``; None for the yaml's.
        pairs: KEY VALUE pairs, which come after all yamls.
        options: Further fields of :class:`TrainOptions`, such as ``root`` or ``load_epoch``.

    Raises:
        ValueError: ``pairs`` holds a key that the spec itself sets.
    """

    leg: Leg
    trainer: str
    seed: int
    cfg: str
    output: str
    backbone: str = ""
    epochs: int | None = None
    pairs: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in self.pairs[::2]:
            if key in OWN_KEYS:
                raise ValueError(f"{key} cannot be given as KEY VALUE here: it is set by {OWN_KEYS[key]}")

    @classmethod
    def of(cls, leg: Leg, trainer: str, seed: int, cfg: str, **settings: Any) -> RunSpec:
        """Build a spec whose missing settings come from the environment.

        Args:
            settings: Fields of the class; the environment fills ``output``, ``backbone`` and ``epochs``.
        """
        environment = Environment.read()
        defaults = {"output": output_root(), "backbone": environment.backbone, "epochs": environment.epochs}
        spec = cls(leg, trainer, seed, cfg, **{**defaults, **settings})
        return spec if spec.backbone or not is_drawn(leg.dataset) else spec.replaced(backbone="tiny")

    def replaced(self, **changes: Any) -> RunSpec:
        """Return a copy with other fields."""
        return RunSpec(**{**vars(self), **changes})

    @property
    def name(self) -> str:
        """The run in a message."""
        return f"{self.trainer}, {self.leg.label}, seed {self.seed}"

    @property
    def folder(self) -> str:
        """Output folder."""
        return str(self.leg.folder(self.output, self.trainer, self.cfg, self.seed))

    @property
    def model_folder(self) -> str:
        """Output folder of the training run whose model is tested; empty for a training run."""
        model = self.leg.model
        return str(model.folder(self.output, self.trainer, self.cfg, self.seed)) if model else ""

    def deep_prompts(self) -> dict[str, Any]:
        """Return the settings that name layers beyond those of the embedded CLIP, by key."""
        from ..clip_patches.embedded_clip import GEOMETRY

        depth = min(GEOMETRY[2], GEOMETRY[9])

        def is_beyond(key: str, value: Any) -> bool:
            most = depth - key.endswith(".CROSS_LAYER")  # stays below the depth
            return any(
                isinstance(layer, int) and layer > most for layer in (value if isinstance(value, list) else [value])
            )

        return {key: value for key, value in self._for_embedded().items() if _any_depth(key) and is_beyond(key, value)}

    def fitting_pairs(self) -> list[str]:
        """Return KEY VALUE pairs that fit the yaml to the embedded CLIP: all its layers, and itself as the teacher."""
        deep = [word for key in self.deep_prompts() for word in (key, _any_depth(key))]
        teachers = [key for key in self._for_embedded() if key.endswith(".TEACHER_NAME")]
        return [*deep, *(word for key in teachers for word in (key, ""))]

    def _for_embedded(self) -> dict[str, Any]:
        """Return the yaml's settings by key, if the CLIP is the embedded one, but those that the pairs give."""
        if self.backbone != "tiny":
            return {}
        path = find_config(trainer_config(self.trainer, self.cfg))
        table = dataset_settings(path, Path(self.leg.dataset).stem)
        settings = {**dict(items(read_yaml(path))), **table}
        return {key: value for key, value in settings.items() if key not in self.pairs}

    def train_options(self, *, resume: bool = False, overwrite: bool = False) -> TrainOptions:
        """Return what ``clusterprompt train`` is asked to do."""
        leg = self.leg
        shots = leg.shots if leg.images is None else leg.images
        pairs = [*self.pairs, *self.fitting_pairs()]
        epochs = ["OPTIM.MAX_EPOCH", str(self.epochs)] if self.epochs else []
        own = {
            "output_dir": self.folder,
            "seed": self.seed,
            "config_file": trainer_config(self.trainer, self.cfg),
            "dataset_config_file": dataset_config(leg.dataset),
            "trainer": self.trainer,
            "backbone": self.backbone,
            "eval_only": leg.model is not None,
            "model_dir": self.model_folder,
            "resume": resume or None,
            "overwrite": overwrite,
            "opts": (
                *epochs,
                *pairs,
                "DATASET.NUM_SHOTS",
                str(shots),
                "DATASET.SUBSAMPLE_CLASSES",
                leg.classes,
            ),
        }
        return TrainOptions(**{**self.options, **own})

    def to_json(self) -> str:
        """Write the spec as JSON; see :meth:`of_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, text: str) -> RunSpec:
        """Read what :meth:`to_json` wrote."""
        content = json.loads(text)
        leg = content.pop("leg")
        model = leg.pop("model")
        content["pairs"] = tuple(content["pairs"])
        return cls(Leg(**leg, model=Leg(**model) if model else None), **content)
