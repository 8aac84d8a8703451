"""The tables of the papers, from runs: per protocol and data set, with averages over data sets and the published
values.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from statistics import fmean, harmonic_mean
from typing import NamedTuple, Optional

import numpy as np
from scipy.special import stdtrit  # Student's t; scipy.stats takes seconds to import

from ..record import protocols
from ..record.folder import is_older
from .runs import TRANSFER, Method, differing_settings, is_embedded, key, span

TITLES = {
    "base2new": "Base to new",
    "cross_dataset": "Cross-data-set transfer",
    "domain_generalisation": "Domain generalisation",
    "few_shot": "Few-shot",
}
INTERVALS = {
    "std": "± is the standard deviation over seeds, divided by n (population, ddof 0), as this field prints it.",
    "ci95": "± is half the 95 % interval of the mean over seeds (Student's t with n - 1 degrees of freedom; sample standard deviation, ddof 1).",
}
CONVENTIONS = {
    "base2new": "HM is the harmonic mean of the mean base and the mean new accuracy, over seeds and over data sets, as in the papers; its ± is that of the "
    "single seeds' HMs. 'mean of HMs' is the other convention: the mean of the seeds' HMs, and on average over data sets the mean of their HMs.",
    "cross_dataset": "The average is over the targets, without the source.",
    "domain_generalisation": "The average is over the targets, without the source.",
    "few_shot": "Accuracy on all classes by training images a class.",
}
EMBEDDED = "This is the embedded data or the embedded model, a small synthetic world: there are no published values, and none compares."


class Cell(NamedTuple):
    """A number of a table, in percent: mean over seeds, its spread (None where one seed leaves none), and the published
    value.
    """

    mean: float
    spread: Optional[float] = None
    published: Optional[float] = None


@dataclass
class Row:
    """One method.

    Attributes:
        seeds: As shown; "uneven" if the columns are of different seeds.
        cells: By column; a column without one has no result.
        printed: Published results of the row.
    """

    method: Method
    seeds: str
    cells: dict
    printed: list = field(default_factory=list)


@dataclass
class Table:
    """One table.

    Attributes:
        data: The data set, the source of a transfer, or "average".
        runs: What it was made of.
    """

    protocol: str
    data: str
    columns: list
    rows: list
    runs: list
    notes: list

    @property
    def title(self) -> str:
        """Say what the table is of, with what all rows share."""
        where = {"average": "average over data sets"}.get(
            self.data, f"{'from ' * (self.protocol in TRANSFER)}{self.data}"
        )
        return ", ".join([f"{TITLES[self.protocol]}, {where}", *self.shared()])

    def labels(self) -> list:
        """Return the parts of a method, besides its trainer, in which rows differ."""
        return [name for name in ("backbone", "cfg", "shots", "folder") if len(self.values(name)) > 1]

    def shared(self) -> list:
        """Return what is the same for all rows, as words."""
        same = {name: values[0] for name in ("shots", "backbone") if len(values := self.values(name)) == 1}
        return [shots_name(value) if name == "shots" else value for name, value in same.items()]

    def values(self, name: str) -> list:
        """Return the values of a part of the rows' methods; zero-shot has no number of shots."""
        return sorted({getattr(row.method, name) for row in self.rows if name != "shots" or row.method.shots})


def spread(values, interval: str) -> Optional[float]:
    """Return the spread of a mean over seeds, see INTERVALS; None for a single value."""
    values = list(values)
    if len(values) < 2:
        return None
    if interval == "std":
        return float(np.std(values))
    return float(stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(len(values)))


def build(runs: list, published, interval: str = "std") -> list:
    """Make all tables of the runs, in the order of the protocols."""
    tables = []
    for protocol in protocols.PROTOCOLS:
        own = [run for run in runs if run.protocol == protocol]
        if protocol in TRANSFER:
            tables += transfer(protocol, own, published, interval)
        else:
            make = {"base2new": base2new, "few_shot": few_shot}[protocol]
            for embedded in (False, True):  # no average over drawn and real data
                tables += make(
                    [run for run in own if key(run.dataset).startswith("shapes") == embedded], published, interval
                )
    return tables


def grouped(runs: list, group) -> dict:
    """Return runs by what ``group`` says of each, in their order."""
    found = defaultdict(list)
    for run in runs:
        found[group(run)].append(run)
    return dict(found)


def in_order(datasets) -> list:
    """Sort data sets as the papers do."""
    known = {key(name): place for place, name in enumerate(protocols.DATASETS)}
    return sorted(datasets, key=lambda name: (known.get(key(name), len(known)), name))


def by_seed(runs: list) -> dict:
    """Return {seed: accuracy}."""
    return {run.seed: run.result["accuracy"] for run in runs}


# -------------------------------------------------------------- base to new


def base2new(runs: list, published, interval: str) -> list:
    """Make a table for each data set, and before them the average where there are several."""
    columns = ["base", "new", "HM", "mean of HMs"]
    tables, found = [], {}
    for dataset in in_order({run.dataset for run in runs}):
        own = [run for run in runs if run.dataset == dataset]
        rows = []
        for method, group in grouped(own, lambda run: run.method).items():
            base, new = (by_seed([run for run in group if run.part == part]) for part in ("base", "new"))
            found.setdefault(method, {})[dataset] = base, new
            printed = published.get("base2new", method, dataset)
            rows.append(pair_row(method, span(base), base, new, printed, interval))
        tables.append(Table("base2new", dataset, columns, rows, own, notes_of(own, rows)))
    return with_average(
        tables,
        average_of_pairs(found, [table.data for table in tables], runs, published, interval)
        if len(tables) > 1
        else None,
    )


def with_average(tables: list, average) -> list:
    """Put the table of averages first; where no method has one, leave its notes with the first table."""
    if average is None:
        return tables
    if average.rows:
        return [average, *tables]
    tables[0].notes += average.notes
    return tables


def pair_row(method, seeds: str, base: dict, new: dict, printed, interval: str, hms=None) -> Row:
    """Make a row of accuracies by seed; ``hms`` are what the mean of HMs is of, if not of the seeds' HMs."""
    means = fmean(base.values()), fmean(new.values())
    by_seeds = [harmonic_mean([base[seed], new[seed]]) for seed in base]
    values = printed.values if printed else {}
    cells = {
        "base": Cell(means[0], spread(base.values(), interval), values.get("base")),
        "new": Cell(means[1], spread(new.values(), interval), values.get("new")),
        "HM": Cell(harmonic_mean(means), spread(by_seeds, interval), values.get("hm")),
        "mean of HMs": Cell(fmean(hms or by_seeds)),
    }
    return Row(method, seeds, cells, [printed] if printed else [])


def average_of_pairs(found: dict, datasets: list, runs: list, published, interval: str) -> Table:
    """Make the table of averages over data sets, of the methods that have them all."""
    rows, notes = [], []
    for method, results in found.items():
        missing = [name for name in datasets if name not in results]
        if missing:
            notes.append(f"{shown(method)} has no average: it lacks {', '.join(missing)}.")
            continue
        printed = published.get("base2new", method, "Average") if is_usual(datasets) else None
        halves = [average_over([results[name][half] for name in datasets]) for half in (0, 1)]
        seeds = "uneven" if None in halves[0] else span(halves[0])
        hms = [harmonic_mean([fmean(base.values()), fmean(new.values())]) for base, new in results.values()]
        rows.append(pair_row(method, seeds, *halves, printed, interval, hms))
    return Table(
        "base2new",
        "average",
        ["base", "new", "HM", "mean of HMs"],
        rows,
        runs,
        [*average_notes(datasets, runs), *notes],
    )


def average_over(results: list) -> dict:
    """Average {seed: accuracy} of several data sets, seed by seed; {None: mean of the means} if they are of different
    seeds.
    """
    if len({frozenset(result) for result in results}) == 1:
        return {seed: fmean(result[seed] for result in results) for seed in results[0]}
    return {None: fmean(fmean(result.values()) for result in results)}


def average_notes(datasets: list, runs: list) -> list:
    """Say what an average is over."""
    return [f"Average of {len(datasets)} data sets: {', '.join(datasets)}."] + [EMBEDDED] * any(
        is_embedded(run) for run in runs
    )


def is_usual(datasets: list) -> bool:
    """Tell whether data sets are the eleven that published averages are over."""
    return {key(name) for name in datasets} == {key(name) for name in protocols.DATASETS}


# ---------------------------------------------- from one data set to others


def transfer(protocol: str, runs: list, published, interval: str) -> list:
    """Make a table for each source."""
    tables = []
    for source, own in grouped(runs, lambda run: key(run.source)).items():
        usual = [
            key(name)
            for targets in [protocols.TARGETS[protocol]]
            for name in next((targets[s] for s in targets if key(s) == source), ())
        ]
        place = {name: i for i, name in enumerate(usual)}
        present = {run.dataset for run in own if key(run.dataset) != source}
        targets = sorted(present, key=lambda name: (place.get(key(name), len(place)), name))
        if not targets:
            continue  # trained only, or tested in the other protocol
        name = next((run.dataset for run in own if key(run.dataset) == source), own[0].source)
        rows = []
        for method, group in grouped(own, lambda run: run.method).items():
            results = {dataset: by_seed(part) for dataset, part in grouped(group, lambda run: run.dataset).items()}
            if set(results) <= {name}:
                continue
            columns = {}
            if all(dataset in results for dataset in targets):
                columns["average"] = average_over([results[dataset] for dataset in targets])
            all_usual = {key(dataset) for dataset in targets} == set(usual)
            rows.append(row_of(method, {**results, **columns}, published, protocol, interval, all_usual))
        columns = [name, *targets, "average"]
        table = Table(protocol, name, columns, rows, own, notes_of(own, rows))
        if usual and len(targets) < len(usual):
            table.notes.append(f"The average is over {len(targets)} of the {len(usual)} usual targets.")
        lacking = [shown(row.method) for row in rows if "average" not in row.cells]
        if lacking:
            table.notes.append(f"No average, because a target is missing: {', '.join(lacking)}.")
        tables.append(table)
    return tables


def row_of(method, results: dict, published, protocol: str, interval: str, all_usual: bool) -> Row:
    """Make a row of {column: {seed: accuracy}}; "average" is compared with the published one if it is over the usual
    data sets.
    """
    row = Row(method, "", {})
    for column, values in results.items():
        wanted = "Average" if column == "average" else column
        printed = published.get(protocol, method, wanted) if column != "average" or all_usual else None
        row.cells[column] = Cell(
            fmean(values.values()), spread(values.values(), interval), printed and printed.values.get("accuracy")
        )
        row.printed += [printed] if printed else []
    sets = {frozenset(values) for column, values in results.items() if column != "average"}
    row.seeds = span(sets.pop()) if len(sets) == 1 else "uneven"
    return row


# ----------------------------------------------------------------- few-shot


def few_shot(runs: list, published, interval: str) -> list:
    """Make a table for each data set with a column for each number of shots, and before them the average where there
    are several.
    """
    tables, found = [], defaultdict(dict)  # found[row][shots][data set] = {seed: accuracy}
    shots = sorted({run.method.shots for run in runs})
    columns = [shots_name(number) for number in shots]
    for dataset in in_order({run.dataset for run in runs}):
        own = [run for run in runs if run.dataset == dataset]
        rows = []
        for method, group in grouped(own, lambda run: run.method._replace(shots=0)).items():
            results = {number: by_seed(part) for number, part in grouped(group, lambda run: run.method.shots).items()}
            for number, values in results.items():
                found[method].setdefault(number, {})[dataset] = values
            rows.append(shots_row(method, results, published, dataset, interval))
        tables.append(Table("few_shot", dataset, columns, rows, own, notes_of(own, rows)))
    average = None
    if len(tables) > 1:
        datasets = [table.data for table in tables]
        rows, notes = [], average_notes(datasets, runs)
        for method, by_shots in found.items():
            whole = {
                number: average_over([results[name] for name in datasets])
                for number, results in by_shots.items()
                if len(results) == len(datasets)
            }
            if whole:
                rows.append(shots_row(method, whole, published, "Average" if is_usual(datasets) else "", interval))
            else:
                notes.append(f"{shown(method)} has no average: no number of shots has all data sets.")
        average = Table("few_shot", "average", columns, rows, runs, notes)
    return with_average(tables, average)


def shots_row(method, results: dict, published, dataset: str, interval: str) -> Row:
    """Make a row of {shots: {seed: accuracy}}."""
    row = Row(method, "", {})
    for number, values in results.items():
        printed = published.get("few_shot", method._replace(shots=number), dataset)
        row.cells[shots_name(number)] = Cell(
            fmean(values.values()), spread(values.values(), interval), printed and printed.values.get("accuracy")
        )
        row.printed += [printed] if printed else []
    sets = {frozenset(values) for values in results.values()}
    row.seeds = span(sets.pop()) if len(sets) == 1 and None not in next(iter(results.values())) else "uneven"
    return row


def shots_name(number: int) -> str:
    """Name the column of a number of shots."""
    return f"{number} shot{'s' * (number != 1)}"


# -------------------------------------------------------------------- notes


def shown(method) -> str:
    """Name a method in a note."""
    return method.trainer + (f" ({method.folder})" if method.folder else "")


def notes_of(runs: list, rows: list) -> list:
    """Say what makes the numbers of a table less comparable than they look."""
    notes = []
    if any(is_embedded(run) for run in runs):
        notes.append(EMBEDDED)
    if len({row.seeds for row in rows}) > 1 or any(row.seeds == "uneven" for row in rows):
        notes.append("Not all numbers are of the same seeds" + "".join(f"; {text}" for text in uneven(runs)) + ".")
    for (method, dataset), group in grouped(runs, lambda run: (run.method, run.dataset)).items():
        mixed = differing_settings(group)
        if mixed:
            notes.append(f"Mixed settings, {shown(method)} on {dataset}: {'; '.join(mixed)}.")
    old = outdated(runs)
    if old:
        notes.append(f"Tests of models that have been trained anew since, to be run again: {'; '.join(old)}.")
    samples, sizes = defaultdict(set), defaultdict(set)
    for run in runs:
        digest = run.result.get("fewshot_digest")
        if run.method.shots and digest and key(run.dataset) == key(run.source):
            samples[run.dataset, run.method.shots, run.part, run.seed].add(digest)
        if run.result.get("n_test"):
            sizes[run.dataset, run.part].add(run.result["n_test"])
    for (dataset, shots, _, seed), digests in samples.items():
        text = f"Methods were trained on different few-shot samples: {dataset}, {shots} shots, seed {seed}."
        if len(digests) > 1 and text not in notes:
            notes.append(text)
    for (dataset, part), numbers in sizes.items():
        if len(numbers) > 1:
            notes.append(
                f"Tests were of different numbers of images: {dataset}, {part} classes: {', '.join(map(str, sorted(numbers)))}."
            )
    return notes


def outdated(runs: list) -> list:
    """Name the tests that are older than the training run of their model; only by the files' times, which copying may
    change.
    """
    names = []
    for (method, source, _), group in grouped(runs, lambda run: (run.method, run.source, run.seed)).items():
        trained = (
            [run for run in group if key(run.dataset) == key(source) and run.part != "new"] if method.shots else []
        )
        names += [
            run.name for run in group for model in trained if run not in trained and is_older(run.path, model.path)
        ]
    return names


def uneven(runs: list) -> list:
    """Return the seeds of each method and data set of rows whose columns differ in them."""
    texts = []
    for method, group in grouped(runs, lambda run: run.method._replace(shots=0)).items():
        seeds = {
            what: span({run.seed for run in part})
            for what, part in grouped(group, lambda run: (run.dataset, run.method.shots)).items()
        }
        if len(set(seeds.values())) > 1:
            texts.append(
                f"{shown(method)}: "
                + ", ".join(f"{dataset} ({shots} shots) {text}" for (dataset, shots), text in seeds.items())
            )
    return texts
