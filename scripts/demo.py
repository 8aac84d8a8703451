"""Compare ZeroshotCLIP, CoOp and TAC from base to new classes on the embedded data, with the embedded CLIP.

Runs 3 methods x 3 seeds, 16 shots, each by scripts/base2new.py in a process of its own, and prints one table. What is finished is kept: a
second call shows the same numbers at once, an interrupted one goes on; --fresh runs all of it again.

The processes run side by side, one thread each: with models this small that is faster than several threads a run, and the numbers do not depend
on how many cores there are.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from base2new import CHECKOUT, default_output, folders, harmonic_mean
from tabulate import tabulate

from clusterprompt import dassl_compat, registration, run_folder

DATASET = "shapes"
SHOTS = 16
SEEDS = (1, 2, 3)
# Method, epochs (None: it learns nothing), seconds that a run takes on one core (a first guess, corrected as the demo goes).
METHODS = (("ZeroshotCLIP", None, 20), ("CoOp", 20, 60), ("TAC", 10, 110))
# Small pictures are read faster than worker processes start; fp32 gives the same numbers whatever the CPU can do with bf16.
SETTINGS = ("DATALOADER.NUM_WORKERS", "0")
MOST_JOBS = 4  # about a GB each
COLUMNS = ("trainer", "base", "new", "HM", "seconds", "peak MB")


def main(argv=None):
    """Run what is missing, print the table, write it as CSV and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fresh", action="store_true", help="run everything again")
    args = parser.parse_args(argv)
    output = Path(environment()["OUTPUT"])
    runs = [(trainer, epochs, guess, seed) for trainer, epochs, guess in METHODS for seed in SEEDS]
    todo = [run for run in runs if args.fresh or not is_finished(run[0], run[3])]
    print(
        f"Base-to-new on the embedded data set '{DATASET}': {', '.join(name for name, _, _ in METHODS)}; {SHOTS} shots, "
        f"seeds {', '.join(map(str, SEEDS))}."
    )
    if len(todo) < len(runs):
        print(f"{len(runs) - len(todo)} of {len(runs)} runs are finished already and kept; --fresh runs them again.")
    if todo:
        run_all(todo, args.fresh, output)

    records = [read_record(trainer, seed) for trainer, _, _, seed in runs]
    rows = [summary(trainer, [r for r in records if r["trainer"] == trainer]) for trainer, _, _ in METHODS]
    print("\n" + tabulate([[shown(row[column]) for column in COLUMNS] for row in rows], headers=COLUMNS, disable_numparse=True))
    print(
        f"\nAccuracy in %, mean +- standard deviation over {len(SEEDS)} seeds; HM is the harmonic mean of base and new. The data are a small drawn world "
        "\nand the CLIP a small one trained on it: the numbers show that the methods work as they should, and compare with no published ones."
    )
    write(output, rows, records)


def run_all(todo, fresh: bool, output: Path):
    """Run methods and seeds side by side, and say what is done and how long the rest will take."""
    draw_data()
    jobs = max(1, min(len(todo), available_cores(), MOST_JOBS))
    guess = {(trainer, seed): seconds for trainer, _, seconds, seed in todo}
    print(f"{len(todo)} runs, {jobs} at a time, about {minutes(sum(guess.values()) / jobs)}. Their logs: {output}")
    began, left, done = time.time(), dict(guess), 0
    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(run_one, trainer, epochs, seed, fresh): (trainer, seed) for trainer, epochs, _, seed in todo}
        try:
            for future in as_completed(waiting):
                trainer, seed = waiting[future]
                error = future.result()
                if error:
                    fail(trainer, seed, error, output)
                done += 1
                left.pop((trainer, seed))
                pace = (time.time() - began) / (sum(guess.values()) - sum(left.values()))
                record = read_record(trainer, seed)
                numbers = f"base {record['base']:.1f}, new {record['new']:.1f}, HM {record['hm']:.1f}"
                rest = f"; {minutes(pace * sum(left.values()))} to go" if left else ""
                print(f"  [{done}/{len(todo)}] {trainer}, seed {seed}: {numbers}{rest}", flush=True)
        except KeyboardInterrupt:
            print("\ninterrupted; the same command goes on from here", file=sys.stderr)
            raise SystemExit(130) from None
        finally:
            pool.shutdown(cancel_futures=True)


def draw_data():
    """Let the data set write itself before several processes would do so at once."""
    dassl_compat.prepare()
    from dassl.config import get_cfg_default

    from clusterprompt.datasets.shapes import Shapes

    registration.speak_through_stdout()
    cfg = get_cfg_default()
    cfg.DATASET.ROOT, cfg.VERBOSE = os.environ.get("DATA") or str(CHECKOUT / "data"), False
    Shapes(cfg)


def run_one(trainer, epochs, seed, fresh) -> str:
    """Run one method and seed in a process of its own; return what it said on stderr if it failed, else nothing."""
    command = [sys.executable, str(CHECKOUT / "scripts" / "base2new.py"), "--trainer", trainer, "--dataset", DATASET, "--seed", str(seed)]
    command += ["--overwrite" if fresh else "--resume", *SETTINGS, f"TRAINER.{trainer.upper()}.PREC", "fp32"]
    ended = subprocess.run(command, env=environment(EPOCHS=str(epochs or "")), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return (ended.stderr.strip() or f"it ended with code {ended.returncode}") if ended.returncode else ""


def fail(trainer, seed, error: str, output: Path):
    """Show why a run failed, and end."""
    print(f"{trainer}, seed {seed} failed:\n{error[-3000:]}", file=sys.stderr)
    if "other settings" in error:
        print(f"The runs in {output} are of another version of the demo: bash scripts/demo.sh --fresh runs it again.", file=sys.stderr)
    raise SystemExit(1)


def environment(**more) -> dict:
    """Return the environment of the runs: the demo's own settings count, not those that happen to be set for other scripts."""
    output = Path(os.environ.get("OUTPUT") or default_output()) / "demo"
    own = {"OUTPUT": str(output), "SHOTS": str(SHOTS), "CFG": "basetonovel", "BACKBONE": "tiny", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return {**os.environ, **own, **more}


def available_cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_finished(trainer, seed) -> bool:
    """Tell whether both halves of a run are finished."""
    return all(run_folder.state(folder) == "finished" for folder in folders(trainer, DATASET, seed, environment()))


def read_record(trainer, seed) -> dict:
    """Return the numbers of one method and seed."""
    base, new = (run_folder.read_result(folder) for folder in folders(trainer, DATASET, seed, environment()))
    return {
        "trainer": trainer,
        "seed": seed,
        "base": base["accuracy"],
        "new": new["accuracy"],
        "hm": harmonic_mean(base["accuracy"], new["accuracy"]),
        "seconds": sum(base["seconds"].values()) + sum(new["seconds"].values()),
        "peak_memory_mb": max(base["peak_memory_mb"], new["peak_memory_mb"]),
        "fewshot_digest": base["fewshot_digest"],
    }


def summary(trainer, records) -> dict:
    """Return a row of the table: (mean, standard deviation) of the accuracies, means of time and memory."""
    row = {"trainer": trainer}
    for column, key in (("base", "base"), ("new", "new"), ("HM", "hm")):
        values = [record[key] for record in records]
        row[column] = (float(np.mean(values)), float(np.std(values)))
    row["seconds"] = float(np.mean([record["seconds"] for record in records]))
    row["peak MB"] = max(record["peak_memory_mb"] for record in records)
    return row


def shown(value) -> str:
    """Write a cell of the table."""
    if isinstance(value, tuple):
        return f"{value[0]:.1f} +- {value[1]:.1f}"
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def write(output: Path, rows, records):
    """Write the table as CSV and JSON."""
    flat = []
    for row in rows:
        flat.append({"trainer": row["trainer"]})
        for column in ("base", "new", "HM"):
            flat[-1][f"{column}_mean"], flat[-1][f"{column}_std"] = row[column]
        flat[-1].update(seconds=row["seconds"], peak_memory_mb=row["peak MB"])
    with open(output / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(flat[0]))
        writer.writeheader()
        writer.writerows(flat)
    text = json.dumps({"dataset": DATASET, "shots": SHOTS, "seeds": SEEDS, "table": flat, "runs": records}, indent=2)
    (output / "table.json").write_text(text, encoding="utf-8")
    print(f"Written: {output / 'table.csv'}, {output / 'table.json'}")


def minutes(seconds: float) -> str:
    """Write a duration in words."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(10, round(seconds, -1)):.0f} s"


if __name__ == "__main__":
    main()
