"""Run many processes side by side: skip what is finished, keep going when one fails, say how long the rest will take.

A run is one call of train.py or base2new.py. While it goes, its log file is locked, by the process itself: it stays
locked when the runner is killed and the run goes on alone. A runner that finds it so waits for the other's result
instead of writing into the same folder.
"""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import yaml
from tqdm import tqdm

from .. import dassl_compat, registration
from ..record import folder as run_folder
from .base2new import CHECKOUT, harmonic_mean, load_train

MOST_JOBS = 4  # of the embedded world: about a GB each


class Run(NamedTuple):
    """One process, and what it leaves.

    Attributes:
        name: For messages.
        script: Path below the checkout.
        options: Its options, but for --resume and --overwrite.
        settings: KEY VALUE pairs, which come last.
        words: train.py's command line for each output folder that it fills, in that order.
        log: File of all that the process says.
        environment: Variables that differ from this process's.
        draws: Embedded data sets that it reads; empty for others.
        guess: Seconds that it takes on one core, as far as is known; only their proportions count for data sets that
            are not embedded.
        after: Folder of the training run whose model it tests.
    """

    name: str
    script: str
    options: tuple
    settings: tuple
    words: tuple
    log: Path
    environment: dict
    draws: tuple = ()
    guess: float = 60.0
    after: str = ""

    @property
    def folders(self) -> list:
        """Output folders, the training run's first."""
        return [words[words.index("--output-dir") + 1] for words in self.words]

    def is_finished(self) -> bool:
        """Tell whether all folders hold a finished run, and no test is older than the training run whose model it
        tested.
        """
        folders = [self.after] * bool(self.after) + self.folders
        finished = all(run_folder.state(folder) == "finished" for folder in folders)
        return finished and not any(run_folder.is_older(folder, before) for before, folder in zip(folders, folders[1:]))

    def numbers(self) -> str:
        """Say what came out."""
        found = [run_folder.read_result(folder)["accuracy"] for folder in self.folders]
        if None in found:  # TEST.NO_TEST
            return "finished, not tested"
        if len(found) == 2:
            return f"base {found[0]:.1f}, new {found[1]:.1f}, HM {harmonic_mean(*found):.1f}"
        return f"accuracy {found[0]:.1f}"


class Failure(NamedTuple):
    """A run without result.

    Attributes:
        reason: One line.
        started: False if the training run that it needs has failed.
    """

    run: Run
    reason: str
    started: bool = True


class Runner:
    """Runs side by side.

    Args:
        jobs: How many at a time; 0 for what fits the machine, see `default_jobs`.
        fresh: Replace what is there instead of going on with it.
    """

    def __init__(self, jobs: int = 0, fresh: bool = False):
        self.jobs, self.fresh = jobs, fresh
        self.stopping = threading.Event()
        self.processes = set()

    def execute(self, todo) -> list:
        """Run all; each after the one whose model it tests.

        Returns:
            What failed, as `Failure`.

        Raises:
            SystemExit: Code 130 after Ctrl-C or SIGTERM; the processes are ended first.
        """
        embedded = all(run.draws for run in todo)
        jobs = min(len(todo), self.jobs or default_jobs(embedded))
        estimate = f", about {minutes(sum(run.guess for run in todo) / jobs)}" if embedded else ""
        print(
            f"{len(todo)} run{'s' * (len(todo) > 1)}, {jobs} at a time{estimate}. Their logs: {common_folder(todo)}",
            flush=True,
        )
        old_handler = (
            signal.signal(signal.SIGTERM, _interrupt) if threading.current_thread() is threading.main_thread() else None
        )
        try:
            draw_data(list(dict.fromkeys(name for run in todo for name in run.draws)))
            return self._execute(todo, jobs)
        except KeyboardInterrupt:
            print("\ninterrupted; the same command goes on from here", file=sys.stderr)
            raise SystemExit(130) from None
        finally:
            if old_handler is not None:
                signal.signal(signal.SIGTERM, old_handler)

    def _execute(self, todo, jobs: int) -> list:
        """See `execute`."""
        left, running, failures = list(todo), {}, []
        slots, done, began = list(range(jobs)), 0.0, time.time()
        with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(todo), unit="run", disable=None) as bar:

            def say(text):
                bar.write(f"  {text}")
                sys.stdout.flush()

            try:
                while left or running:
                    for run in ready(left, [run for run, _ in running.values()])[: len(slots)]:
                        left.remove(run)
                        slot = slots.pop(0)
                        running[pool.submit(self._run_one, run, jobs, slot, say)] = run, slot
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        run, slot = running.pop(future)
                        slots.append(slot)
                        reason = future.result()
                        lost = [other for other in left if reason and other.after in run.folders]
                        left = [other for other in left if other not in lost]
                        if reason:
                            failures += [
                                Failure(run, reason),
                                *(Failure(other, f"{run.name} failed", False) for other in lost),
                            ]
                        done += run.guess + sum(other.guess for other in lost)
                        rest = sum(other.guess for other in [*left, *(run for run, _ in running.values())])
                        to_go = f"; {minutes((time.time() - began) / done * rest)} to go" if rest else ""
                        bar.update(1 + len(lost))
                        counted = f"[{len(todo) - len(left) - len(running)}/{len(todo)}]"
                        say(f"{counted} {run.name}: {f'failed: {reason}' if reason else run.numbers()}{to_go}")
            finally:
                self._stop()
                pool.shutdown(cancel_futures=True)
        return failures

    def _run_one(self, run: Run, jobs: int, slot: int, say) -> str:
        """Run one process to its end; return in a line why it failed, else nothing."""
        # A test starts anew: it is short, and what it left behind may be of another model.
        option = "--overwrite" if self.fresh or run.after else "--resume"
        command = [sys.executable, str(CHECKOUT / run.script), *run.options, option, *run.settings]
        environment = {**shared_machine(jobs), **os.environ, **gpu(slot), **run.environment}
        try:
            with self._locked(run, say) as log:
                if run.is_finished() and not self.fresh:
                    return ""  # by another process, since this one made its plan
                log.truncate(0)
                code = self.call(command, environment, log)
                if code:
                    return why(run.log, code)
                return "" if run.is_finished() else "it ended without a finished result"
        except OSError as error:
            return str(error)

    @contextmanager
    def _locked(self, run: Run, say):
        """Open and lock a run's log, once no other process has it."""
        run.log.parent.mkdir(parents=True, exist_ok=True)
        waited = False
        with open(run.log, "ab") as log:
            while True:
                try:
                    fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not waited:
                        say(f"{run.name} is being run by another process: waiting for it")
                    waited = True
                if self.stopping.wait(1.0):
                    raise OSError("interrupted")
            yield log

    def call(self, command: list, environment: dict, log) -> int:
        """Start a process that writes into ``log``; return its exit code."""
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

    def _stop(self):
        """End what still runs: nothing, but after an interrupt."""
        self.stopping.set()
        for process in list(self.processes):
            process.terminate()


def unfinished(runs, fresh: bool) -> list:
    """Return the runs that have to be run: those without a finished result, and tests of a model that will be trained."""
    todo, trained = [], set()
    for run in runs:
        if fresh or run.after in trained or not run.is_finished():
            todo.append(run)
            trained.update(run.folders)
    return todo


def other_settings(runs) -> list:
    """Return (run, differences) for results that are there, but with other settings than are asked for now.

    Raises:
        SystemExit: Code 2, after a message: the settings of a run are none, such as an unknown key.
    """
    train, found, checked = load_train(), [], set()
    for run in runs:
        differences = []
        for words, folder in zip(run.words, run.folders):
            result = run_folder.read_result(folder)
            kind = (run.script, words[words.index("--config-file") + 1])
            if kind in checked and not result:
                continue
            checked.add(kind)
            parsed = train.parse(list(words))
            try:
                cfg = train.make_cfg(parsed)
            except train.USER_ERRORS as error:
                train.fail(error, False)
            if result.get("status") == "finished" or not parsed.eval_only:
                differences += run_folder.changed_settings(result, cfg)
        source = run_folder.read_result(run.after).get("dataset") if run.after else None
        trained_on = run_folder.read_result(run.folders[0]).get("trained_on") or {}
        if source and trained_on.get("dataset", source) != source:
            differences.append(f"trained on {trained_on['dataset']} -> {source}")
        if differences:
            found.append((run, differences))
    return found


def carry_out(runs, fresh: bool, command: str, jobs: int = 0) -> list:
    """Run what is not finished.

    Args:
        runs: All that belong to it, finished or not.
        fresh: Run all of it again.
        command: What starts it again, for messages.
        jobs: See `Runner`.

    Returns:
        What failed, as `Failure`; it has been listed on stderr.
    """
    if not fresh:
        refuse_other_settings(runs, command)
    todo = unfinished(runs, fresh)
    if len(todo) < len(runs):
        print(
            f"{len(runs) - len(todo)} of {len(runs)} runs are finished already and kept; --fresh runs them again.",
            flush=True,
        )
    failures = Runner(jobs, fresh).execute(todo) if todo else []
    if failures:
        report(failures)
    return failures


def refuse_other_settings(runs, command: str):
    """End with code 2, after a message, if results of other settings lie where those of the runs would."""
    found = other_settings(runs)
    if not found:
        return
    print(
        f"error: {len(found)} of {len(runs)} runs are there already with other settings than are asked for now:",
        file=sys.stderr,
    )
    for run, differences in found[:5]:
        print(f"  {run.name}: {'; '.join(differences[:4])}{'; ...' if len(differences) > 4 else ''}", file=sys.stderr)
    print(
        f"{'  ...' + chr(10) if len(found) > 5 else ''}Ask for the same settings to keep them, or run all again: {command} --fresh. "
        "To keep both: OUTPUT=<another folder>.",
        file=sys.stderr,
    )
    raise SystemExit(2)


def report(failures):
    """List on stderr what failed, why, and where its log is."""
    failed = [failure for failure in failures if failure.started]
    print(f"\n{len(failed)} run{'s' * (len(failed) > 1)} failed:", file=sys.stderr)
    for failure in failed:
        print(f"  {failure.run.name}: {failure.reason}\n    log: {failure.run.log}", file=sys.stderr)
    for failure in failures:
        if not failure.started:
            print(f"  {failure.run.name}: not run, {failure.reason}", file=sys.stderr)


def why(log: Path, code: int) -> str:
    """Return the line that says best why a process failed: the last of its log, or the signal that ended it."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}" + (" (out of memory?)" if -code == signal.SIGKILL else "")
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"it ended with code {code}"


def default_jobs(embedded: bool) -> int:
    """Return how many runs go side by side: of the embedded world one a core, of others one a GPU, or one that has all
    cores.
    """
    return min(available_cores(), MOST_JOBS) if embedded else max(1, len(gpus()))


def available_cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shared_machine(jobs: int) -> dict:
    """Return variables that keep runs side by side from taking each other's cores, unless the environment says
    otherwise.
    """
    return {"OMP_NUM_THREADS": str(max(1, available_cores() // jobs))} if jobs > 1 else {}


def gpu(slot: int) -> dict:
    """Return the variable that gives a run its GPU, in turn; nothing where there is no choice."""
    return {"CUDA_VISIBLE_DEVICES": gpus()[slot % len(gpus())]} if len(gpus()) > 1 else {}


def gpus() -> list:
    """Return the names of the GPUs as CUDA_VISIBLE_DEVICES knows them."""
    import torch

    chosen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return chosen[: torch.cuda.device_count()] or [str(i) for i in range(torch.cuda.device_count())]


def draw_data(names):
    """Let embedded data sets write themselves before several processes would do so at once."""
    if not names:
        return
    dassl_compat.prepare()
    from dassl.config import get_cfg_default
    from dassl.data.datasets import DATASET_REGISTRY

    cfg = get_cfg_default()
    registration.extend_cfg(cfg)
    cfg.DATASET.ROOT, cfg.VERBOSE = os.environ.get("DATA") or str(CHECKOUT / "data"), False
    for name in names:
        spec = yaml.safe_load((CHECKOUT / "configs" / "datasets" / f"{name}.yaml").read_text(encoding="utf-8"))
        try:
            DATASET_REGISTRY.get(spec["DATASET"]["NAME"])(cfg)
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None


def minutes(seconds: float) -> str:
    """Write a duration in words."""
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(10, round(seconds, -1)):.0f} s"


def ready(left, running) -> list:
    """Return the runs whose training run is neither waiting nor going on."""
    pending = {folder for run in [*left, *running] for folder in run.folders}
    return [run for run in left if run.after not in pending]


def common_folder(runs) -> str:
    """Return the deepest folder that holds the logs of all runs."""
    return os.path.commonpath([run.log.parent for run in runs])


def _interrupt(*_):
    raise KeyboardInterrupt
