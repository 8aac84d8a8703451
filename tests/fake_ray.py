"""The few calls of Ray that the engine makes, on threads of this process; behaviour as observed with Ray 2.60.

Arguments travel as pickles, a task runs again when its node is lost, and what a task raises comes back as a
RayTaskError whose text is a traceback.
"""

import pickle
import signal
import sys
import threading
import traceback
import types
from concurrent.futures import Future


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


class NodeDiedError(RayError):
    pass


class NodeLost(BaseException):
    """Raised inside a task: the node is gone."""


def node(address, alive=True, **resources):
    """An entry of ``ray.nodes()``."""
    return {"NodeID": f"id-{address}", "NodeManagerAddress": address, "Alive": alive, "Resources": resources}


class Ref:
    def __init__(self):
        self.answer = Future()

    def future(self):
        return self.answer


class Task:
    def __init__(self, ray, function, settings):
        self.ray, self.function, self.settings = ray, function, settings

    def options(self, **settings):
        return Task(self.ray, self.function, {**self.settings, **settings})

    def remote(self, *arguments):
        self.ray.asked.append(self.settings)
        ref, sent = Ref(), pickle.dumps(arguments)
        threading.Thread(target=self._run, args=(ref.answer, sent), daemon=True).start()
        return ref

    def _run(self, answer, sent):
        for _ in range(self.settings["max_retries"] + 1):
            try:
                with self.ray.places:
                    answer.set_result(self.function(*pickle.loads(sent)))
                return
            except NodeLost:
                continue
            except Exception:
                answer.set_exception(RayTaskError(f"ray::do()\n{traceback.format_exc()}"))
                return
        answer.set_exception(NodeDiedError("Task failed because the node it was running on is dead.\nNode IP: ..."))


class FakeRay(types.ModuleType):
    """Put into ``sys.modules`` as ``ray``.

    Attributes:
        cluster: What ``ray.nodes()`` returns.
        asked: Settings of every task.
        is_up: Connected.
        is_headless: The head does not answer.
    """

    def __init__(self, *cluster):
        super().__init__("ray")
        self.cluster, self.asked, self.is_up, self.is_headless = list(cluster), [], False, False
        self.places = threading.Semaphore(sum(int(each["Resources"].get("CPU", 0)) for each in cluster))
        self.exceptions = types.SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def install(self, monkeypatch):
        strategies = types.ModuleType("ray.util.scheduling_strategies")
        strategies.NodeAffinitySchedulingStrategy = lambda node_id, soft: (node_id, soft)
        monkeypatch.setitem(sys.modules, "ray", self)
        monkeypatch.setitem(sys.modules, "ray.util", types.ModuleType("ray.util"))
        monkeypatch.setitem(sys.modules, "ray.util.scheduling_strategies", strategies)
        return self

    def init(self, address=None, logging_level="", log_to_driver=True):
        if address == "nowhere:1":
            raise ConnectionError("Failed to connect to Ray cluster at nowhere:1")
        self.is_up = True
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))

    def shutdown(self):
        self.is_up = False

    def nodes(self):
        if self.is_headless:
            raise RayError("RPC error")
        return list(self.cluster)

    def remote(self, **settings):
        return lambda function: Task(self, function, settings)

    def get(self, ref, timeout):
        return ref.answer.result(timeout)
