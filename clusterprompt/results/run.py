"""A finished run as tables see it: the row it belongs to, and what it was tested on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ..record.names import dataset_key
from ..record.protocols import Protocol
from ..record.result import RunRecord

# As in the papers' tables: by year. Others follow in alphabetical order.
METHODS = (
    "ZeroshotCLIP",
    "CoOp",
    "CoCoOp",
    "TipAdapter",
    "ProGrad",
    "KgCoOp",
    "VPT",
    "IVLP",
    "MaPLe",
    "PromptSRC",
    "TaskRes",
    "CLIPAdapter",
    "TCP",
    "CLIPLoRA",
    "MMA",
    "CoPrompt",
    "DePT",
    "PromptKD",
    "TAC",
    "AttriPrompt",
    "MMRL",
    "HiCroPL",
    "ATPrompt",
    "MMRLpp",
)


class Method(NamedTuple):
    """A method with its settings: a row of a table.

    Attributes:
        trainer: Name of the method.
        backbone: Name or file of the CLIP.
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
        """Return the key that rows are sorted by."""
        place = METHODS.index(self.trainer) if self.trainer in METHODS else len(METHODS)
        return self.folder, self.backbone, place, self.trainer, self.cfg, self.shots


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run in one protocol.

    Attributes:
        path: Output folder.
        protocol: Name of the protocol.
        method: Row that the run belongs to.
        dataset: Tested data set, as its class is called; of own images, the folder's name.
        source: Data set trained on, by the same name; ``dataset`` for zero-shot runs outside transfer.
        part: "base", "new" or "all".
        seed: Seed of the training run; of a zero-shot run, its own.
        record: Content of result.json.
    """

    path: Path
    protocol: str
    method: Method
    dataset: str
    source: str
    part: str
    seed: int
    record: RunRecord

    @cached_property
    def key(self) -> str:
        """Spelling of the tested data set that its class and its yaml share."""
        return dataset_key(self.dataset)

    @cached_property
    def source_key(self) -> str:
        """Spelling of the source that its class and its yaml share."""
        return dataset_key(self.source)

    @property
    def accuracy(self) -> float:
        """Accuracy in percent; every collected run has one."""
        assert self.record.accuracy is not None
        return self.record.accuracy

    @property
    def is_training(self) -> bool:
        """Whether the run was tested on what it was trained on; of two halves, the base one."""
        return self.part != "new" and self.key == self.source_key

    @property
    def is_drawn(self) -> bool:
        """Whether the data set was drawn by this program; records of older versions do not tell it from the CLIP."""
        return self.record.is_embedded if self.record.drawn is None else self.record.drawn

    @property
    def name(self) -> str:
        """Name of the run in a message."""
        return f"{self.method.trainer} on {self.dataset}, seed {self.seed}"


def column_of(protocol: Protocol, run: Run) -> str:
    """Return the column of a run in the protocol's tables."""
    return protocol.column(run.dataset, run.part, run.method.shots)


def format_ranges(numbers: Iterable[int]) -> str:
    """Write numbers shortly: "1-3", "1, 4"."""
    numbers = sorted(numbers)
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ", ".join(map(str, numbers))
