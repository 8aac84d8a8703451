"""Run jobs side by side on this machine: keep going when one fails, say how long the rest will take.

While a job runs, its log file is locked, by the job's process itself: it stays locked when this program is killed and
the job goes on alone. An engine that finds it so waits for the other's result instead of writing into the same folder.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from tqdm import tqdm

from .. import dassl_compat, registration
from .machine import default_jobs, duration, gpu_choice, thread_limits
from .plan import Job
from .spec import data_root, dataset_config, find_config, home

WORKER = "clusterprompt.commands.worker"


class Failure(NamedTuple):
    """A job without a result.

    Attributes:
        reason: One line.
        started: False if the training run that it needs has failed.
    """

    job: Job
    reason: str
    started: bool = True


class LocalEngine:
    """Jobs as processes of this machine.

    Args:
        jobs: How many at a time; 0 for what fits the machine, see :func:`.machine.default_jobs`.
        overwrite: Replace what is there instead of going on with it.
    """

    def __init__(self, jobs: int = 0, overwrite: bool = False):
        self.jobs, self.overwrite = jobs, overwrite
        self.stopping = threading.Event()
        self.processes: set[subprocess.Popen] = set()

    def execute(self, todo: Sequence[Job]) -> list[Failure]:
        """Run all jobs, each test after the training run of its model.

        Returns:
            The jobs without a result.

        Raises:
            KeyboardInterrupt: After Ctrl-C or SIGTERM; the processes have been ended.
            ValueError: Data cannot be drawn.
        """
        drawn = all(job.drawn for job in todo)
        side_by_side = min(len(todo), self.jobs or default_jobs(drawn))
        estimate = f", about {duration(sum(job.guess for job in todo) / side_by_side)}" if drawn else ""
        print(
            f"{len(todo)} run{'s' * (len(todo) > 1)}, {side_by_side} at a time{estimate}. "
            f"Their logs: {common_folder(todo)}",
            flush=True,
        )
        with _terminate_is_interrupt():
            draw_data(dict.fromkeys(name for job in todo for name in job.drawn))
            return self._execute(todo, side_by_side)

    def _execute(self, todo: Sequence[Job], side_by_side: int) -> list[Failure]:
        """See :meth:`execute`."""
        waiting, failures = list(todo), []
        running: dict[Future, tuple[Job, int]] = {}
        slots = list(range(side_by_side))
        with ThreadPoolExecutor(side_by_side) as pool, _Progress(todo) as progress:
            try:
                while waiting or running:
                    for job in ready(waiting, [job for job, _ in running.values()])[: len(slots)]:
                        waiting.remove(job)
                        slot = slots.pop(0)
                        running[pool.submit(self._run_one, job, side_by_side, slot, progress.say)] = job, slot
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        job, slot = running.pop(future)
                        slots.append(slot)
                        reason = future.result()
                        lost = [other for other in waiting if reason and other.after in job.folders]
                        waiting = [other for other in waiting if other not in lost]
                        if reason:
                            failures.append(Failure(job, reason))
                            failures += [Failure(other, f"{job.name} failed", started=False) for other in lost]
                        progress.done(job, lost, reason, [*waiting, *(other for other, _ in running.values())])
            finally:
                self._stop()
                pool.shutdown(cancel_futures=True)
        return failures

    def _run_one(self, job: Job, side_by_side: int, slot: int, say: Callable[[str], None]) -> str:
        """Run one process to its end; return in one line why it failed, or an empty string."""
        environment = {
            **thread_limits(side_by_side),
            **os.environ,
            "CLUSTERPROMPT_HOME": str(home()),
            **gpu_choice(slot),
            **(job.environment or {}),
        }
        try:
            with self._locked(job, say) as log:
                if job.is_finished() and not self.overwrite:
                    return ""  # by another process, since the plan was made
                log.truncate(0)
                # Restart tests: they are short, and a partial result may belong to another model.
                code = self.call(job, self.overwrite or bool(job.after), environment, log)
                if code:
                    return why(job.log, code)
                return "" if job.is_finished() else "it ended without a finished result"
        except OSError as error:
            return str(error)

    @contextmanager
    def _locked(self, job: Job, say: Callable[[str], None]) -> Iterator[IO[bytes]]:
        """Open and lock a job's log, once no other process has it."""
        job.log.parent.mkdir(parents=True, exist_ok=True)
        waited = False
        with open(job.log, "ab") as log:
            while True:
                try:
                    fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not waited:
                        say(f"{job.name} is being run by another process: waiting for it")
                    waited = True
                if self.stopping.wait(1.0):
                    raise OSError("interrupted")
            yield log

    def call(self, job: Job, overwrite: bool, environment: Mapping[str, str], log: IO[bytes]) -> int:
        """Do a job in a process that writes into ``log``; return its exit code."""
        mode = "--overwrite" if overwrite else "--resume"
        command = [sys.executable, "-m", WORKER, mode, *(spec.to_json() for spec in job.specs)]
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        self.processes.add(process)
        if self.stopping.is_set():
            process.terminate()
        try:
            return process.wait()
        finally:
            self.processes.discard(process)

    def _stop(self) -> None:
        """End the processes that still run; there are none but after an interrupt."""
        self.stopping.set()
        for process in list(self.processes):
            process.terminate()


class _Progress:
    """A bar, and a line for each job that ends."""

    def __init__(self, todo: Sequence[Job]):
        self.total, self.seconds_done, self.began = len(todo), 0.0, time.time()
        self.bar = tqdm(total=len(todo), unit="run", disable=None)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.bar.write(f"  {text}")
        sys.stdout.flush()

    def done(self, job: Job, lost: Sequence[Job], reason: str, left: Sequence[Job]) -> None:
        """Report the end of a job; ``left`` are the jobs that wait or run."""
        self.seconds_done += job.guess + sum(other.guess for other in lost)
        rest = (time.time() - self.began) / self.seconds_done * sum(other.guess for other in left)
        self.bar.update(1 + len(lost))
        outcome = f"failed: {reason}" if reason else job.outcome()
        to_go = f"; {duration(rest)} to go" if left else ""
        self.say(f"[{self.total - len(left)}/{self.total}] {job.name}: {outcome}{to_go}")


def why(log: Path, code: int) -> str:
    """Return the line that says best why a process failed: the last of its log, or the signal that ended it."""
    if code < 0:
        killed = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"ended by {signal.Signals(-code).name}{killed}"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"it ended with code {code}"


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


def ready(waiting: Sequence[Job], running: Sequence[Job]) -> list[Job]:
    """Return the waiting jobs whose training run neither waits nor runs."""
    pending = {folder for job in [*waiting, *running] for folder in job.folders}
    return [job for job in waiting if job.after not in pending]


def common_folder(jobs: Sequence[Job]) -> str:
    """Return the deepest folder that holds the logs of all jobs."""
    return os.path.commonpath([job.log.parent for job in jobs])


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
