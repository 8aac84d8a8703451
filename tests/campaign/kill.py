"""Kill runs at every kind of moment and compare what they end with, once gone on with, with an uninterrupted run.

    python tests/campaign/kill.py [--kills 200] [--trainers TAC CoOp ...] [--seed 0] [--work FOLDER]

Each case forks this process, which has imported everything, and does one short run on a small data set. The child is
killed before its n-th file operation, or in the middle of writing a tensor file, or after a random time by SIGKILL,
SIGTERM or SIGINT; one in four is killed once more while it goes on. Then the run is gone on with, as a user would.
It has to end with the same weights, history, accuracy and predictions, bit for bit.

Scenes: ``train`` (--resume afterwards), ``best_val``, ``overwrite`` (over a finished run of other settings), and
``chain`` (a training run and a test of its model, as `clusterprompt run` does them).
"""

from __future__ import annotations

import argparse
import builtins
import functools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tests"))

SCENES = ("train", "best_val", "overwrite", "chain")
KILLED = -signal.SIGKILL


class World(NamedTuple):
    """Where a campaign takes place.

    Attributes:
        data: Root of the small data set.
        backbone: File of the small CLIP.
        work: Folder of all runs.
    """

    data: Path
    backbone: Path
    work: Path


class Kill(NamedTuple):
    """When a run is killed.

    Attributes:
        kind: ``before`` a file operation, ``torn`` in the middle of a tensor file, or a signal's name.
        at: Number of the operation or file, from 0; for signals the seconds from the start.
    """

    kind: str
    at: float


# ---------------------------------------------------------------------- one run
def prepare(work: Path) -> World:
    """Import everything, and write the data and the CLIP of a campaign."""
    import support
    import torch

    from clusterprompt import dassl_compat

    dassl_compat.prepare()
    import dassl.engine  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401

    from clusterprompt import registration
    from clusterprompt.running import chain, train  # noqa: F401

    torch.set_num_threads(1)
    registration.own_trainers()
    data = work / "data"
    data.mkdir(parents=True)
    support.write_data(data, (3, 2, 2))
    torch.save(support.random_clip(), work / "clip.pt")
    return World(data, work / "clip.pt", work)


def learners() -> list[str]:
    """Return the names of the trainers that learn something."""
    from clusterprompt.registration import own_trainers

    return sorted(cls.__name__ for cls in own_trainers() if cls.__name__ != "ZeroshotCLIP")


def pairs(trainer: str, *more: str) -> tuple[str, ...]:
    """Return the settings of a short run."""
    import support
    import yaml

    from clusterprompt.running.spec import ANY_DEPTH, find_config, trainer_config

    text = find_config(trainer_config(trainer, "basetonovel")).read_text(encoding="utf-8")
    nodes = (yaml.safe_load(text) or {}).get("TRAINER", {})
    layers = [
        word
        for node, keys in nodes.items()
        for key in keys
        for start, value in {**ANY_DEPTH, "TEACHER_NAME": ""}.items()
        if key.startswith(start)
        for word in (f"TRAINER.{node}.{key}", value)
    ]
    needed = map(str, support.NEEDED.get(trainer, ()))
    short = "OPTIM.MAX_EPOCH 2 TRAIN.CHECKPOINT_FREQ 1 DATALOADER.NUM_WORKERS 0 DATALOADER.TRAIN_X.BATCH_SIZE 8"
    return (*short.split(), *layers, *needed, *more)


def do_run(world: World, scene: str, trainer: str, out: Path, mode: str, *more: str) -> None:
    """Do the run of a scene in this process.

    Args:
        mode: ``--resume``, ``--overwrite`` or empty.
        more: KEY VALUE pairs.
    """
    from clusterprompt.record.protocols import Leg
    from clusterprompt.running.chain import run_chain
    from clusterprompt.running.options import TrainOptions
    from clusterprompt.running.spec import RunSpec
    from clusterprompt.running.train import train

    best = ("TEST.FINAL_MODEL", "best_val") if scene == "best_val" else ()
    if scene == "chain":
        os.environ["DATA"] = str(world.data)
        base = Leg("base2new/train_base", "caltech101", "base", 2, "base")
        legs = [base, Leg("base2new/test_new", "caltech101", "new", 2, "new", model=base)]
        specs = [
            RunSpec(leg, trainer, 1, "basetonovel", str(out), str(world.backbone), 2, pairs(trainer)) for leg in legs
        ]
        run_chain(specs, resume=mode == "--resume", overwrite=mode == "--overwrite")
        return
    train(
        TrainOptions(
            root=str(world.data),
            output_dir=str(out),
            seed=1,
            trainer=trainer,
            backbone=str(world.backbone),
            config_file=f"configs/trainers/{trainer}/basetonovel.yaml",
            dataset_config_file="configs/datasets/caltech101.yaml",
            resume=mode == "--resume" or None,
            overwrite=mode == "--overwrite",
            opts=("DATASET.NUM_SHOTS", "2", "DATASET.SUBSAMPLE_CLASSES", "base", *pairs(trainer, *best, *more)),
        )
    )


def in_child(work: Callable[[], None], log: Path, kill: Kill | None = None, out: Path | None = None) -> int:
    """Do something in a fork of this process; return its exit code, negative for a signal, and 1 for an error."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            handle = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            sys.stdout = open(1, "w", buffering=1, closefd=False)
            if out is not None:
                watch(out, kill, log.with_suffix(".count"))
            work()
            code = 0
        except KeyboardInterrupt:
            code = 130
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    if kill is not None and kill.kind.startswith("SIG"):
        time.sleep(kill.at)
        os.kill(child, getattr(signal, kill.kind))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def watch(out: Path, kill: Kill | None, count: Path) -> None:
    """Count the operations on files below ``out`` in this process, and kill it before or in the chosen one."""
    import torch

    seen = {"before": 0, "torn": 0}
    real_open, real_save = builtins.open, torch.save

    def below(path: Any) -> bool:
        return isinstance(path, (str, os.PathLike)) and os.path.abspath(path).startswith(str(out))

    def event(kind: str) -> bool:
        due = kill is not None and kill.kind == kind and kill.at == seen[kind]
        seen[kind] += 1
        if kill is None:
            handle = os.open(count, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.write(handle, json.dumps(seen).encode())
            os.close(handle)
        return due

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    def watched(function: Callable) -> Callable:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            if below(path) and event("before"):
                die()
            return function(path, *args, **kwargs)

        return call

    def opened(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if set(mode) & set("wax+") and below(path) and event("before"):
            die()
        return real_open(path, mode, *args, **kwargs)

    def saved(content: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        real_save(content, path, *args, **kwargs)
        if below(path) and event("torn"):
            os.truncate(path, os.path.getsize(path) // 2)
            die()

    for name in ("replace", "rename", "unlink", "remove", "mkdir", "rmdir"):
        setattr(os, name, watched(getattr(os, name)))
    builtins.open, torch.save = opened, saved  # type: ignore[assignment]


# ---------------------------------------------------------------------- what a run ends with
def outcome(folder: Path) -> dict[str, Any]:
    """Return everything that has to be equal, by file: weights as bytes, the record without times, predictions."""
    from clusterprompt.clip_patches.weights import load_data

    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name.startswith("model"):
            state = load_data(path)  # as data: real Dassl's checkpoints hold its schedule, an object
            weights = {key: value.numpy().tobytes() for key, value in state["state_dict"].items()}
            found[name] = (state["epoch"], weights)
        elif path.name == "result.json":
            record = json.loads(path.read_text())
            history = [{**entry, "seconds": None} for entry in record["history"]]
            keys = ("status", "accuracy", "macro_f1", "per_class", "fewshot_digest", "epoch")
            rate = record["config"]["OPTIM"]["LR"]
            found[name] = {**{key: record[key] for key in keys}, "history": history, "lr": rate}
        elif path.name in ("predictions.csv", "checkpoint"):
            found[name] = path.read_bytes()
    return found


def left_overs(folder: Path) -> list[str]:
    """Return what a finished run must not leave: temporary files, locks, old sets."""
    patterns = (".*.tmp", ".*.lock", ".overwritten")
    return [str(path) for pattern in patterns for path in folder.parent.rglob(pattern)]


def difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Return in one line where two outcomes differ; empty if they do not."""
    files = sorted(name for name in wanted.keys() | found.keys() if found.get(name) != wanted.get(name))
    return f"differs in {', '.join(files)}" if files else ""


# ---------------------------------------------------------------------- a case
class Case(NamedTuple):
    """One kill, or two.

    Attributes:
        kills: In order; the second hits the run that goes on.
    """

    scene: str
    trainer: str
    kills: tuple[Kill, ...]

    def __str__(self) -> str:
        kills = " and ".join(f"{kill.kind} {kill.at:.3g}" for kill in self.kills)
        return f"{self.trainer}, {self.scene}: {kills}"


def survives(world: World, case: Case, wanted: dict[str, Any], folder: Path) -> str:
    """Do a case; return in one line what is wrong with its end, or an empty string."""
    out, log = folder / "out", folder / "log.txt"
    folder.mkdir(parents=True)
    first = ""
    if case.scene == "overwrite":
        first = "--overwrite"
        shutil.copytree(world.work / f"old-{case.trainer}" / "out", out)
    modes = [first, *["--resume"] * (len(case.kills) - 1)]
    for kill, mode in zip(case.kills, modes):
        in_child(lambda mode=mode: do_run(world, case.scene, case.trainer, out, mode), log, kill, out)
    code = in_child(lambda: do_run(world, case.scene, case.trainer, out, "--resume"), log)
    if case.scene == "overwrite" and difference(outcome(out), wanted):
        # Killed before the old run was touched: it has to be there as it was, and --overwrite to work.
        changed = difference(outcome(out), outcome(world.work / f"old-{case.trainer}" / "out"))
        if changed:
            return f"neither the old run nor the new one: {changed}"
        code = in_child(lambda: do_run(world, case.scene, case.trainer, out, "--overwrite"), log)
    if code:
        lines = log.read_text(errors="replace").strip().splitlines()
        return f"going on ended with code {code}: {lines[-1] if lines else ''}"
    wrong = difference(outcome(out), wanted)
    return wrong or ", ".join(left_overs(out))


def reference(world: World, scene: str, trainer: str) -> tuple[dict[str, Any], dict[str, int], float]:
    """Do the uninterrupted run; return its outcome, its numbers of file operations, and its seconds."""
    folder = world.work / f"whole-{scene}-{trainer}"
    folder.mkdir()
    if scene == "overwrite":
        old = world.work / f"old-{trainer}"
        old.mkdir()
        arguments = (world, scene, trainer, old / "out", "", "OPTIM.LR", "0.001")
        if in_child(lambda: do_run(*arguments), old / "log.txt"):
            raise RuntimeError((old / "log.txt").read_text())
        shutil.copytree(old / "out", folder / "out")
    mode = "--overwrite" if scene == "overwrite" else ""
    began = time.monotonic()
    out = folder / "out"
    code = in_child(lambda: do_run(world, scene, trainer, out, mode), folder / "log.txt", None, out)
    if code:
        raise RuntimeError((folder / "log.txt").read_text())
    counts = json.loads((folder / "log.count").read_text())
    return outcome(folder / "out"), counts, time.monotonic() - began


def draw_case(number: int, trainers: list[str], draw: random.Random, reference_of: Callable) -> Case:
    """Choose the scene, the trainer and the moments of a case; every trainer gets every scene that it has in turn."""
    from clusterprompt.running.budget import class_bound, known_trainers

    trainer = trainers[number % len(trainers)]
    scenes = SCENES[:-1] if class_bound(known_trainers()[trainer]) else SCENES  # it tests no new classes
    scene = scenes[number // len(trainers) % len(scenes)]
    _, events, seconds = reference_of(scene, trainer)

    def kill() -> Kill:
        kind = draw.choice(("before", "before", "before", "torn", "SIGKILL", "SIGTERM", "SIGINT"))
        return Kill(kind, draw.uniform(0.1, seconds) if kind.startswith("SIG") else draw.randrange(events[kind]))

    return Case(scene, trainer, tuple(kill() for _ in range(1 + (draw.random() < 0.25))))


def campaign(kills: int, trainers: list[str], seed: int, work: Path) -> list[str]:
    """Do a campaign; return its faults, one line each."""
    world = prepare(work)
    trainers, draw, faults = trainers or learners(), random.Random(seed), []
    reference_of = functools.cache(functools.partial(reference, world))
    for number in range(1, kills + 1):
        case = draw_case(number - 1, trainers, draw, reference_of)
        folder = work / f"case{number}"
        wrong = survives(world, case, reference_of(case.scene, case.trainer)[0], folder)
        if wrong:
            faults.append(f"{case}: {wrong} (see {folder})")
        else:
            shutil.rmtree(folder)
        print(
            f"{number} tried, {number - len(faults)} survived: {case}{': FAULT ' + wrong if wrong else ''}", flush=True
        )
    return faults


def main() -> int:
    """Run the command line; return 1 if there are faults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--trainers", nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder for the runs (default: a new temporary one)")
    args = parser.parse_args()
    work = args.work or Path(tempfile.mkdtemp(prefix="kill-"))
    began = time.monotonic()
    faults = campaign(args.kills, args.trainers, args.seed, work)
    print(
        f"{args.kills} kills tried, {args.kills - len(faults)} survived, {len(faults)} faults "
        f"({time.monotonic() - began:.0f} s)"
    )
    if not faults and args.work is None:
        shutil.rmtree(work)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
