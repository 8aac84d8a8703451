"""Do the jobs of a plan on an engine: tests after their training, the others go on when one fails."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from .. import dassl_compat, registration
from .machine import duration
from .plan import Job
from .progress import Progress
from .spec import data_root, dataset_config, find_config

POLL = 5.0  # seconds after which an engine's places are counted again


class Engine(Protocol):
    """Where jobs are done: processes of this machine, or a Ray cluster.

    Attributes:
        places: How many jobs fit at a time; an engine may change it.
    """

    places: int

    def start(self, todo: Sequence[Job]) -> None:
        """Get ready for these jobs and count the places.

        Raises:
            ValueError, OSError: They cannot be done here; one line.
        """

    def submit(self, job: Job, overwrite: bool) -> Future[str]:
        """Begin a job; the future gives one line on why it failed, or an empty string.

        Args:
            job: What to do.
            overwrite: Replace what is there instead of going on with it.
        """

    def stop(self) -> None:
        """End what still runs; there is nothing but after an interrupt."""


class Failure(NamedTuple):
    """A job without a result.

    Attributes:
        reason: One line.
        started: False if the training run that it needs has failed.
    """

    job: Job
    reason: str
    started: bool = True


def execute(engine: Engine, todo: Sequence[Job], overwrite: bool = False) -> list[Failure]:
    """Do all jobs, each test after the training run of its model.

    Returns:
        The jobs without a result.

    Raises:
        KeyboardInterrupt: After Ctrl-C or SIGTERM; the processes have been ended.
        ValueError, OSError: Data cannot be drawn, or the engine does not start.
    """
    with _terminate_is_interrupt():
        try:
            engine.start(todo)
            print(_headline(engine, todo), flush=True)
            draw_data(dict.fromkeys(name for job in todo for name in job.drawn))
            return _execute(engine, todo, overwrite)
        finally:
            engine.stop()


def _execute(engine: Engine, todo: Sequence[Job], overwrite: bool) -> list[Failure]:
    """See :func:`execute`."""
    waiting, failures = list(todo), []
    running: dict[Future[str], Job] = {}
    with Progress(todo) as progress:
        while waiting or running:
            for job in ready(waiting, list(running.values()))[: max(0, engine.places - len(running))]:
                waiting.remove(job)
                running[engine.submit(job, overwrite)] = job
            for future in wait(running, timeout=POLL, return_when=FIRST_COMPLETED).done:
                job, reason = running.pop(future), future.result()
                lost = [other for other in waiting if reason and other.after in job.folders]
                waiting = [other for other in waiting if other not in lost]
                if reason:
                    failures.append(Failure(job, reason))
                    failures += [Failure(other, f"{job.name} failed", started=False) for other in lost]
                progress.done(job, lost, reason, [*waiting, *running.values()])
    return failures


def _headline(engine: Engine, todo: Sequence[Job]) -> str:
    """Say how many runs there are, how many at a time, how long they take and where their logs are."""
    at_a_time = min(engine.places, len(todo))
    drawn = all(job.drawn for job in todo)
    estimate = f", about {duration(sum(job.guess for job in todo) / at_a_time)}" if drawn else ""
    runs = f"{len(todo)} run{'s' * (len(todo) > 1)}"
    return f"{runs}, {at_a_time} at a time{estimate}. Their logs: {common_folder(todo)}"


def ready(waiting: Sequence[Job], running: Sequence[Job]) -> list[Job]:
    """Return the waiting jobs whose training run neither waits nor runs."""
    pending = {folder for job in [*waiting, *running] for folder in job.folders}
    return [job for job in waiting if job.after not in pending]


def common_folder(jobs: Sequence[Job]) -> str:
    """Return the deepest folder that holds the logs of all jobs."""
    return os.path.commonpath([job.log.parent for job in jobs])


def draw_data(names: Iterable[str]) -> None:
    """Let drawn data sets write themselves before several processes would do so at once.

    Args:
        names: Drawn data sets, as :class:`RunSpec` names them.
    """
    names = list(names)
    if not names:
        return
    dassl_compat.prepare()
    from dassl.config import get_cfg_default
    from dassl.data.datasets import DATASET_REGISTRY

    from ..config import merge_file

    for name in names:
        cfg = get_cfg_default()
        registration.extend_cfg(cfg)
        merge_file(cfg, find_config(dataset_config(name)))
        cfg.DATASET.ROOT, cfg.VERBOSE = cfg.DATASET.ROOT or data_root(), False
        DATASET_REGISTRY.get(cfg.DATASET.NAME)(cfg)


@contextmanager
def _terminate_is_interrupt() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C; only the main thread may set this up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_):
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)
