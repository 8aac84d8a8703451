"""Measure what each part of a method is worth, from base to new classes.

    clusterprompt ablation AttriPrompt shapes [--seeds 1 2 3] [--only full "1 cluster"] [--overwrite] [KEY VALUE ...]

Every variant and seed is a separate run. Finished runs are kept: a second call shows the table at once, an interrupted
one goes on. Settings come from the environment as for `clusterprompt base2new` (DATA, BACKBONE, SHOTS, OUTPUT; EPOCHS
has a default here); KEY VALUE pairs are added to every variant. The table is written to
OUTPUT/ablation/<method>_<data set>.{txt,csv,json}.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import add_output, add_overwrite, add_seeds, parser_for, run_with_pairs, seeds_label

if TYPE_CHECKING:
    from ..results.tables import Table

# Name of each variant: the settings it changes; "full" is the method as its yaml has it (K 4, M 32, n 1; 5 centres).
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
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
EPOCHS = 4
COLUMNS = ("base", "new", "HM")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = parser_for("ablation", __doc__)
    parser.add_argument("trainer", choices=VARIANTS, help="method to take apart")
    parser.add_argument("dataset", help="name of a yaml in configs/datasets, or the path of your own")
    add_seeds(parser)
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="some variants by name; default: all")
    add_output(parser)
    add_overwrite(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return the exit code."""
    return run_with_pairs(argv, build_parser(), run)


def run(args: argparse.Namespace, pairs: Sequence[str]) -> int:
    """Run what is missing, print and write the table; return the exit code."""
    from ..record.names import dataset_label
    from ..running.spec import check_dataset, output_root
    from ..running.sweep import carry_out
    from .tables import tables_of

    check_dataset(args.dataset)
    known = VARIANTS[args.trainer]
    unknown = [name for name in args.only or [] if name not in known]
    if unknown:
        raise ValueError(f"{args.trainer} has no variant {', '.join(map(repr, unknown))}; there are {', '.join(known)}")
    variants = list(dict.fromkeys(args.only or known))
    print(
        f"{args.trainer} on {args.dataset}: {len(variants)} variants, seeds {', '.join(map(str, args.seeds))}.",
        flush=True,
    )
    folder = Path(output_root(args.output), "ablation")
    jobs = {name: jobs_of(args, name, folder, pairs) for name in variants}
    # A whole table of the first seed comes first.
    if carry_out([job for of_seed in zip(*jobs.values()) for job in of_seed], overwrite=args.overwrite):
        return 1
    (table,) = tables_of(str(folder / args.trainer), [job for own in jobs.values() for job in own])
    write(table, args, variants, folder / f"{args.trainer}_{dataset_label(args.dataset)}")
    return 0


def jobs_of(args: argparse.Namespace, variant: str, folder: Path, pairs: Sequence[str]) -> list:
    """Return the jobs of one variant, a seed each, in a folder of its own."""
    from dataclasses import replace

    from ..record.protocols import SHOTS, Request, all_protocols
    from ..running.budget import Method
    from ..running.plan import plan
    from ..running.spec import Environment

    environment = Environment.read()
    changes = {"PREC": "fp32", **VARIANTS[args.trainer][variant]}
    settings = [
        word for key, value in changes.items() for word in (f"TRAINER.{args.trainer.upper()}.{key}", str(value))
    ]
    jobs = plan(
        all_protocols()["base2new"],
        Request(args.dataset, environment.shots or SHOTS),
        [Method(args.trainer, environment.epochs or EPOCHS, 60, tuple(settings))],
        args.seeds,
        output=str(folder / args.trainer / slug(variant)),
        pairs=pairs,
    )
    return [replace(job, name=f"{args.trainer} {variant}, seed {seed}") for job, seed in zip(jobs, args.seeds)]


def slug(variant: str) -> str:
    """Return the folder name of a variant."""
    return re.sub(r"\W+", "_", variant)


def write(table: Table, args: argparse.Namespace, variants: Sequence[str], stem: Path) -> None:
    """Print the table; write it as text, CSV and JSON."""
    from tabulate import tabulate

    from ..record.files import write_text
    from ..results import formats
    from ..results.notes import different_texts

    names = {slug(name): name for name in variants}
    table.rows.sort(key=lambda row: list(names).index(row.method.folder))
    facts = [*["prompts used", "top share"] * (args.trainer == "AttriPrompt"), "seconds"]
    headers, rows = formats.compact(table, COLUMNS, facts, seeds=args.seeds, label=lambda row: names[row.method.folder])
    flat = [
        {"variant": names[row.method.folder], **numbers}
        for row, numbers in zip(table.rows, formats.flat(table, COLUMNS, facts))
    ]
    full = next((row.cells["HM"].mean for row in table.rows if names[row.method.folder] == "full"), None)
    if full is not None:
        headers.insert(4, "to full")
        for row, line, numbers in zip(table.rows, rows, flat):
            numbers["to_full"] = row.cells["HM"].mean - full
            line.insert(4, f"{numbers['to_full']:+.1f}")
    text = tabulate(rows, headers=["variant", *headers[1:]], disable_numparse=True)
    text = "\n\n".join([text, *different_texts(table.runs)])
    text += f"\n\n{caption(args, full is not None, 'prompts used' in facts)}"
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_text(f"{stem}.txt", text + "\n")
    write_text(f"{stem}.csv", formats.csv_of(list(dict.fromkeys(key for line in flat for key in line)), flat))
    content = {
        "method": args.trainer,
        "dataset": args.dataset,
        "seeds": list(args.seeds),
        "changes": {name: VARIANTS[args.trainer][name] for name in variants},
        "table": flat,
    }
    write_text(f"{stem}.json", json.dumps(content, indent=2))
    print(f"\n{text}\nWritten: {stem}.txt, .csv, .json")


def caption(args: argparse.Namespace, to_full: bool, retrieval: bool) -> str:
    """Explain the columns."""
    return (
        f"{args.trainer} on {args.dataset}: accuracy in %, mean +- standard deviation over {seeds_label(args.seeds)}; "
        "HM: harmonic mean of the means"
        + ";\nto full: its difference to the whole method's" * to_full
        + (
            "; prompts used: share of all pools' prompts chosen in the last epoch;\ntop share: of the most used prompt "
            "of the layer where it is largest"
        )
        * retrieval
        + "."
    )


if __name__ == "__main__":
    sys.exit(main())
