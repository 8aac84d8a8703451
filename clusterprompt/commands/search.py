"""Choose a method's settings by validation images, from base to new classes.

    clusterprompt search --trainers AttriPrompt --grid TOP_K=1,2,4 N_CLUSTERS=4,8
    clusterprompt search --trainers TAC CoOp --grid OPTIM.LR=0.001,0.0025,0.01 --datasets dtd eurosat --seeds 1 2 3
    clusterprompt search --trainers AttriPrompt --grid TOP_K=1,2,4 LAMBDA=0,2.5,10,25 ALPHA=0,1 --trials 12

A cell of the grid is a base-to-new run for each data set and seed. Its score is HM: the harmonic mean of the accuracies
on the validation images of the base classes and of the held-out ones. No test image is looked at. So that no new class
of a table is either, choose by data sets that are in no table of yours: by default the drawn sets shapes_select, of
12 base classes, and shapes_select_few, of 6.

Cells are all combinations, or with --one-at-a-time each value alone; with --trials Optuna picks that many cells
(pip install "clusterprompt[search]"). Finished runs are kept: the same command goes on where it stopped, and a wider
grid runs only what is new. Settings come from the environment as for `clusterprompt run`; KEY VALUE pairs are for all
cells. Everything is below OUTPUT/search, the table in table.{txt,csv,json}.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..record.protocols import SHOTS
from .options import add_output, add_overwrite, add_seeds, add_trainers, parser_for, run_with_pairs, seeds_label

if TYPE_CHECKING:
    from ..running.search import Cell, Score, Search

SELECTION = ("shapes_select", "shapes_select_few")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = parser_for("search", __doc__)
    add = parser.add_argument
    add_trainers(parser, required=True)
    add(
        "--grid",
        nargs="+",
        required=True,
        metavar="KEY=VALUES",
        help="values by key, separated by commas: an option of the method (TOP_K=1,2) or a key (OPTIM.LR=0.001,0.002)",
    )
    add(
        "--datasets",
        nargs="+",
        metavar="NAME",
        default=list(SELECTION),
        help=f"what the settings are chosen by; needs validation images; default: {' '.join(SELECTION)}",
    )
    add("--one-at-a-time", action="store_true", help="change one key at a time instead of all combinations")
    add("--trials", type=int, metavar="N", help="let Optuna choose N cells for each method")
    add_seeds(parser)
    add("--shots", type=int, metavar="N", help="training images a class; default: the environment's SHOTS, else 16")
    add("--jobs", type=int, default=0, metavar="N", help="runs at a time; default: one a core (at most 4) or GPU")
    add_output(parser)
    add_overwrite(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return the exit code."""
    return run_with_pairs(argv, build_parser(), run)


def run(args: argparse.Namespace, pairs: Sequence[str]) -> int:
    """Run what is missing, print and write the table; return the exit code."""
    from ..running.engine import LocalEngine
    from ..running.search import sample
    from ..running.sweep import carry_out

    search = search_of(args, pairs)
    failed = []

    def run_cells(cells: Sequence[Cell]) -> None:
        jobs = [job for cell in cells for job in search.jobs(cell)]
        jobs.sort(key=lambda job: search.seeds.index(job.specs[0].seed))  # a whole table of the first seed comes first
        failed.extend(carry_out(jobs, overwrite=args.overwrite, engine=LocalEngine(args.jobs)))

    if args.trials:
        cells = sample(search, args.trials, at_once(args, search), run_cells)
    else:
        cells = search.cells(args.one_at_a_time)
        print(f"{len(cells)} cells on {', '.join(search.datasets)}, {seeds_label(search.seeds)}.", flush=True)
        run_cells(cells)
    write(search, cells)
    return 1 if failed else 0


def search_of(args: argparse.Namespace, pairs: Sequence[str]) -> Search:
    """Return the parsed command line as a value.

    Raises:
        ValueError: A name, a number or a setting is not allowed.
    """
    from ..running.budget import chosen_trainers
    from ..running.search import Search, read_grid
    from ..running.spec import Environment, check_dataset, output_root

    shots = args.shots or Environment.read().shots or SHOTS
    if shots < 1 or args.jobs < 0 or (args.trials is not None and args.trials < 1):
        raise ValueError("--shots and --trials take numbers from 1 on, and --jobs from 0 on")
    if args.trials and args.one_at_a_time:
        raise ValueError("--trials and --one-at-a-time are two ways to choose cells; give one of them")
    for name in args.datasets:
        check_dataset(name)
    return Search(
        trainers=chosen_trainers(args.trainers),
        datasets=list(dict.fromkeys(args.datasets)),
        grid=read_grid(args.grid),
        seeds=list(dict.fromkeys(args.seeds)),
        shots=shots,
        output=str(Path(output_root(args.output), "search")),
        pairs=tuple(pairs),
    )


def at_once(args: argparse.Namespace, search: Search) -> int:
    """Return how many cells Optuna chooses together: as many as keep the machine busy."""
    from ..running.machine import default_jobs
    from ..running.spec import is_drawn

    runs = len(search.seeds) * len(search.datasets)
    return max(1, (args.jobs or default_jobs(all(map(is_drawn, search.datasets)))) // runs)


# ------------------------------------------------------------------ table
def write(search: Search, cells: Sequence[Cell]) -> None:
    """Print the table of the finished cells, the best first; write it as text, CSV and JSON."""
    from tabulate import tabulate

    from ..record.files import write_text
    from ..results import formats

    scores = {cell: score for cell in cells if (score := search.score(cell)) is not None}
    if not scores:
        print("\nNo cell is finished.")
        return
    ranked = sorted(scores, key=lambda cell: -scores[cell].value)
    usual = {cell.trainer: scores[cell].value for cell in scores if not cell.changes}
    rows = [_row(search, cell, scores[cell], usual.get(cell.trainer)) for cell in ranked]
    text = tabulate([list(row.values()) for row in rows], headers=list(rows[0]), disable_numparse=True)
    text += (
        f"\n\nAccuracy on validation images in %, mean +- standard deviation over {seeds_label(search.seeds)}; HM: "
        "harmonic mean of the means;\nto configured: its difference to the method's yaml. Smaller differences than the "
        "deviations say nothing."
    )
    for trainer in search.trainers:
        best = next((cell for cell in ranked if cell.trainer is trainer), None)
        if best is not None:
            text += f"\nBest of {trainer.__name__}: {shlex.join(best.pairs) or 'as configured'}"
    stem = Path(search.output, "table")
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_text(stem.with_suffix(".txt"), text + "\n")
    flat = [_flat(search, cell, scores[cell]) for cell in ranked]
    write_text(stem.with_suffix(".csv"), formats.csv_of(list(flat[0]), flat))
    content = {"datasets": search.datasets, "seeds": search.seeds, "grid": search.grid, "table": flat}
    write_text(stem.with_suffix(".json"), json.dumps(content, indent=2))
    print(f"\n{text}\nWritten: {stem}.txt, .csv, .json")


def _row(search: Search, cell: Cell, score: Score, usual: float | None) -> dict[str, str]:
    """Return a line of the printed table."""
    row = {"trainer": cell.trainer.__name__, "settings": cell.name}
    several = len(search.datasets) > 1
    for dataset in search.datasets:
        for name in ("base", "new", "HM"):
            mean, spread = score.of(dataset)[name]
            row[f"{dataset} {name}" if several else name] = f"{mean:.1f} +- {spread or 0:.1f}"
    if several:
        row["mean HM"] = f"{score.value:.1f} +- {score.spread or 0:.1f}"
    row["to configured"] = "" if usual is None else f"{score.value - usual:+.1f}"
    return row


def _flat(search: Search, cell: Cell, score: Score) -> dict[str, Any]:
    """Return a line of the files, with unrounded numbers."""
    line: dict[str, Any] = {"trainer": cell.trainer.__name__, "settings": cell.name, "HM": score.value}
    for dataset in search.datasets:
        for name in ("base", "new", "HM"):
            mean, spread = score.of(dataset)[name]
            line |= {f"{dataset}_{name}_mean": mean, f"{dataset}_{name}_std": spread or 0.0}
    return line


if __name__ == "__main__":
    sys.exit(main())
