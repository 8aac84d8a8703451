"""Give hostile files to every door of the program, and count what they achieve.

    python tests/campaign/hostile.py [--short]

Archives go to ``data prepare``; weights to ``train``, ``predict``, ``export``, ``pictures`` and ``convert``; records
and their predictions to ``results``, ``predict`` and ``pictures``; images to ``predict``. Each try gets a folder of its
own, beside one with a canary that no door has any business in. A try is survived if the program ends within a minute,
without a traceback, and without terminal codes in what it prints. --short takes every sixth file.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), *(str(TESTS / name) for name in ("data", "clip_patches", "results"))]

import made_runs  # noqa: E402
import support  # noqa: E402
import test_results  # noqa: E402
import test_unpack  # noqa: E402
import test_weights  # noqa: E402
import torch  # noqa: E402
from golden_clip import state_dict  # noqa: E402
from PIL import Image  # noqa: E402

from clusterprompt import dassl_compat  # noqa: E402
from clusterprompt.commands import convert, data, export, pictures, predict, results, train  # noqa: E402

SECONDS = 60
ARCHIVE = "fgvc-aircraft-2013b.tar.gz"  # of a data set without a published checksum


class Place(NamedTuple):
    """Where a try happens.

    Attributes:
        inside: Folder of the try.
        outside: Folder beside it, with a canary.
    """

    inside: Path
    outside: Path

    @property
    def target(self) -> Path:
        """File that a payload creates."""
        return self.outside / "executed"


class Try(NamedTuple):
    """One hostile file at one door.

    Attributes:
        file: Name of the kind of file.
        door: Name of the command.
        act: Writes the file into a place, and returns the command's main and its words.
    """

    file: str
    door: str
    act: Callable[[Place], tuple[Callable[[list[str]], int], list[str]]]


class World(NamedTuple):
    """Good files that the tries copy: a CLIP, a data root, runs by method."""

    clip: Path
    root: Path
    runs: dict[str, Path]


def make_world(folder: Path) -> World:
    """Write the good files."""
    dassl_compat.prepare()
    clip, root = folder / "clip.pt", folder / "data"
    torch.save(state_dict(), clip)
    root.mkdir()
    support.write_data(root)
    runs = {}
    for name in ("CoOp", "TAC"):
        runs[name] = folder / name / "seed1"
        trainer = support.build(name, root, clip, runs[name])
        trainer.save_model(0, str(runs[name]))
        trainer.recorder.write()
    return World(clip, root, runs)


# ------------------------------------------------------------------ what is tried


def archives() -> Iterator[Try]:
    """Yield archives for ``data prepare``."""
    kinds: dict[str, Callable[[Path], Any]] = {
        name: lambda path, write=write, bad=bad: write(path, test_unpack.GOOD + bad)
        for name, (write, bad) in test_unpack.DANGEROUS.items()
    }
    kinds |= {name: write for name, (write, _) in test_unpack.UNREADABLE.items()}
    kinds["links longer than a path"] = lambda path: test_unpack.tar_of(path, test_unpack.long_links("canary", 5), "w")
    kinds["bomb"] = lambda path: test_unpack.bomb(path, "w:gz", 300_000_000)
    for name, write in kinds.items():

        def act(place: Place, write=write):
            folder = place.inside / "root" / "fgvc_aircraft"
            folder.mkdir(parents=True)
            (place.outside / "canary").replace(place.inside.parent / "canary")  # where links would lead
            shutil.copy(place.inside.parent / "canary", place.outside)
            write(folder / ARCHIVE)
            return data.main, ["prepare", "fgvc_aircraft", "--root", str(place.inside / "root")]

        yield Try(f"archive: {name}", "data prepare", act)


def weights(world: World) -> Iterator[Try]:
    """Yield files of weights: as a CLIP, and as a checkpoint of a run."""
    kinds: dict[str, Callable[[Path, Path], Any]] = dict(test_weights.HOSTILE)
    for name, change in {
        "NaN": lambda t: t * float("nan"),
        "integers": lambda t: t.long(),
        "complex numbers": lambda t: t.to(torch.complex64),
        "an endless view": lambda t: t.flatten()[:1].expand(1 << 36),
        "a text": lambda t: "text",
    }.items():
        kinds[name] = lambda path, _, change=change: torch.save({k: change(v) for k, v in state_dict().items()}, path)
    kinds["a folder"] = lambda path, _: path.mkdir()
    kinds["a pipe"] = lambda path, _: os.mkfifo(path)
    for name, write in kinds.items():
        for door in ("predict", "export", "pictures", "train"):
            yield Try(f"CLIP: {name}", door, _as_clip(world, write, door))
        for door in ("predict", "convert", "train"):
            yield Try(f"checkpoint: {name}", door, _as_checkpoint(world, write, door))


def _as_clip(world: World, write, door: str):
    def act(place: Place):
        write(place.inside / "clip.pt", place.target)
        return _door(world, door, place, world.runs["TAC"], place.inside / "clip.pt")

    return act


def _as_checkpoint(world: World, write, door: str):
    def act(place: Place):
        run = place.inside / "run"
        shutil.copytree(world.runs["TAC"], run)
        (file,) = run.glob("*/model*")
        file.unlink()
        write(file, place.target)
        return _door(world, door, place, run, world.clip)

    return act


def _door(world: World, door: str, place: Place, run: Path, clip: Path):
    """Return a command's main and its words, for a run and a CLIP."""
    words = ["--run", str(run), "--backbone", str(clip)]
    if door == "predict":
        return predict.main, [*words, str(world.root)]
    if door == "export":
        return export.main, [*words, str(place.inside / "out.safetensors")]
    if door == "pictures":
        return pictures.main, [*words, "--data", str(world.root), "--output", str(place.inside / "pictures")]
    if door == "convert":
        return convert.main, [str(run), str(place.inside / "small")]
    config = TESTS.parent / "configs"
    files = {"config-file": "trainers/TAC/basetonovel.yaml", "dataset-config-file": "datasets/caltech101.yaml"}
    words = ["--trainer", "TAC", "--seed", "1", "--backbone", str(clip), "--root", str(world.root), "--eval-only"]
    words += [word for name, file in files.items() for word in (f"--{name}", str(config / file))]
    words += ["--model-dir", str(run), "--output-dir", str(place.inside / "out"), "DATALOADER.NUM_WORKERS", "0"]
    return train.main, [*words, "DATASET.SUBSAMPLE_CLASSES", "base"]


def records(world: World) -> Iterator[Try]:
    """Yield records: odd fields for ``results``; files that they name for the others."""
    for name, change in test_results.ODD.items():

        def odd(place: Place, change=change):
            made_runs.base2new(place.inside / "out", "TAC", "OxfordPets", {1: (95.0, 85.0), 2: (95.0, 85.0)})
            file = next((place.inside / "out").rglob("result.json"))
            file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
            return results.main, [str(place.inside / "out"), "--html", str(place.inside / "report.html")]

        yield Try(f"record: {name}", "results", odd)
    for name in ("TorchScript that writes", "TorchScript that loops", "/dev/zero", "$HOME", "~"):
        for door in ("predict", "export", "pictures"):
            yield Try(f"record names: {name}", door, _named(world, name, door))

    def embeds(place: Place):
        rows = [(str(world.root), 0, 1, 0.9), ("../../canary", 0, 1, 0.9), ("=cmd|' /C calc'!A0", 1, 0, 0.9)]
        made_runs.base2new(place.inside / "out", "TAC", "OxfordPets", {1: (9.0, 8.0)}, root="/", predictions=rows)
        return results.main, [str(place.inside / "out"), "--html", str(place.inside / "report.html")]

    yield Try("record: names images of this machine", "results", embeds)


def _named(world: World, name: str, door: str):
    def act(place: Place):
        run, named = place.inside / "run", name
        shutil.copytree(world.runs["TAC"], run)
        if name in test_weights.HOSTILE:
            named = str(run / "clip.pt")
            test_weights.HOSTILE[name](run / "clip.pt", place.target)
        record = json.loads((run / "result.json").read_text())
        record["config"]["MODEL"]["BACKBONE"]["NAME"] = record["backbone"] = named
        (run / "result.json").write_text(json.dumps(record))
        main, words = _door(world, door, place, run, world.clip)
        del words[2:4]  # --backbone
        return main, words

    return act


def images(world: World) -> Iterator[Try]:
    """Yield images and their names for ``predict``."""

    def bomb(path: Path) -> None:
        Image.new("1", (30_000, 30_000)).save(path)

    postscript = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) (w) file\n"
    kinds: dict[str, Callable[[Path], Any]] = {
        "newline.jpg\nfake.jpg": lambda path: path.write_bytes(b"x"),
        "codes\x1b[2J\x1b]0;x\x07.jpg": lambda path: path.write_bytes(b"x"),
        "turned\u202egpj.jpg": lambda path: path.write_bytes(b"x"),
        "=cmd|calc.png": lambda path: Image.new("RGB", (9, 9)).save(path),
        "bomb.png": bomb,
        "script.png": lambda path: path.write_text(postscript),
        "long.png": lambda path: Image.new("L", (1, 20_000)).save(path),
        "pipe.png": os.mkfifo,
        "device.png": lambda path: path.symlink_to("/dev/zero"),
        "page.jpg": lambda path: path.write_text("<script>"),
    }
    for name, write in kinds.items():

        def act(place: Place, name=name, write=write):
            write(place.inside / name)
            words = ["--run", str(world.runs["CoOp"]), "--backbone", str(world.clip), str(place.inside / name)]
            return predict.main, words

        yield Try(f"image: {name!r}", "predict", act)


# ------------------------------------------------------------------ what becomes of it


def attempt(one: Try, folder: Path) -> list[str]:
    """Carry out a try in a new folder; return its faults."""
    place = Place(folder / "inside", folder / "outside")
    place.inside.mkdir(parents=True)
    place.outside.mkdir()
    (place.outside / "canary").write_text("untouched")
    said, faults = io.StringIO(), []
    main, words = one.act(place)
    before = _files(folder)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = main(words)
        if code not in (0, 1, 2):
            faults.append(f"exit code {code}")
    except SystemExit as end:
        faults += [f"usage: {said.getvalue()[-200:]}"] if end.code else []
    except TimeoutError:
        faults.append(f"still busy after {SECONDS} seconds")
    except BaseException:
        faults.append(f"traceback: {traceback.format_exc().splitlines()[-1][:200]}")
    finally:
        signal.alarm(0)
    if "\x1b" in said.getvalue():
        faults.append("terminal codes")
    if place.target.exists():
        faults.append("executed")
    if _files(folder) != before:
        faults.append("wrote outside")
    return faults


def _too_long(*_: Any) -> None:
    raise TimeoutError


def _files(folder: Path) -> dict[str, str]:
    """Return the files outside of the try's own folder, with their content."""
    found = [path for path in folder.rglob("*") if folder / "inside" not in path.parents and path.is_file()]
    return {str(path): path.read_text(errors="replace") for path in found}


def main(argv: list[str] | None = None) -> int:
    """Try all files at their doors; print the faults and the sums; return 1 if there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="every sixth file")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()):
        with contextlib.redirect_stdout(io.StringIO()):
            (Path(name) / "world").mkdir()
            world = make_world(Path(name) / "world")
        tries = [*archives(), *weights(world), *records(world), *images(world)]
        tries = tries[::6] if args.short else tries
        for number, one in enumerate(tries):
            faults = attempt(one, Path(name) / str(number))
            shutil.rmtree(Path(name) / str(number))
            counts["survived"] += not faults
            counts["executions"] += "executed" in faults
            counts["writes outside"] += "wrote outside" in faults
            for fault in faults:
                print(f"FAULT {one.door}, {one.file}: {fault}", flush=True)
    files = len({one.file for one in tries})
    sums = ", ".join(f"{counts[key]} {key}" for key in ("survived", "executions", "writes outside"))
    print(f"{len(tries)} tried ({files} hostile files), {sums}")
    return int(counts["survived"] < len(tries))


if __name__ == "__main__":
    sys.exit(main())
