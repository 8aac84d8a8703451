"""Run methods and seeds from base to new side by side, keep what is finished, put the numbers together: for demo.py and compare.py.

Every run is one of scripts/base2new.py, in a process of its own with one thread: with models as small as the embedded one that is faster than
several threads a run, and the numbers do not depend on how many cores there are.
"""

import csv
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np
from base2new import CHECKOUT, default_output, folders, harmonic_mean
from tqdm import tqdm

from clusterprompt import dassl_compat, registration, run_folder

# Small pictures are read faster than worker processes start; fp32 gives the same numbers whatever the CPU can do with bf16.
SETTINGS = ("DATALOADER.NUM_WORKERS", "0")
MOST_JOBS = 4  # about a GB each


class Method(NamedTuple):
    """A row of the table.

    Attributes:
        trainer: Its name.
        epochs: None leaves the yaml's, or there is nothing to learn.
        guess: Seconds that a run takes on one core; corrected as the runs go.
        settings: KEY VALUE pairs.
    """

    trainer: str
    epochs: Optional[int]
    guess: float
    settings: tuple = ()


class Comparison(NamedTuple):
    """What is to be run, and where the results lie.

    Attributes:
        folder: Below the folder of all results.
        backbone: Empty for the environment's, or the yamls'.
        command: What starts it again, for messages.
    """

    folder: str
    dataset: str
    shots: int
    seeds: tuple
    methods: tuple
    backbone: str
    command: str

    @property
    def output(self) -> Path:
        """Folder of the results."""
        return Path(os.environ.get("OUTPUT") or default_output()) / self.folder

    def environment(self, **more) -> dict:
        """Return the environment of the runs: the comparison's own settings count, not those that happen to be set for other scripts."""
        own = {"OUTPUT": str(self.output), "SHOTS": str(self.shots), "CFG": "basetonovel", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        if self.backbone:
            own["BACKBONE"] = self.backbone
        return {**os.environ, **own, **more}

    def places(self, trainer: str, seed: int) -> tuple:
        """Return the folders of the two halves of a run."""
        return folders(trainer, self.dataset, seed, self.environment())

    def is_finished(self, trainer: str, seed: int) -> bool:
        """Tell whether both halves of a run are finished."""
        return all(run_folder.state(folder) == "finished" for folder in self.places(trainer, seed))

    def run(self, fresh: bool) -> list:
        """Run what is not finished; return the numbers of all runs, method by method."""
        runs = [(method, seed) for method in self.methods for seed in self.seeds]
        todo = [(method, seed) for method, seed in runs if fresh or not self.is_finished(method.trainer, seed)]
        if len(todo) < len(runs):
            print(f"{len(runs) - len(todo)} of {len(runs)} runs are finished already and kept; --fresh runs them again.")
        if todo:
            self.run_side_by_side(todo, fresh)
        return [self.read_record(method.trainer, seed) for method, seed in runs]

    def run_side_by_side(self, todo, fresh: bool):
        """Run methods and seeds, say what is done and how long the rest will take; show a bar on a terminal."""
        if self.dataset.startswith("shapes"):
            draw_data()
        jobs = max(1, min(len(todo), available_cores(), MOST_JOBS))
        left = {(method.trainer, seed): method.guess for method, seed in todo}
        total = sum(left.values())
        print(f"{len(todo)} runs, {jobs} at a time, about {minutes(total / jobs)}. Their logs: {self.output}")
        began = time.time()
        with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(todo), unit="run", disable=None) as bar:
            waiting = {pool.submit(self.run_one, method, seed, fresh): (method.trainer, seed) for method, seed in todo}
            try:
                for done, future in enumerate(as_completed(waiting), start=1):
                    trainer, seed = waiting[future]
                    error = future.result()
                    if error:
                        self.fail(trainer, seed, error)
                    left.pop((trainer, seed))
                    pace = (time.time() - began) / (total - sum(left.values()))
                    record = self.read_record(trainer, seed)
                    numbers = f"base {record['base']:.1f}, new {record['new']:.1f}, HM {record['hm']:.1f}"
                    rest = f"; {minutes(pace * sum(left.values()))} to go" if left else ""
                    bar.update()
                    bar.write(f"  [{done}/{len(todo)}] {trainer}, seed {seed}: {numbers}{rest}")
                    sys.stdout.flush()
            except KeyboardInterrupt:
                print("\ninterrupted; the same command goes on from here", file=sys.stderr)
                raise SystemExit(130) from None
            finally:
                pool.shutdown(cancel_futures=True)

    def run_one(self, method: Method, seed: int, fresh: bool) -> str:
        """Run one method and seed in a process of its own; return what it said on stderr if it failed, else nothing."""
        command = [sys.executable, str(CHECKOUT / "scripts" / "base2new.py"), "--trainer", method.trainer, "--dataset", self.dataset]
        command += ["--seed", str(seed), "--overwrite" if fresh else "--resume", *SETTINGS, *method.settings]
        environment = self.environment(EPOCHS=str(method.epochs or ""))
        ended = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        return (ended.stderr.strip() or f"it ended with code {ended.returncode}") if ended.returncode else ""

    def fail(self, trainer: str, seed: int, error: str):
        """Show why a run failed, and end."""
        print(f"{trainer}, seed {seed} failed:\n{error[-3000:]}", file=sys.stderr)
        if "other settings" in error:
            print(f"The runs in {self.output} are of other settings: {self.command} --fresh runs them again.", file=sys.stderr)
        raise SystemExit(1)

    def read_record(self, trainer: str, seed: int) -> dict:
        """Return the numbers of one method and seed."""
        base, new = (run_folder.read_result(folder) for folder in self.places(trainer, seed))
        return {
            "trainer": trainer,
            "seed": seed,
            "base": base["accuracy"],
            "new": new["accuracy"],
            "hm": harmonic_mean(base["accuracy"], new["accuracy"]),
            "seconds": sum(base["seconds"].values()) + sum(new["seconds"].values()),
            "seconds_per_epoch": base.get("seconds_per_epoch", 0.0),
            "peak_memory_mb": max(base["peak_memory_mb"], new["peak_memory_mb"]),
            "learned_parameters": base.get("learned_parameters", 0),
            "fewshot_digest": base["fewshot_digest"],
        }

    def summaries(self, records) -> list:
        """Return a row for each method: (mean, standard deviation) of the accuracies, means of times, the highest memory."""
        rows = []
        for method in self.methods:
            own = [record for record in records if record["trainer"] == method.trainer]
            row = {"trainer": method.trainer}
            for column, key in (("base", "base"), ("new", "new"), ("HM", "hm")):
                values = [record[key] for record in own]
                row[column] = (float(np.mean(values)), float(np.std(values)))
            row["parameters"] = own[0]["learned_parameters"]
            row["seconds"] = float(np.mean([record["seconds"] for record in own]))
            row["s/epoch"] = float(np.mean([record["seconds_per_epoch"] for record in own]))
            row["peak MB"] = max(record["peak_memory_mb"] for record in own)
            rows.append(row)
        return rows

    def write(self, rows, records, columns, stem: Path) -> list:
        """Write the table as CSV, and table and single runs as JSON; return the files."""
        flat = []
        for row in rows:
            flat.append({})
            for column in columns:
                if isinstance(row[column], tuple):
                    flat[-1][f"{column}_mean"], flat[-1][f"{column}_std"] = row[column]
                else:
                    flat[-1][{"peak MB": "peak_memory_mb", "s/epoch": "seconds_per_epoch"}.get(column, column)] = row[column]
        stem.parent.mkdir(parents=True, exist_ok=True)
        files = stem.with_suffix(".csv"), stem.with_suffix(".json")
        with open(files[0], "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(flat[0]))
            writer.writeheader()
            writer.writerows(flat)
        settings = {method.trainer: {"epochs": method.epochs, "settings": method.settings} for method in self.methods}
        content = {"dataset": self.dataset, "shots": self.shots, "seeds": self.seeds, "methods": settings, "table": flat, "runs": records}
        files[1].write_text(json.dumps(content, indent=2), encoding="utf-8")
        return list(files)


def draw_data():
    """Let the embedded data sets write themselves before several processes would do so at once."""
    dassl_compat.prepare()
    from dassl.config import get_cfg_default

    from clusterprompt.datasets.shapes import Shapes

    registration.speak_through_stdout()
    cfg = get_cfg_default()
    cfg.DATASET.ROOT, cfg.VERBOSE = os.environ.get("DATA") or str(CHECKOUT / "data"), False
    Shapes(cfg)


def available_cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shown(value) -> str:
    """Write a cell of the table."""
    if isinstance(value, tuple):
        return f"{value[0]:.1f} +- {value[1]:.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    return (f"{value:.0f}" if value >= 10 else f"{value:.1f}") if isinstance(value, float) else str(value)


def minutes(seconds: float) -> str:
    """Write a duration in words."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(10, round(seconds, -1)):.0f} s"
