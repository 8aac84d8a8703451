"""Do jobs on the nodes of a Ray cluster, each as the local engine of its node does it.

Ray chooses the node by GPUs and cores, and does again elsewhere what a lost node took with it; there the run goes on
from its checkpoint. All nodes have to see the output folder and the data under the same paths; each is asked first.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import sys
import threading
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any, NamedTuple

from .. import __version__
from .engine import LocalEngine
from .plan import Job
from .progress import say
from .spec import data_root, home

RETRIES = 3  # of a job whose node was lost
WATCH = 5.0  # seconds between two looks at the nodes
PATIENCE = 120.0  # seconds that a node has for its first answer
MARK = ".driver"  # file in the output folder: the one driver locks it, and nodes read it to show that they see it
FORWARDED = ("DATA", "PYTHONPATH", "CLUSTERPROMPT_MAX_PIXELS")  # variables that a run reads; others are the node's own
WAY_OUT = "All nodes need one shared disk, under one path; docs/cluster.md says what to do without"


class Needs(NamedTuple):
    """What a job takes of a node."""

    cores: int
    gpus: float

    def __str__(self) -> str:
        return f"{self.cores} core{'s' * (self.cores > 1)}" + (f" and {self.gpus:g} GPU" if self.gpus else "")

    def places(self, node: Mapping[str, Any]) -> int:
        """Return how many jobs fit on a node of ``ray.nodes()``."""
        by_cores = int(node["Resources"].get("CPU", 0) / self.cores)
        return min(by_cores, int(node["Resources"].get("GPU", 0) / self.gpus + 1e-6)) if self.gpus else by_cores

    @classmethod
    def of(cls, nodes: Sequence[Mapping[str, Any]], gpus: float | None, one_core: bool) -> Needs:
        """Share the nodes' GPUs, and their cores in proportion to them; without GPUs a job takes all cores.

        Args:
            nodes: As ``ray.nodes()`` lists them.
            gpus: Share of a GPU; None for a whole one where there are GPUs.
            one_core: A job takes one core.
        """
        gpus = float(any(node["Resources"].get("GPU") for node in nodes)) if gpus is None else gpus
        own = "GPU" if gpus else "CPU"
        resources = [node["Resources"] for node in nodes if node["Resources"].get(own)]
        shares = [each.get("CPU", 0) * (gpus / each["GPU"] if gpus else 1) for each in resources]
        return cls(1 if one_core else max(1, int(min(shares, default=1))), gpus)


class Site(NamedTuple):
    """What a node has to see as the driver does.

    Attributes:
        folder: The driver's current folder.
        mark: The driver's file in the output folder.
        word: Content of ``mark``.
        data: Folder of the data sets; empty where the driver has none.
        environment: Variables of the driver for the runs.
        version: Of this package.
    """

    folder: str
    mark: str
    word: str
    data: str
    environment: Mapping[str, str]
    version: str = __version__

    def problem(self) -> str:
        """Return what this machine does not see as the driver does; empty if it sees all."""
        if self.version != __version__:
            return f"has clusterprompt {__version__}, this machine {self.version}; install the same"
        for folder in (self.folder, self.data):
            if folder and not os.path.isdir(folder):
                return f"does not see {folder}. {WAY_OUT}"
        try:
            seen = Path(self.mark).read_text(encoding="utf-8")
        except OSError:
            seen = ""
        return "" if seen == self.word else f"does not see the output folder {Path(self.mark).parent}. {WAY_OUT}"


class RayEngine:
    """A Ray cluster.

    Args:
        address: ``host:port`` of its head; None for the environment's RAY_ADDRESS, else the cluster that runs on this
            machine, else a new one for this call.
        gpus: Share of a GPU that a run takes; None for a whole one where the cluster has GPUs.
        jobs: How many at a time; 0 for what fits the cluster.

    Raises:
        ValueError: ``gpus`` is not from 0 to 1.
        ImportError: Ray is not installed.
    """

    def __init__(self, address: str | None = None, gpus: float | None = None, jobs: int = 0):
        if gpus is not None and not 0 <= gpus <= 1:
            raise ValueError(f"--gpus-per-run {gpus:g}: a run takes 0 to 1 GPU, such as 0.5 for two runs on each")
        try:
            import ray
        except ImportError as error:
            way_out = "pip install 'clusterprompt[cluster]', or use --engine local"
            raise ImportError(f"--engine ray needs Ray: {way_out}") from error
        self.ray: Any = ray
        self.address, self.gpus, self.jobs = address, gpus, jobs
        self.places = 0
        self.stopping = threading.Event()
        self.mark: IO[str] | None = None
        self.watching: threading.Thread | None = None

    def start(self, todo: Sequence[Job]) -> None:
        """Refuse a second driver, connect, and ask every node; see :class:`.schedule.Engine`."""
        output = Path(todo[0].specs[0].output)
        self.mark, word = take(output)
        self._connect()
        nodes = self._alive()
        self.needs = Needs.of(nodes, self.gpus, all(job.drawn for job in todo))
        usable = [node for node in nodes if self.needs.places(node)]
        if not usable:
            raise ValueError(f"no node of the Ray cluster has {self.needs}, which a run takes; see --gpus-per-run")
        if any(job.drawn for job in todo):
            os.makedirs(data_root(), exist_ok=True)  # they are drawn after this
        environment = {name: os.environ[name] for name in FORWARDED if name in os.environ}
        self.site = Site(
            folder=os.getcwd(),
            mark=str((output / MARK).absolute()),
            word=word,
            data=os.path.abspath(data_root()) if os.path.isdir(data_root()) else "",
            environment={**environment, "CLUSTERPROMPT_HOME": str(home())},
        )
        self._ask(usable)
        say(f"Ray: {len(usable)} node{'s' * (len(usable) > 1)}; a run takes {self.needs}.")
        self._count(nodes)
        wants = {"num_cpus": self.needs.cores, "num_gpus": self.needs.gpus, "max_retries": RETRIES}
        self.task = self.ray.remote(**wants)(do)
        self.watching = threading.Thread(target=self._watch, args=(nodes,), daemon=True)
        self.watching.start()

    def submit(self, job: Job, overwrite: bool) -> Future[str]:
        """Give a job to Ray; see :class:`.schedule.Engine`."""
        outcome: Future[str] = Future()
        answer = self.task.options(name=job.name).remote(job, overwrite, self.site).future()
        answer.add_done_callback(lambda done: outcome.set_result(self._line(done.exception()) or done.result()))
        return outcome

    def stop(self) -> None:
        """Leave the cluster, which ends what still runs; see :class:`.schedule.Engine`."""
        self.stopping.set()
        if self.watching:
            self.watching.join(10)  # asked for its nodes, Ray would start again
        self.ray.shutdown()
        if self.mark:
            self.mark.close()

    def _connect(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here reports to nobody
        terminate = signal.getsignal(signal.SIGTERM)
        try:
            self.ray.init(self.address, logging_level="ERROR", log_to_driver=False)
        except (OSError, RuntimeError, ValueError, self.ray.exceptions.RayError) as error:
            where = self.address or os.environ.get("RAY_ADDRESS") or "the usual places"
            raise ConnectionError(f"no Ray cluster at {where}: {self._line(error)}") from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminate)  # Ray has put its own in place, which prints a stack

    def _ask(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Refuse nodes that do not see what this machine sees."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        task = self.ray.remote(num_cpus=0, max_retries=0)(look)
        answers = []
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            answers.append((node["NodeManagerAddress"], task.options(scheduling_strategy=there).remote(self.site)))
        blind = []
        for address, answer in answers:
            try:
                problem, sees_locks = self.ray.get(answer, timeout=PATIENCE)
            except self.ray.exceptions.RayError as error:
                problem, sees_locks = f"does not answer: {self._line(error)}", False
            if problem:
                raise OSError(f"node {address} {problem}")
            blind += [address] * (not sees_locks)
        if blind:
            say(f"Note: locks of {self.site.mark} do not reach {', '.join(blind)}: start no second call on this folder")

    def _line(self, error: BaseException | None) -> str:
        """Say in one line what Ray says in many."""
        lines = str(error or "").strip().splitlines() or ["" if error is None else type(error).__name__]
        return lines[-1 if isinstance(error, self.ray.exceptions.RayTaskError) else 0].strip()

    # ------------------------------------------------------------------ nodes that come and go
    def _alive(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def _count(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        places = sum(map(self.needs.places, nodes))
        self.places = min(places, self.jobs or places)

    def _watch(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Say which nodes go and come, and count the places again."""
        known = {node["NodeID"]: node["NodeManagerAddress"] for node in nodes}
        while not self.stopping.wait(WATCH):
            try:
                nodes = self._alive()
            except self.ray.exceptions.RayError:
                continue  # the head is gone: after a minute without it, Ray ends this process
            now = {node["NodeID"]: node["NodeManagerAddress"] for node in nodes}
            for name in known.keys() - now.keys():
                say(f"  node {known[name]} is lost; its runs go on elsewhere, from their checkpoints")
            for name in now.keys() - known.keys():
                say(f"  node {now[name]} has joined")
            known = now
            self._count(nodes)


def take(output: Path) -> tuple[IO[str], str]:
    """Become the one driver of an output folder.

    Returns:
        The open file that is locked for as long as this driver lives, and what was written into it.

    Raises:
        BlockingIOError: Another driver is at it; the message says which.
    """
    output.mkdir(parents=True, exist_ok=True)
    mark = open(output / MARK, "a+", encoding="utf-8")
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        mark.seek(0)
        holder = mark.readline().strip() or "another call"
        mark.close()
        raise BlockingIOError(f"{output} is in use by {holder}. Wait for it, or choose another --output") from None
    except OSError:  # a file system without locks
        say(f"Note: {output} takes no locks: start no second call on this folder")
    word = f"process {os.getpid()} on {os.uname().nodename} ({shlex.join(sys.argv)[:120]})\n{uuid.uuid4().hex}\n"
    mark.truncate(0)
    mark.write(word)
    mark.flush()
    os.fsync(mark.fileno())  # other machines read it
    return mark, word


# ---------------------------------------------------------------------- on a node
def do(job: Job, overwrite: bool, site: Site) -> str:
    """Do a job on the node that Ray chose; return in one line why it failed, or an empty string."""
    if problem := site.problem():  # a node that has joined since the start
        return f"node {os.uname().nodename} {problem}"
    os.chdir(site.folder)
    return LocalEngine().run(job, overwrite, {**os.environ, **site.environment})


def look(site: Site) -> tuple[str, bool]:
    """Return what a node does not see, and whether it sees the lock of the driver."""
    if problem := site.problem():
        return problem, False
    with open(site.mark, "rb+") as mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return "", True
    return "", False
