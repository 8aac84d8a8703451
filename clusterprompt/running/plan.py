"""Plans: the jobs that a protocol needs for methods and seeds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..record import folder as run_folder
from ..record.protocols import SHOTS, Leg, Protocol, Request
from ..record.result import RunRecord
from ..record.statistics import harmonic_mean
from .budget import Method, known_trainers
from .budget import method as method_of
from .spec import RunSpec, is_drawn

# Small pictures are read faster than worker processes start. One thread: with models as small as the embedded one
# several runs side by side are faster than several threads a run, and the numbers do not depend on the number of cores.
DRAWN_SETTINGS = ("DATALOADER.NUM_WORKERS", "0")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
TEST_SECONDS = 10.0  # a first guess of what starting and testing take on one core


@dataclass(frozen=True)
class Job:
    """What one process does: a training run and the tests that follow it, or a test.

    Attributes:
        name: For messages.
        specs: Runs in order.
        guess: Seconds on one core, as far as is known; only proportions count for data sets that are not drawn.
        drawn: Drawn data sets that it reads.
        environment: Variables that differ from this process's.
        teacher: Folder of the training run of another job that is the teacher in this one; empty if there is none.
    """

    name: str
    specs: tuple[RunSpec, ...]
    guess: float = 60.0
    drawn: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None
    teacher: str = ""

    @property
    def folders(self) -> list[str]:
        """Output folders, the training run's first."""
        return [spec.folder for spec in self.specs]

    @property
    def after(self) -> str:
        """Folder of the training run of another job that this one needs; empty if there is none."""
        return self.specs[0].model_folder or self.teacher

    @property
    def log(self) -> Path:
        """File of everything that the process prints."""
        output = self.specs[0].output
        return Path(output, "logs", os.path.relpath(self.folders[0], output) + ".txt")

    def is_finished(self) -> bool:
        """Tell whether every run is finished, and no test is older than the training of its model."""
        for spec in self.specs:
            if spec.model_folder and run_folder.is_stale(spec.folder, spec.model_folder):
                return False
        return all(run_folder.state(folder) == "finished" for folder in filter(None, [self.after, *self.folders]))

    def outcome(self) -> str:
        """Describe the numbers of a finished job."""
        records = [RunRecord.read(folder) for folder in self.folders]
        found = [record.accuracy for record in records if record.accuracy is not None]
        if len(found) < len(records):  # TEST.NO_TEST
            return "finished, not tested"
        if len(found) == 2:
            base, new = found
            return f"base {base:.1f}, new {new:.1f}, HM {harmonic_mean(base, new):.1f}"
        return f"accuracy {', '.join(f'{accuracy:.1f}' for accuracy in found)}"


def plan(
    protocol: Protocol,
    request: Request,
    methods: Iterable[Method],
    seeds: Iterable[int],
    *,
    output: str,
    pairs: Sequence[str] = (),
    backbone: str = "",
) -> list[Job]:
    """Plan the jobs of a protocol: a whole round of the first seed comes first. Teachers that are missing are added.

    Args:
        protocol: What is trained and tested.
        request: On which data.
        methods: Methods and their settings.
        seeds: Seeds of all runs.
        output: Folder of all results.
        pairs: KEY VALUE pairs of the user, which come after the methods' own.
        backbone: Name or file of the CLIP; empty for the environment's, or the yaml's.
    """
    jobs = []
    methods = [each._replace(teacher="") if each.teacher_key in pairs else each for each in methods]
    for seed in seeds:
        for method in _with_teachers(methods, request.dataset):
            jobs += _jobs(protocol, protocol.legs(request), method, seed, output, tuple(pairs), backbone)
    return jobs


def _with_teachers(methods: Sequence[Method], dataset: str) -> list[Method]:
    """Return the methods, after those of their teachers that are not among them."""
    names = {each.trainer for each in methods}
    missing = dict.fromkeys(each.teacher for each in methods if each.teacher and each.teacher not in names)
    return [*(method_of(known_trainers()[name], dataset) for name in missing), *methods]


def _jobs(protocol: Protocol, legs: Sequence[Leg], method: Method, seed: int, output, pairs, backbone) -> list[Job]:
    """Put the legs of one method and seed into jobs."""
    jobs: dict[Leg, Job] = {}
    for leg in legs:
        drawn = is_drawn(leg.dataset)
        teacher = (leg.model or leg).folder(output, method.teacher, protocol.yaml, seed) if method.teacher else None
        # The seed is left open, so that runs of a row have the same settings.
        taught = (method.teacher_key, str(teacher.with_name("seed{seed}"))) if teacher else ()
        epochs = method.epochs
        if epochs is None and not drawn:
            epochs = protocol.epochs(method.trainer, leg.shots)
        spec = RunSpec.of(
            leg,
            method.trainer,
            seed,
            protocol.yaml,
            output=output,
            epochs=epochs,
            pairs=(*DRAWN_SETTINGS * drawn, *method.settings, *taught, *pairs),
            **({"backbone": backbone} if backbone else {}),
        )
        if leg.model and leg.same_process:
            first = jobs[leg.model]
            jobs[leg.model] = replace(first, specs=(*first.specs, spec))
            continue
        guess = TEST_SECONDS if leg.model else _training_seconds(method, leg)
        environment = ONE_THREAD if drawn else {}
        jobs[leg] = Job(spec.name, (spec,), guess, (leg.dataset,) * drawn, environment, str(teacher or ""))
    return list(jobs.values())


def _training_seconds(method: Method, leg: Leg) -> float:
    """Guess how long a run takes; fewer shots are fewer steps."""
    if leg.shots == SHOTS:
        return method.guess
    return TEST_SECONDS + method.guess * leg.shots / SHOTS
