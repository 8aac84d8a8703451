"""Whole protocols for several methods, data sets and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..record.names import dataset_key
from ..record.protocols import Protocol, Request, all_protocols
from .budget import left_out_note, method, that_serve_new_classes
from .plan import Job, plan
from .spec import check_dataset, find_config, is_drawn, trainer_config

if TYPE_CHECKING:
    from ..trainers.base import PromptTrainer


@dataclass(frozen=True)
class Campaign:
    """What ``clusterprompt run`` is asked for.

    Attributes:
        protocols: In their order.
        trainers: Classes of the methods.
        datasets: Data sets of protocols that do not transfer.
        source: What transfers train on; empty chooses by targets and data sets.
        targets: What transfers test on; None for each protocol's usual ones.
        seeds: Seeds of all runs.
        shots: Training images a class.
        few_shots: Numbers of training images a class that a few-shot protocol compares.
        output: Folder of all results.
        pairs: KEY VALUE pairs for all runs.

    Raises:
        ValueError: A data set does not exist, a method lacks a yaml, or no protocol tests on the targets.
    """

    protocols: Sequence[Protocol]
    trainers: Sequence[type[PromptTrainer]]
    datasets: Sequence[str]
    source: str
    targets: Sequence[str] | None
    seeds: Sequence[int]
    shots: int
    few_shots: Sequence[int]
    output: str
    pairs: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in [*self.datasets, *([self.source] if self.source else []), *(self.targets or [])]:
            check_dataset(name)
        if not self.source:
            object.__setattr__(self, "source", self._choose_source())
        for trainer in self.trainers:
            for name in sorted({protocol.yaml for protocol in self.protocols}):
                path = trainer_config(trainer.__name__, name)
                try:
                    find_config(path)
                except FileNotFoundError:
                    raise ValueError(
                        f"{trainer.__name__} has no {path}; copy another protocol's and change what has to be"
                    ) from None
        if self.targets:
            asked = [each for each in self.protocols if not each.transfers or self.targets_of(each)]
            object.__setattr__(self, "protocols", asked)
            if not asked:
                raise ValueError(
                    f"--targets {' '.join(self.targets)}: no protocol that was asked for tests on these; "
                    "see docs/protocols.md, or use --protocol all"
                )

    def _choose_source(self) -> str:
        """Return the source of the targets, else shapes if all data sets are drawn, else imagenet."""
        for target in self.targets or []:
            for source in ("imagenet", "shapes"):
                if any(_holds(each.targets(source), target) for each in self.protocols if each.transfers):
                    return source
        return "shapes" if all(map(is_drawn, self.datasets)) else "imagenet"

    def targets_of(self, protocol: Protocol) -> tuple[str, ...]:
        """Return what a transfer tests on; one protocol takes those that no protocol lists."""
        usual = protocol.targets(self.source)
        if self.targets is None:
            return usual
        listed = {dataset_key(name) for each in all_protocols().values() for name in each.targets(self.source)}
        return tuple(
            name
            for name in self.targets
            if _holds(usual, name) or (protocol.takes_any_target and dataset_key(name) not in listed)
        )

    def jobs(self) -> dict[str, list[Job]]:
        """Return the jobs of each protocol by its name."""
        return {protocol.name: self._jobs(protocol) for protocol in self.protocols}

    def _jobs(self, protocol: Protocol) -> list[Job]:
        found = []
        trainers = self.trainers
        if self._tests_new_classes(protocol):
            trainers = that_serve_new_classes(trainers, protocol.name)
        for dataset in [self.source] if protocol.transfers else self.datasets:
            targets = self.targets_of(protocol) if protocol.transfers else None
            request = Request(dataset, self.shots, tuple(self.few_shots), targets)
            methods = [method(cls, dataset) for cls in trainers]
            found += plan(protocol, request, methods, self.seeds, output=self.output, pairs=self.pairs)
        return found

    def _tests_new_classes(self, protocol: Protocol) -> bool:
        return protocol.other_classes and not (protocol.transfers and not self.targets_of(protocol))

    def headline(self) -> str:
        """Describe the campaign in one line."""
        over = []
        if any(not protocol.transfers for protocol in self.protocols):
            over.append(", ".join(self.datasets))
        if any(protocol.transfers for protocol in self.protocols):
            over.append(f"source {self.source}")
        names = ", ".join(cls.__name__ for cls in self.trainers)
        protocols = ", ".join(protocol.name for protocol in self.protocols)
        notes = [left_out_note(self.trainers, each.name) for each in self.protocols if self._tests_new_classes(each)]
        return f"{protocols} on {'; '.join(over)}: {names}; seeds {', '.join(map(str, self.seeds))}.{''.join(notes)}"


def _holds(names: Sequence[str], name: str) -> bool:
    return dataset_key(name) in map(dataset_key, names)
