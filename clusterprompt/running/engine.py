"""Do jobs as processes of this machine, a few at a time.

While a job runs, its log file is locked, by the job's process itself. A call that finds it so waits for the other's
result instead of writing into the same folder. A job's process ends with the one that started it, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .machine import default_jobs, gpu_choice, thread_limits
from .plan import Job
from .progress import say
from .spec import home

WORKER = "clusterprompt.commands.worker"


class LocalEngine:
    """Processes of this machine; where there are several GPUs, each has one.

    Args:
        jobs: How many at a time; 0 for what fits the machine, see :func:`.machine.default_jobs`.
    """

    def __init__(self, jobs: int = 0):
        self.places = jobs
        self.slots: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.stopping = threading.Event()
        self.processes: set[subprocess.Popen] = set()
        self.pool = ThreadPoolExecutor(1)

    def start(self, todo: Sequence[Job]) -> None:
        """Count the places; see :class:`.schedule.Engine`."""
        self.places = min(len(todo), self.places or default_jobs(all(job.drawn for job in todo)))
        self.pool = ThreadPoolExecutor(self.places)
        for slot in range(self.places):
            self.slots.put(slot)

    def submit(self, job: Job, overwrite: bool) -> Future[str]:
        """Begin a job; see :class:`.schedule.Engine`."""
        return self.pool.submit(self._run_in_slot, job, overwrite)

    def stop(self) -> None:
        """End the processes that still run; see :class:`.schedule.Engine`."""
        self.stopping.set()
        for process in list(self.processes):
            process.terminate()
        self.pool.shutdown(cancel_futures=True)

    def _run_in_slot(self, job: Job, overwrite: bool) -> str:
        """Run a job with the share of cores, and the GPU, of a free slot."""
        slot = self.slots.get()
        try:
            environment = {
                **thread_limits(self.places),
                **os.environ,
                "CLUSTERPROMPT_HOME": str(home()),
                **gpu_choice(slot),
            }
            return self.run(job, overwrite, environment)
        finally:
            self.slots.put(slot)

    def run(self, job: Job, overwrite: bool, environment: Mapping[str, str]) -> str:
        """Run one process to its end; return in one line why it failed, or an empty string."""
        try:
            with self._locked(job) as log:
                if job.is_finished() and not overwrite:
                    return ""  # by another process, since the plan was made
                log.truncate(0)
                # Restart tests: they are short, and a partial result may belong to another model.
                again = overwrite or bool(job.after)
                code = self.call(job, again, {**environment, **(job.environment or {})}, log)
                if code:
                    return why(job.log, code)
                return "" if job.is_finished() else "it ended without a finished result"
        except OSError as error:
            return str(error)

    @contextmanager
    def _locked(self, job: Job) -> Iterator[IO[bytes]]:
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
                        say(f"  {job.name} is being run by another process: waiting for it")
                    waited = True
                if self.stopping.wait(1.0):
                    raise OSError("interrupted")
            yield log

    def call(self, job: Job, overwrite: bool, environment: Mapping[str, str], log: IO[bytes]) -> int:
        """Do a job in a process that writes into ``log``; return its exit code."""
        mode = "--overwrite" if overwrite else "--resume"
        command = [sys.executable, "-m", WORKER, mode, *(spec.to_json() for spec in job.specs)]
        # Nothing is ever written to its stdin: the worker ends when this process, and with it the pipe, is gone.
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT
        ) as process:
            self.processes.add(process)
            if self.stopping.is_set():
                process.terminate()
            try:
                return process.wait()
            finally:
                self.processes.discard(process)


def why(log: Path, code: int) -> str:
    """Return the line that says best why a process failed: the last of its log, or the signal that ended it."""
    if code < 0:
        killed = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"ended by {signal.Signals(-code).name}{killed}"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"it ended with code {code}"
