"""Take a method apart: what is each of its parts worth, from base to new classes?

    python scripts/ablation.py AttriPrompt shapes [KEY VALUE ...] [--seeds 1 2 3] [--only full "1 cluster"] [--fresh]

Every variant and seed is one run of scripts/base2new.py, side by side and one thread each. What is finished is kept: a
second call shows the table at once, an interrupted one goes on. Settings come from the environment as for base2new.py
(DATA, BACKBONE, SHOTS, OUTPUT; EPOCHS has a default here); KEY VALUE pairs are added to every variant. The table is
written to OUTPUT/ablation/<method>_<data set>.{txt,csv,json}.
"""

import argparse
import csv
import json
import os
import re

import numpy as np
from tabulate import tabulate

from ..record import folder as run_folder
from ..running.base2new import CHECKOUT
from ..running.budget import Method, check_environment
from ..running.comparison import Comparison
from ..running.runner import carry_out

SEEDS = (1, 2, 3)
# Name of each variant: what it changes; "full" is the method as its yaml has it (K 4, M 32, n 1; 5 centres).
VARIANTS = {
    "AttriPrompt": {
        "full": {},
        "without dual stream": {"ALPHA": 0.0},
        "without self-regularisation": {"LAMBDA": 0.0},
        "without retrieval": {"RETRIEVAL": False},
        "without retrieval, 8 prompts": {"RETRIEVAL": False, "TOP_K": 2},  # as many tokens as "2 prompts per centroid"
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
EPOCHS = {"AttriPrompt": 4, "TAC": 4}


def main(argv=None) -> list:
    """Run what is missing, print and write the table; return its rows."""
    args = parse_args(argv)
    variants = {name: comparison(args, name) for name in args.only or VARIANTS[args.method]}
    runs = [(name, seed) for seed in args.seeds for name in variants]  # a whole table of the first seed comes first
    print(
        f"{args.method} on {args.dataset}: {len(variants)} variants, seeds {', '.join(map(str, args.seeds))}.",
        flush=True,
    )
    planned = [variants[name].planned(variants[name].methods[0], seed, f"{args.method} {name}") for name, seed in runs]
    if carry_out(planned, args.fresh, next(iter(variants.values())).command):
        raise SystemExit(1)
    records = [read(variants[name], args.method, name, seed) for name, seed in runs]
    rows = [row(name, [r for r in records if r["variant"] == name]) for name in variants]
    if "full" in variants:
        for each in rows:
            each["to full"] = each["HM"] - rows[list(variants).index("full")]["HM"]
    write(next(iter(variants.values())).output.parent.with_name(f"{args.method}_{args.dataset}"), args, rows, records)
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
    check_environment(parser)
    unknown = [name for name in args.only or [] if name not in VARIANTS[args.method]]
    if unknown:
        parser.error(
            f"{args.method} has no variant {', '.join(map(repr, unknown))}; there are {', '.join(VARIANTS[args.method])}"
        )
    if not (CHECKOUT / "configs" / "datasets" / f"{args.dataset}.yaml").is_file():
        there = sorted(path.stem for path in (CHECKOUT / "configs" / "datasets").glob("*.yaml"))
        parser.error(f"no data set {args.dataset!r}; there are {', '.join(there)}")
    return args


def comparison(args, variant: str) -> Comparison:
    """Return what runs one variant: a comparison of one method, in a folder of its own."""
    changes = {"PREC": "fp32", **VARIANTS[args.method][variant]}
    settings = [word for key, value in changes.items() for word in (f"TRAINER.{args.method.upper()}.{key}", str(value))]
    method = Method(args.method, int(os.environ.get("EPOCHS") or EPOCHS[args.method]), 60, (*settings, *args.pairs))
    slug = re.sub(r"\W+", "_", variant)
    return Comparison(
        f"ablation/{args.method}/{slug}",
        args.dataset,
        int(os.environ.get("SHOTS") or 16),
        tuple(args.seeds),
        (method,),
        "",
        f"bash scripts/{args.method.lower()}/ablation.sh {args.dataset}",
    )


def read(variant: Comparison, method: str, name: str, seed: int) -> dict:
    """Return the numbers of a finished run."""
    record = variant.read_record(method, seed)
    found = {
        "variant": name,
        "seed": seed,
        "base": record["base"],
        "new": record["new"],
        "HM": record["hm"],
        "seconds": record["seconds"],
    }
    usage = run_folder.read_result(variant.places(method, seed)[0]).get("retrieval", {}).get("train")
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


def write(path, args, rows: list, records: list):
    """Print the table; write it as text, CSV and JSON."""
    retrieval = any("used" in each for each in rows)
    headers = [
        "variant",
        "base",
        "new",
        "HM",
        *["to full"] * ("to full" in rows[0]),
        *["prompts used", "top share"] * retrieval,
        "seconds",
    ]
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
    text += (
        "; prompts used: share of all pools' prompts chosen in the last epoch;\ntop share: of the most used prompt of the layer "
        "where it is largest" * retrieval
    ) + "."
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")
    with open(path.with_suffix(".csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(key for each in rows for key in each)))
        writer.writeheader()
        writer.writerows(rows)
    content = {
        "method": args.method,
        "dataset": args.dataset,
        "seeds": args.seeds,
        "changes": VARIANTS[args.method],
        "table": rows,
        "runs": records,
    }
    path.with_suffix(".json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    print(f"\n{text}\nWritten: {path}.txt, .csv, .json")


if __name__ == "__main__":
    main()
