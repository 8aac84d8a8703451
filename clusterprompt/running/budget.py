"""How a method is run: with the settings of its yaml; on drawn data sets for fewer epochs and in fp32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from .spec import Environment, is_drawn

if TYPE_CHECKING:
    from ..trainers.base import PromptTrainer

# On drawn data sets: epochs, seconds of a run on one core (a first guess), further settings. A rule for all: the yaml's
# epochs, but no more than take 30 to 50 s on one core, at the yaml's batch size and rate. PromptSRC's average moves
# along: its mean lies at about 3/4.
EPOCHS: dict[str, tuple] = {
    "ZeroshotCLIP": (None, 12),
    "CoOp": (20, 42),
    "KgCoOp": (20, 32),
    "ProGrad": (20, 42),
    "TCP": (20, 40),
    "CoCoOp": (2, 50),
    "VPT": (5, 26),
    "IVLP": (5, 32),
    "MaPLe": (5, 33),
    "PromptSRC": (5, 45, "TRAINER.PROMPTSRC.GPA_MEAN", "4"),
    "TAC": (5, 62),
    "AttriPrompt": (8, 60),
    "CoPrompt": (5, 45),
    "HiCroPL": (20, 45),
    "PromptKD": (5, 60),
    "CLIPAdapter": (20, 30),
    "TaskRes": (20, 30),
    "CLIPLoRA": (10, 50),
    "TipAdapter": (20, 40),
    "MMRL": (5, 40),
    "MMRLpp": (5, 40),
    "MMA": (5, 30),
    "ATPrompt": (20, 42),
    "DePT": (5, 40),
}
# On drawn data sets, for which there is no other: the method whose run of the same seed is the teacher, and the key.
TEACHERS = {"PromptKD": ("PromptSRC", "TRAINER.PROMPTKD.TEACHER_MODEL")}
OTHERS = (5, 40)  # a method that is not in the list


class Method(NamedTuple):
    """A method and its settings.

    Attributes:
        trainer: Name of the trainer.
        epochs: None leaves the yaml's, or there is nothing to learn.
        guess: Seconds that a run takes on one core; corrected as runs finish.
        settings: KEY VALUE pairs.
        teacher: The method that is trained before, with the same seed on the same classes; empty for none.
        teacher_key: Key of the folder of the teacher's run.
    """

    trainer: str
    epochs: int | None = None
    guess: float = 60.0
    settings: tuple[str, ...] = ()
    teacher: str = ""
    teacher_key: str = ""


def known_trainers() -> dict[str, type[PromptTrainer]]:
    """Return the methods of this package by name."""
    from .. import dassl_compat, registration

    dassl_compat.prepare()
    return {cls.__name__: cls for cls in registration.own_trainers()}


def own_name(name: str) -> str:
    """Return the name of a method here, for its own or that of its authors' code; an unknown one as it is."""
    theirs = {vars(cls).get("official_trainer"): own for own, cls in known_trainers().items()}
    return theirs.get(name, name)


def chosen_trainers(names: Sequence[str] | None) -> list[type[PromptTrainer]]:
    """Return the classes of the methods that ``--trainers`` names; all where it is left out.

    Raises:
        ValueError: There is no such method.
    """
    known = known_trainers()
    names = list(known) if names is None or "all" in names else list(dict.fromkeys(map(own_name, names)))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no trainer {', '.join(map(repr, unknown))}; there are {', '.join(known)}")
    return [known[name] for name in names]


def class_bound(cls: type[PromptTrainer]) -> str:
    """Return why a method serves no other classes than those it was trained on, whatever its settings; else empty."""
    return cls.tied_to_classes if isinstance(cls.tied_to_classes, str) else ""


def that_serve_new_classes(classes: Sequence[type[PromptTrainer]], protocol: str) -> list[type[PromptTrainer]]:
    """Return the methods that a protocol with other classes than the training's can test.

    Raises:
        ValueError: None can be.
    """
    serving = [cls for cls in classes if not class_bound(cls)]
    if classes and not serving:
        bound = ", ".join(f"{cls.__name__} ({class_bound(cls)})" for cls in classes)
        raise ValueError(
            f"{protocol} tests on other classes than it trains on, and these serve none: {bound}. Take the protocol "
            "few_shot"
        )
    return serving


def left_out_note(classes: Sequence[type[PromptTrainer]], protocol: str) -> str:
    """Say which methods a protocol with other classes cannot test; empty if it can test all."""
    bound = ", ".join(f"{cls.__name__} ({class_bound(cls)})" for cls in classes if class_bound(cls))
    return bound and f" Left out of {protocol}, as they serve no new classes: {bound}."


def method(cls: type[PromptTrainer], dataset: str) -> Method:
    """Return how a method is run on a data set; the environment's EPOCHS come first.

    Args:
        cls: Class of the trainer.
        dataset: Name of a yaml in configs/datasets, or the path of the user's own.
    """
    epochs, guess, *settings = EPOCHS.get(cls.__name__, OTHERS)
    own = Environment.read().epochs
    if not is_drawn(dataset):
        return Method(cls.__name__, own, guess)
    precision = f"TRAINER.{cls.node()}.PREC", "fp32"
    return Method(cls.__name__, own or epochs, guess, (*settings, *precision), *TEACHERS.get(cls.__name__, ()))
