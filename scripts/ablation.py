"""Take a method apart: what is each of its parts worth, from base to new classes?

    python scripts/ablation.py AttriPrompt shapes [KEY VALUE ...] [--seeds 1 2 3] [--only full "1 cluster"] [--fresh]

Every variant and seed is one run of scripts/base2new.py, side by side and one thread each. What is finished is kept: a second call shows
the table at once, an interrupted one goes on. Settings come from the environment as for base2new.py (DATA, BACKBONE, SHOTS, CFG, OUTPUT;
EPOCHS has a default here); KEY VALUE pairs are added to every variant. The table is written to
OUTPUT/ablation/<method>_<data set>.{txt,csv,json}.
"""

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from base2new import CHECKOUT, EMBEDDED, default_output, folders, harmonic_mean
from clusterprompt import run_folder
from comparison import available_cores, draw_data, minutes
from tabulate import tabulate

SEEDS = (1, 2, 3)
# Name of each variant: what it changes; "full" is the method as its yaml has it (K 4, M 32, n 1; 5 centres).
VARIANTS = {
    "AttriPrompt": {
        "full": {},
        "without dual stream": {"ALPHA": 0.0},
        "without self-regularisation": {"LAMBDA": 0.0},
        "without retrieval": {"RETRIEVAL": False},
        "1 cluster": {"N_CLUSTERS": 1},
        "2 clusters": {"N_CLUSTERS": 2},
        "8 clusters": {"N_CLUSTERS": 8},
        "2 prompts per centroid": {"TOP_K": 2},
        "4 prompts per centroid": {"TOP_K": 4},
        "pool of 8": {"POOL_SIZE": 8},
        "pool of 16": {"POOL_SIZE": 16},
        "pool of 64": {"POOL_SIZE": 64},
    },
    "TAC": {
        "full": {},
        "without pre-context": {"PRECONTEXT": "none"},
        "without mask": {"MASK": False},
        "text only": {"PRECONTEXT": "text"},
        "vision only": {"PRECONTEXT": "vision"},
        **{f"{k} centre{'s' * (k > 1)}": {"N_CENTERS": k} for k in (1, 2, 3, 4, 6, 7, 8, 9, 10)},
    },
}
EPOCHS = {"AttriPrompt": 5, "TAC": 5}
MOST_JOBS = 4  # about a GB each


def main(argv=None) -> list:
    """Run what is missing, print and write the table; return its rows."""
    args = parse_args(argv)
    variants = {name: VARIANTS[args.method][name] for name in args.only or VARIANTS[args.method]}
    top = Path(os.environ.get("OUTPUT") or default_output()) / "ablation"
    runs = {(name, seed): places(top, args, name, seed) for name in variants for seed in args.seeds}
    todo = [run for run, halves in runs.items() if args.fresh or not all(run_folder.state(half) == "finished" for half in halves)]
    print(f"{args.method} on {args.dataset}: {len(variants)} variants, seeds {', '.join(map(str, args.seeds))}; "
          f"{len(runs) - len(todo)} of {len(runs)} runs are finished already")
    if todo:
        run_all(todo, args, top)
    records = [{"variant": name, "seed": seed, **read(halves)} for (name, seed), halves in runs.items()]
    rows = [row(name, [r for r in records if r["variant"] == name]) for name in variants]
    if "full" in variants:
        for each in rows:
            each["to full"] = each["HM"] - rows[list(variants).index("full")]["HM"]
    write(top / f"{args.method}_{args.dataset}", args, rows, records)
    return rows


def parse_args(argv):
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=VARIANTS)
    parser.add_argument("dataset", help="name of a yaml in configs/datasets")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="some variants by name; default all")
    parser.add_argument("--fresh", action="store_true", help="run everything again")
    args, args.pairs = parser.parse_known_args(argv)
    unknown = [name for name in args.only or [] if name not in VARIANTS[args.method]]
    if unknown:
        parser.error(f"{args.method} has no variant {', '.join(map(repr, unknown))}; there are {', '.join(VARIANTS[args.method])}")
    if not (CHECKOUT / "configs" / "datasets" / f"{args.dataset}.yaml").is_file():
        there = sorted(path.stem for path in (CHECKOUT / "configs" / "datasets").glob("*.yaml"))
        parser.error(f"no data set {args.dataset!r}; there are {', '.join(there)}")
    return args


def output_of(top: Path, args, variant: str) -> str:
    """Return the folder that a variant's runs know as OUTPUT."""
    return str(top / args.method / re.sub(r"\W+", "_", variant))


def places(top: Path, args, variant: str, seed: int) -> tuple:
    """Return the folders of the two halves of a run."""
    before = os.environ.get("OUTPUT")
    os.environ["OUTPUT"] = output_of(top, args, variant)
    try:
        return folders(args.method, args.dataset, seed)
    finally:
        os.environ.pop("OUTPUT")
        if before is not None:
            os.environ["OUTPUT"] = before


def run_all(todo: list, args, top: Path):
    """Run variants and seeds side by side, and say what is done and how long the rest will take."""
    if args.dataset.startswith(EMBEDDED):
        draw_data()  # once, before several processes would
    jobs = max(1, min(len(todo), available_cores(), MOST_JOBS))
    print(f"{len(todo)} runs, {jobs} at a time; their logs: {top / args.method}", flush=True)
    began = time.time()
    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(run_one, args, top, *run): run for run in todo}
        for done, future in enumerate(as_completed(waiting), start=1):
            name, seed = waiting[future]
            if future.result():
                pool.shutdown(cancel_futures=True)
                print(f"{name}, seed {seed} failed:\n{future.result()[-3000:]}", file=sys.stderr)
                if "other settings" in future.result():
                    print("Runs with other settings lie there; --fresh replaces them.", file=sys.stderr)
                raise SystemExit(1)
            found = read(places(top, args, name, seed))
            rest = (time.time() - began) / done * (len(todo) - done)
            print(f"  [{done}/{len(todo)}] {name}, seed {seed}: base {found['base']:.1f}, new {found['new']:.1f}, HM {found['HM']:.1f}"
                  + (f"; about {minutes(rest)} to go" if rest else ""), flush=True)


def run_one(args, top: Path, variant: str, seed: int) -> str:
    """Run one variant and seed in a process of its own; return what it said on stderr if it failed, else nothing."""
    node = f"TRAINER.{args.method.upper()}"
    changes = {"PREC": "fp32", **VARIANTS[args.method][variant]}
    command = [sys.executable, str(CHECKOUT / "scripts" / "base2new.py"), "--trainer", args.method, "--dataset", args.dataset,
               "--seed", str(seed), "--overwrite" if args.fresh else "--resume", "DATALOADER.NUM_WORKERS", "0"]
    command += [word for key, value in changes.items() for word in (f"{node}.{key}", str(value))] + args.pairs
    environment = {**os.environ, "OUTPUT": output_of(top, args, variant), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
                   "EPOCHS": os.environ.get("EPOCHS") or str(EPOCHS[args.method])}
    ended = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return (ended.stderr.strip() or f"it ended with code {ended.returncode}") if ended.returncode else ""


def read(halves: tuple) -> dict:
    """Return the numbers of a finished run."""
    base, new = map(run_folder.read_result, halves)
    found = {"base": base["accuracy"], "new": new["accuracy"], "HM": harmonic_mean(base["accuracy"], new["accuracy"]),
             "seconds": sum(base["seconds"].values()) + sum(new["seconds"].values())}
    usage = base.get("retrieval", {}).get("train")
    if usage:
        found["used"] = sum(usage["used"]) / (len(usage["used"]) * usage["pool_size"])
        found["top share"] = max(usage["top_share"])
    return found


def row(variant: str, records: list) -> dict:
    """Return a row of the table: means over the seeds, standard deviations of the accuracies."""
    out = {"variant": variant, "seeds": len(records)}
    for key in ("base", "new", "HM"):
        values = [record[key] for record in records]
        out[key], out[f"{key} std"] = float(np.mean(values)), float(np.std(values))
    for key in ("used", "top share", "seconds"):
        if key in records[0]:
            out[key] = float(np.mean([record[key] for record in records]))
    return out


def write(path: Path, args, rows: list, records: list):
    """Print the table; write it as text, CSV and JSON."""
    retrieval = any("used" in each for each in rows)
    headers = ["variant", "base", "new", "HM", *["to full"] * ("to full" in rows[0]), *["prompts used", "top share"] * retrieval, "seconds"]
    lines = []
    for each in rows:
        cells = [each["variant"]] + [f"{each[key]:.1f} +- {each[f'{key} std']:.1f}" for key in ("base", "new", "HM")]
        cells += [f"{each['to full']:+.1f}"] * ("to full" in each)
        cells += [f"{100 * each[key]:.0f}%" if key in each else "-" for key in ("used", "top share")] * retrieval
        lines.append([*cells, f"{each['seconds']:.0f}"])
    text = tabulate(lines, headers=headers, disable_numparse=True)
    seeds = f"{len(args.seeds)} seed{'s' * (len(args.seeds) > 1)}"
    text += f"\n\n{args.method} on {args.dataset}: accuracy in %, mean +- standard deviation over {seeds}; HM: their harmonic mean"
    text += ";\nto full: its difference to the whole method's" * ("to full" in rows[0])
    text += ("; prompts used: share of all pools' prompts chosen in the last epoch;\ntop share: of the most used prompt of the layer "
             "where it is largest" * retrieval) + "."
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")
    with open(path.with_suffix(".csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(key for each in rows for key in each)))
        writer.writeheader()
        writer.writerows(rows)
    content = {"method": args.method, "dataset": args.dataset, "seeds": args.seeds, "changes": VARIANTS[args.method], "table": rows,
               "runs": records}
    path.with_suffix(".json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    print(f"\n{text}\nWritten: {path}.txt, .csv, .json")


if __name__ == "__main__":
    main()
