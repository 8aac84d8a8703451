"""How a method is run: with the settings of its yaml; on the embedded data sets, whatever the protocol, for fewer
epochs and in fp32.
"""

import os
import re
from typing import NamedTuple, Optional

from .base2new import EMBEDDED

# On the embedded data sets: epochs, seconds of a run on one core (a first guess), further settings. A rule for all: the
# yaml's epochs, but no more than take 30 to 50 s on one core, at the yaml's batch size and rate. PromptSRC's average
# moves along: its mean lies at about 3/4.
EPOCHS = {
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
    "AttriPrompt": (4, 60),
}
OTHERS = (5, 40)  # a method that is not in the list


class Method(NamedTuple):
    """A method and its settings.

    Attributes:
        trainer: Its name.
        epochs: None leaves the yaml's, or there is nothing to learn.
        guess: Seconds that a run takes on one core; corrected as the runs go.
        settings: KEY VALUE pairs.
    """

    trainer: str
    epochs: Optional[int]
    guess: float
    settings: tuple = ()


def check_environment(parser):
    """End with a parser's message if the environment's SHOTS or EPOCHS is no number from 1 on."""
    for name in ("SHOTS", "EPOCHS"):
        if os.environ.get(name) and not re.fullmatch("[1-9][0-9]*", os.environ[name]):
            parser.error(f"the environment's {name} is {os.environ[name]!r}; it takes a number from 1 on")


def method(cls, dataset: str) -> Method:
    """Return how a method is run: its yaml's settings, but for the embedded data sets; the environment's EPOCHS come
    first.
    """
    epochs, guess, *settings = EPOCHS.get(cls.__name__, OTHERS)
    own = int(os.environ["EPOCHS"]) if os.environ.get("EPOCHS") else None
    if not dataset.startswith(EMBEDDED):
        return Method(cls.__name__, own, guess)
    return Method(cls.__name__, own or epochs, guess, (*settings, f"TRAINER.{cls.node()}.PREC", "fp32"))
