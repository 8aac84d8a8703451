"""Choose settings of methods by base-to-new runs that are scored on validation images, never on test images.

A cell is one choice of settings. Its runs are ordinary ones, one a data set and seed, in a folder of its own: what is
finished is kept, so a search can be stopped, continued and widened.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import config
from ..record.protocols import Request, all_protocols
from ..record.result import RunRecord
from ..record.statistics import base_to_new, harmonic_mean, summarise
from .budget import method
from .plan import Job, plan
from .spec import OWN_KEYS
from .train import make_cfg

if TYPE_CHECKING:
    from ..trainers.base import PromptTrainer

VALIDATION = ("TEST.SPLIT", "val")
Grid = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Cell:
    """One choice of settings.

    Attributes:
        trainer: Class of the method.
        changes: KEY VALUE pairs in which it differs from the method's yaml, by dotted key; empty for the yaml's.
    """

    trainer: type[PromptTrainer]
    changes: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """The changes as a table shows them: an option of the method without its node."""
        node = f"TRAINER.{self.trainer.node()}."
        return ", ".join(f"{key.removeprefix(node)} {value}" for key, value in self.changes) or "as configured"

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return re.sub(r"[^\w.+-]+", "_", self.name).strip("_")

    @property
    def pairs(self) -> tuple[str, ...]:
        """The changes as words of a command line."""
        return tuple(word for change in self.changes for word in change)


@dataclass(frozen=True)
class Search:
    """What is searched, and by which runs.

    Attributes:
        trainers: Classes of the methods.
        datasets: Data sets that choose; they need validation images.
        grid: Values by key: a dotted key of the config, or an option of the method.
        seeds: Seeds of the runs of every cell.
        shots: Training images a class.
        output: Folder of the cells.
        pairs: KEY VALUE pairs for all cells.

    Raises:
        ValueError: A key or a value that a method does not take.
    """

    trainers: Sequence[type[PromptTrainer]]
    datasets: Sequence[str]
    grid: Grid
    seeds: Sequence[int]
    shots: int
    output: str
    pairs: Sequence[str] = ()

    def __post_init__(self) -> None:
        for trainer in self.trainers:
            for key, values in self.grid.items():
                for value in values:
                    self.cell(trainer, {key: value})

    def cell(self, trainer: type[PromptTrainer], choice: Mapping[str, str]) -> Cell:
        """Return the cell of a choice; values that the method has anyway are no change.

        Raises:
            ValueError: The method does not take a key or a value, or the search sets the key itself.
        """
        usual = self._config(Cell(trainer))
        changes = []
        for given, value in choice.items():
            key = given if "." in given else f"TRAINER.{trainer.node()}.{given}"
            if key in (*OWN_KEYS, *VALIDATION):
                raise ValueError(f"{key} cannot be searched: the search sets it itself")
            if config.get(self._config(Cell(trainer, ((key, value),))), key) != config.get(usual, key):
                changes.append((key, value))
        return Cell(trainer, tuple(changes))

    def _config(self, cell: Cell) -> Any:
        """Return the config of a cell's first run, which checks its settings."""
        return make_cfg(self._own_jobs(cell)[0].specs[0].train_options())

    def cells(self, one_at_a_time: bool = False) -> list[Cell]:
        """Return the cells in the order of the grid, each once; every method as configured comes first.

        Args:
            one_at_a_time: Change one key and leave the others, instead of all combinations.
        """
        if one_at_a_time:
            choices = [{key: value} for key, values in self.grid.items() for value in values]
        else:
            choices = [dict(zip(self.grid, values)) for values in itertools.product(*self.grid.values())]
        return list(dict.fromkeys(self.cell(trainer, each) for trainer in self.trainers for each in [{}, *choices]))

    def jobs(self, cell: Cell) -> list[Job]:
        """Return the runs of a cell, a data set and seed each; before them those of a teacher, if there is one."""
        jobs = []
        for dataset in self.datasets:
            jobs += plan(
                all_protocols()["base2new"],
                Request(dataset, self.shots),
                [method(cell.trainer, dataset)],
                self.seeds,
                output=str(Path(self.output, cell.folder)),
                pairs=(*self.pairs, *cell.pairs, *VALIDATION),
            )
        return [replace(job, name=f"{job.specs[0].trainer} ({cell.name}), {_data(job)}") for job in jobs]

    def _own_jobs(self, cell: Cell) -> list[Job]:
        """Return the runs of a cell without those of a teacher."""
        return [job for job in self.jobs(cell) if job.specs[0].trainer == cell.trainer.__name__]

    def score(self, cell: Cell) -> Score | None:
        """Return the numbers of a cell; None unless all its runs are finished."""
        jobs = self._own_jobs(cell)
        if not all(job.is_finished() for job in jobs):
            return None
        found: dict[str, dict[int, list[float]]] = {name: {} for name in self.datasets}
        for job in jobs:
            accuracies = [RunRecord.read(folder).accuracy for folder in job.folders]
            if None in accuracies:
                return None
            found[job.specs[0].leg.dataset][job.specs[0].seed] = [each for each in accuracies if each is not None]
        return Score(found)


@dataclass(frozen=True)
class Score:
    """What a cell's models make of validation images, in percent.

    Attributes:
        accuracies: By data set and seed: on base classes, and on held-out ones.
    """

    accuracies: Mapping[str, Mapping[int, Sequence[float]]]

    def of(self, dataset: str) -> dict[str, Any]:
        """Return mean and spread of ``base``, ``new`` and ``HM`` on a data set."""
        by_seed = self.accuracies[dataset]
        base, new = ({seed: pair[half] for seed, pair in by_seed.items()} for half in (0, 1))
        return base_to_new(base, new)

    @property
    def value(self) -> float:
        """The number to be raised: HM, a mean over the data sets."""
        return summarise(self.of(dataset)["HM"].mean for dataset in self.accuracies).mean

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds of HM, averaged over the data sets; None for one seed."""
        seeds = [set(by_seed) for by_seed in self.accuracies.values()]
        means = [
            summarise(harmonic_mean(*self.accuracies[dataset][seed]) for dataset in self.accuracies).mean
            for seed in sorted(seeds[0])
        ]
        return summarise(means).spread


def _data(job: Job) -> str:
    """Describe the run of a job within its cell."""
    return f"{job.specs[0].leg.dataset}, seed {job.specs[0].seed}"


def read_grid(words: Sequence[str]) -> dict[str, list[str]]:
    """Read ``KEY=value,value`` words; commas inside brackets do not separate.

    Raises:
        ValueError: A word of another form, or a key that is given twice.
    """
    grid: dict[str, list[str]] = {}
    for word in words:
        key, equals, values = word.partition("=")
        found = [value for value in re.split(r",(?![^(\[]*[)\]])", values) if value]
        if not re.fullmatch(r"[A-Z0-9_]+(\.[A-Z0-9_]+)*", key) or not equals or not found:
            raise ValueError(f"--grid takes KEY=value,value such as TOP_K=1,2,4, not {word!r}")
        if key in grid:
            raise ValueError(f"--grid has {key} twice; give its values once, separated by commas")
        grid[key] = list(dict.fromkeys(found))
    return grid


def sample(search: Search, trials: int, at_once: int, carry_out: Callable[[Sequence[Cell]], None]) -> list[Cell]:
    """Let Optuna choose cells from the grid; what it has learned is kept in ``study.db`` in the search's folder.

    Args:
        search: What is searched.
        trials: Cells of each method to be tried in all, those of earlier calls included.
        at_once: Cells that are chosen and run together.
        carry_out: Runs cells.

    Returns:
        The cells tried, now and earlier.

    Raises:
        ValueError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise ValueError('--trials needs Optuna: pip install "clusterprompt[search]"; or leave --trials out') from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    Path(search.output).mkdir(parents=True, exist_ok=True)
    states = optuna.trial.TrialState
    tried: list[Cell] = []
    for trainer in search.trainers:
        study = optuna.create_study(
            storage=f"sqlite:///{Path(search.output).resolve() / 'study.db'}",
            study_name=_study_name(search, trainer),
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=0),
            load_if_exists=True,
        )
        if not study.trials:
            usual = search.cell(trainer, {})
            carry_out([usual])
            tried.append(usual)
        for left in study.get_trials(states=(states.RUNNING,)):  # of a call that was stopped
            study.tell(left.number, state=states.FAIL)
            study.enqueue_trial(left.params)
        while (done := sum(trial.state in (states.COMPLETE, states.PRUNED) for trial in study.trials)) < trials:
            asked = [study.ask() for _ in range(min(at_once, trials - done))]
            choices = [
                {key: trial.suggest_categorical(key, list(values)) for key, values in search.grid.items()}
                for trial in asked
            ]
            carry_out([search.cell(trainer, choice) for choice in choices])
            for trial, choice in zip(asked, choices):
                score = search.score(search.cell(trainer, choice))
                study.tell(trial, score.value if score else None, states.COMPLETE if score else states.PRUNED)
        tried += [search.cell(trainer, trial.params) for trial in study.trials if trial.params]
    usual_first = [search.cell(trainer, {}) for trainer in search.trainers]
    return list(dict.fromkeys([*usual_first, *tried]))


def _study_name(search: Search, trainer: type[PromptTrainer]) -> str:
    """Return a name that only searches share whose cells compare."""
    values = " ".join(f"{key}={','.join(values)}" for key, values in search.grid.items())
    seeds = ",".join(map(str, search.seeds))
    pairs = " ".join(search.pairs)
    return f"{trainer.__name__} {' '.join(search.datasets)} shots {search.shots} seeds {seeds} {values} {pairs}".strip()
