"""Engines of `clusterprompt run`: this machine, a fake Ray cluster, and a real one where Ray is installed."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fake_ray import FakeRay, NodeLost, node
from stand_ins import write_record

from clusterprompt.commands import run
from clusterprompt.running import ray_engine
from clusterprompt.running.engine import LocalEngine
from clusterprompt.running.ray_engine import Needs, RayEngine, Site

WORDS = ["--protocol", "base2new", "--trainers", "ZeroshotCLIP", "CoOp", "TAC", "--seeds", "1", "2"]
RAY = [*WORDS, "--engine", "ray"]


@pytest.fixture
def ray(monkeypatch, tmp_path):
    """A cluster of two nodes with a core each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    return FakeRay(node("10.0.0.1", CPU=1.0), node("10.0.0.2", CPU=1.0)).install(monkeypatch)


def parts(said):
    """The lines of finished runs without the remaining time, sorted; and the tables."""
    lines = re.findall(r"^  \[\d/\d\] (.*?)(?:; .* to go)?$", said, re.MULTILINE)
    return sorted(lines), re.sub(r"/(ray|local)\b", "/...", said[said.index("\nBase to new") :])


# ------------------------------------------------------------------ this machine


def test_a_gpu_holds_one_run(calls, monkeypatch):
    """Catches: two runs at once on one GPU while another one is idle."""
    import torch

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    busy, seen = [], []

    def call(self, job, overwrite, environment, log):
        busy.append(environment["CUDA_VISIBLE_DEVICES"])
        seen.append(sorted(busy))
        time.sleep(0.03 if job.specs[0].trainer == "CoOp" else 0.01)
        busy.remove(environment["CUDA_VISIBLE_DEVICES"])
        for spec in job.specs:
            write_record(spec, 60.0)
        return 0

    monkeypatch.setattr(LocalEngine, "call", call)
    assert run.main([*WORDS, "--jobs", "2"]) == 0
    assert len(seen) == 6 and ["2", "5"] in seen and not [both for both in seen if len(set(both)) < len(both)]


@pytest.mark.slow
def test_a_run_ends_with_its_engine():
    """Catches: processes that go on after `kill -9` of the command, or after the loss of their node's Ray."""
    code = "import time; from clusterprompt.commands import worker; worker.end_with_engine(); print(1, flush=True); "
    words = [sys.executable, "-c", code + "time.sleep(60)"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"1\n" and process.poll() is None
        process.stdin.close()
        assert process.wait(20) == -signal.SIGTERM


# ------------------------------------------------------------------ a fake cluster


def test_same_lines_and_tables(calls, ray, capsys, output, monkeypatch):
    """Catches: another plan, other folders or another table on a cluster; a task that cannot be pickled."""
    said = {}
    for engine in ("local", "ray"):
        monkeypatch.setenv("OUTPUT", str(output / engine))
        assert run.main([*WORDS, "--engine", engine]) == 0
        said[engine] = capsys.readouterr().out
    assert len(calls) == 12 and parts(said["local"]) == parts(said["ray"])
    names = [{str(Path(job.folders[0]).relative_to(output / name)) for job in _jobs(calls, name)} for name in said]
    assert names[0] == names[1] and len(names[0]) == 6
    assert "Ray: 2 nodes; a run takes 1 core." in said["ray"] and "6 runs, 2 at a time" in said["ray"]
    assert not ray.is_up
    runs = [settings for settings in ray.asked if settings["num_cpus"]]
    assert len(runs) == 6 and all(each["max_retries"] == ray_engine.RETRIES for each in runs)
    assert [each["scheduling_strategy"] for each in ray.asked[:2]] == [("id-10.0.0.1", False), ("id-10.0.0.2", False)]


def _jobs(calls, engine):
    return [call.job for call in calls if f"/{engine}/" in call.job.folders[0]]


def test_environment_of_a_run(calls, ray, monkeypatch, tmp_path):
    """Catches: a node that looks for data elsewhere, has the driver's GPUs, or gives a small run all cores."""
    monkeypatch.setenv("CLUSTERPROMPT_HOME", "/home")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")  # the fake nodes are this process, and so have it too
    assert run.main(RAY) == 0
    for call in calls:
        assert call.environment["DATA"] == str(tmp_path / "data") and call.environment["CLUSTERPROMPT_HOME"] == "/home"
        assert call.environment["OMP_NUM_THREADS"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in ray_engine.FORWARDED


def test_a_lost_node(calls, ray, monkeypatch, capsys):
    """Catches: a run that is lost with its node, or starts from the beginning elsewhere; one that is tried for ever."""
    real, lost, modes = LocalEngine.call, [], []

    def call(self, job, overwrite, environment, log):
        spec = job.specs[0]
        if (spec.trainer, spec.seed) == ("CoOp", 1) and not lost:
            lost.append(spec)
            raise NodeLost
        if (spec.trainer, spec.seed) == ("TAC", 2):
            modes.append(overwrite)
            raise NodeLost
        return real(self, job, overwrite, environment, log)

    monkeypatch.setattr(LocalEngine, "call", call)
    assert run.main(RAY) == 1
    said = capsys.readouterr()
    assert lost and len(calls) == 5 and not any(call.overwrite for call in calls)
    assert modes == [False] * (1 + ray_engine.RETRIES)
    assert (
        "1 run failed:\n  TAC, shapes base to new, seed 2: Task failed because the node it was running on is dead.\n"
        in said.err
    )
    assert "[6/6]" in said.out and "48.0" in said.out


def test_a_fault_on_a_node(calls, ray, monkeypatch, capsys):
    """Catches: a traceback of a node on several lines, or its first line, which says nothing."""
    monkeypatch.setattr(LocalEngine, "run", lambda *args: {}["missing"])
    assert run.main(RAY) == 1
    assert "  CoOp, shapes base to new, seed 1: KeyError: 'missing'\n" in capsys.readouterr().err


def test_terminated(calls, ray, monkeypatch, capsys):
    """Catches: Ray's own answer to SIGTERM, with which Slurm ends a job: a stack, and another exit code."""
    once = [signal.SIGTERM]
    monkeypatch.setattr(LocalEngine, "call", lambda *args: once and os.kill(os.getpid(), once.pop()) or time.sleep(5))
    assert run.main(RAY) == 130
    assert "the same command goes on from here" in capsys.readouterr().err and not ray.is_up


def test_tests_wait_for_their_training(calls, ray):
    """Catches: Ray given a test before the model is there."""
    words = ["--protocol", "cross_dataset", "--trainers", "CoOp", "TAC", "--seeds", "1", "--engine", "ray"]
    assert run.main(words) == 0
    for trainer in ("CoOp", "TAC"):
        names = [name for name in calls.names() if name.endswith(trainer)]
        assert len(names) == 4 and names[0] == f"xd/train/shapes/{trainer}"


def test_a_second_driver(calls, ray, output, capsys):
    """Catches: two drivers on one output folder; a folder that stays taken after a call."""
    mark, _ = ray_engine.take(output)
    assert run.main(RAY) == 2
    said = capsys.readouterr().err
    assert f"error: {output} is in use by process {os.getpid()} on" in said and said.count("\n") == 1
    assert "another --output" in said and not calls and not ray.asked
    mark.close()
    assert run.main(RAY) == 0 and run.main([*RAY, "--overwrite"]) == 0 and len(calls) == 12


def test_a_blind_node(calls, ray, output, monkeypatch, capsys, tmp_path):
    """Catches: hours of runs whose results are on a node's own disk."""
    real = ray_engine.look

    def look(site):  # each node has a disk of its own at the same path
        return real(site._replace(mark=str(tmp_path / "own_disk" / ray_engine.MARK)))

    monkeypatch.setattr(ray_engine, "look", look)
    assert run.main(RAY) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: node 10.0.0.1 does not see the output folder") and said.count("\n") == 1
    assert "docs/cluster.md" in said and not calls and not ray.is_up


def test_what_a_node_has_to_see(tmp_path):
    """Catches: a folder of the same name taken for the same one, other code, data or a checkout that is not there."""
    (tmp_path / ".driver").write_text("abc")
    site = Site(str(tmp_path), str(tmp_path / ".driver"), "abc", "", {})
    assert site.problem() == ""
    assert "does not see the output folder" in site._replace(word="abd").problem()
    assert "does not see /nowhere" in site._replace(data="/nowhere").problem()
    assert "does not see /nowhere" in site._replace(folder="/nowhere").problem()
    assert "has clusterprompt" in site._replace(version="0.0.0").problem()


def test_locks_that_do_not_reach_a_node(calls, ray, output, capsys):
    """Catches: a disk without locks between machines that nobody hears of; a note where locks work."""
    run.main(RAY)
    assert "locks of" not in capsys.readouterr().out
    mark, word = ray_engine.take(output)
    site = Site(str(output), str(output / ray_engine.MARK), word, "", {})
    assert ray_engine.look(site) == ("", True)
    mark.close()  # as for a node to which locks do not reach
    assert ray_engine.look(site) == ("", False)


@pytest.mark.parametrize(
    "gpus, one_core, nodes, needs, places",
    [
        (None, False, [{"CPU": 32, "GPU": 4}], (8, 1), 4),
        (0.5, False, [{"CPU": 32, "GPU": 4}], (4, 0.5), 8),
        (0.1, True, [{"CPU": 32, "GPU": 1}], (1, 0.1), 10),
        (None, True, [{"CPU": 2}, {"CPU": 4}], (1, 0), 6),
        (None, False, [{"CPU": 16}, {"CPU": 8}], (8, 0), 3),
        (0, False, [{"CPU": 16, "GPU": 2}], (16, 0), 1),
        (None, False, [{"CPU": 64}, {"CPU": 8, "GPU": 4}, {"CPU": 16, "GPU": 2}], (2, 1), 6),
        (1, True, [{"CPU": 4}], (1, 1), 0),
        (None, False, [{}, {"CPU": 2, "GPU": 4}], (1, 1), 2),
    ],
)
def test_shares(gpus, one_core, nodes, needs, places):
    """Catches: a run that waits for ever for a node that is large enough, GPUs or cores left idle."""
    nodes = [node(str(number), **resources) for number, resources in enumerate(nodes)]
    found = Needs.of(nodes, gpus, one_core)
    assert found == needs and sum(map(found.places, nodes)) == places


def test_nodes_come_and_go(ray, monkeypatch, capsys):
    """Catches: a node that joins and stays idle, a loss that nobody is told of; a traceback while the head is away."""
    monkeypatch.setattr(ray_engine, "WATCH", 0.01)
    engine = RayEngine(jobs=3)
    engine.ray, engine.needs = ray, Needs(1, 0)
    watching = threading.Thread(target=engine._watch, args=(ray.nodes(),))
    watching.start()
    _until(lambda: engine.places == 2)
    ray.cluster[1]["Alive"] = False
    _until(lambda: engine.places == 1)
    ray.is_headless = True
    time.sleep(0.05)
    ray.is_headless = False
    ray.cluster.append(node("10.0.0.3", CPU=8.0))
    _until(lambda: engine.places == 3)
    engine.stop()
    watching.join()
    said = capsys.readouterr().out.splitlines()
    assert [line.strip().split(";")[0] for line in said] == ["node 10.0.0.2 is lost", "node 10.0.0.3 has joined"]


def _until(true):
    end = time.time() + 10
    while not true():
        assert time.time() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--engine", "ray", "--gpus-per-run", "2"], "--gpus-per-run 2: a run takes 0 to 1 GPU"),
        (["--engine", "ray", "--gpus-per-run", "-1"], "--gpus-per-run -1: a run takes 0 to 1 GPU"),
        (["--engine", "ray", "--gpus-per-run", "1"], "no node of the Ray cluster has 1 core and 1 GPU"),
        (["--engine", "ray", "--address", "nowhere:1"], "no Ray cluster at nowhere:1"),
        (["--address", "x:1"], "add --engine ray"),
        (["--gpus-per-run", "0.5"], "add --engine ray"),
    ],
)
def test_bad_options(calls, ray, words, message, capsys):
    """Catches: a call that waits for ever for GPUs that are not there; options that do nothing without a word."""
    assert run.main([*WORDS, *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and message in said and not calls


def test_without_ray(calls, monkeypatch, capsys):
    """Catches: an extra that is needed for a local run, or whose lack ends in a traceback."""
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run.main(RAY) == 2
    assert "pip install 'clusterprompt[cluster]'" in capsys.readouterr().err and not calls
    assert run.main(WORDS) == 0


# ------------------------------------------------------------------ a real cluster


@pytest.mark.slow
def test_a_node_is_killed(output, caltech_root, clip_file, monkeypatch, tmp_path, capsys):
    """Catches: other numbers after `kill -9` of a node's Ray in the middle of a run than on this machine alone."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    for key, value in {"DATA": caltech_root, "BACKBONE": clip_file, "EPOCHS": 80, "SHOTS": 2}.items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    words = "--protocol base2new --trainers CoOp --datasets caltech101 --seeds 1 2 DATALOADER.NUM_WORKERS 0".split()
    words += ["TRAIN.CHECKPOINT_FREQ", "1"]
    monkeypatch.setenv("OUTPUT", str(tmp_path / "local"))
    assert run.main(words) == 0
    local = parts(capsys.readouterr().out)
    monkeypatch.setenv("OUTPUT", str(tmp_path / "ray"))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        node = cluster.add_node(num_cpus=1)
        states = [
            tmp_path / "ray" / "base2new/train_base/caltech101/shots_2/CoOp/basetonovel" / f"seed{n}" for n in (1, 2)
        ]

        def kill():
            while not all(list(state.rglob("resume_state.pt")) for state in states):
                time.sleep(0.05)
            cluster.remove_node(node, allow_graceful=False)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        assert run.main([*words, "--engine", "ray", "--address", cluster.address]) == 0
        killer.join(10)
        assert not killer.is_alive()
    finally:
        cluster.shutdown()
    assert parts(capsys.readouterr().out) == local
    logs = [log.read_text() for log in (tmp_path / "ray" / "logs").rglob("*.txt")]
    assert len(logs) == 2 and sum("Resuming the run in" in log for log in logs) == 1
