"""Tables from runs, as each protocol describes them: by data set, with averages and the published values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

from ..record.names import dataset_key, shots_label
from ..record.protocols import DATASETS, Derived, Protocol, all_protocols
from ..record.statistics import BySeed, Summary, summarise
from .notes import EMBEDDED, UNEVEN, different_texts, grouped, notes_of, shown
from .published import Printed, Published
from .run import Method, Run, column_of, format_ranges

AVERAGE = "average"


class Cell(NamedTuple):
    """A number of a table, in percent.

    Attributes:
        mean: Mean over seeds.
        spread: See ``record.statistics.INTERVALS``; None where a single seed leaves none.
        published: The papers' value, if there is one.
        seeds: Number of seeds; of an average, that of the data set with the fewest.
    """

    mean: float
    spread: float | None = None
    published: float | None = None
    seeds: int = 0


@dataclass
class Row:
    """One method.

    Attributes:
        seeds: As shown; "uneven" if the columns are of different seeds.
        values: Accuracies by column, without computed ones.
        runs: The runs of the row.
        cells: By column; a column without one has no result.
        printed: Published results of the row.
    """

    method: Method
    seeds: str
    values: dict[str, BySeed]
    runs: list[Run]
    cells: dict[str, Cell] = field(default_factory=dict)
    printed: list[Printed] = field(default_factory=list)

    @property
    def trainer(self) -> str:
        """Name of the method, marked where it is transductive."""
        marked = any(run.record.transductive for run in self.runs)
        return self.method.trainer + " (transductive)" * marked


@dataclass
class Table:
    """One table.

    Attributes:
        protocol: What it compares.
        data: The data set, the source of a transfer, or "average".
        columns: All columns, computed ones last.
        derived: The computed columns.
        rows: One a method.
        runs: All runs behind it.
        notes: Sentences below it.
    """

    protocol: Protocol
    data: str
    columns: list[str]
    derived: list[Derived]
    rows: list[Row]
    runs: list[Run]
    notes: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Heading, with what all rows share."""
        where = "average over data sets" if self.is_average else f"{'from ' * self.protocol.transfers}{self.data}"
        return ", ".join([f"{self.protocol.title}, {where}", *self.shared()])

    @property
    def is_average(self) -> bool:
        """Whether the table is of averages over data sets."""
        return self.data == AVERAGE

    def labels(self) -> list[str]:
        """Return the parts of a method, besides its trainer, in which rows differ."""
        return [name for name in ("backbone", "cfg", "shots", "folder") if len(self._values(name)) > 1]

    def shared(self) -> list[str]:
        """Return what is the same for all rows, as words."""
        same = {name: values[0] for name in ("shots", "backbone") if len(values := self._values(name)) == 1}
        return [shots_label(value) if name == "shots" else value for name, value in same.items()]

    def names(self) -> dict[Method, str]:
        """Return the name of each row: the trainer, and what else tells it from other rows."""
        labels = self.labels()
        return {
            row.method: " ".join(
                [row.trainer, *(f"[{value}]" for name in labels if (value := getattr(row.method, name)))]
            )
            for row in self.rows
        }

    def _values(self, name: str) -> list:
        """Return the values of a part of the rows' methods; zero-shot has no number of shots."""
        return sorted({getattr(row.method, name) for row in self.rows if name != "shots" or row.method.shots})


def build(runs: Iterable[Run], published: Published | None, interval: str = "std") -> list[Table]:
    """Make all tables of the runs, in the order of the protocols.

    Args:
        runs: From :func:`.runs.collect_runs`.
        published: The papers' values; None to leave them out.
        interval: A key of ``record.statistics.INTERVALS``.
    """
    runs = list(runs)
    tables = []
    for protocol in all_protocols().values():
        by_data = grouped((run for run in runs if run.protocol == protocol.name), lambda run: run.source_key)
        drawn = {key for key, group in by_data.items() if all(run.is_drawn for run in group)}
        maker = _TableMaker(protocol, published, interval)
        for kind in (by_data.keys() - drawn, drawn):  # no average over drawn and real data
            tables += maker.tables({key: group for key, group in by_data.items() if key in kind})
    return tables


class _TableMaker:
    """Makes the tables of one protocol."""

    def __init__(self, protocol: Protocol, published: Published | None, interval: str):
        self.protocol, self.published, self.interval = protocol, published, interval

    def tables(self, by_data: dict[str, list[Run]]) -> list[Table]:
        """Make a table for each data set or source, and before them the average where there are several.

        Args:
            by_data: Runs by key of the data set or source.
        """
        runs = [run for group in by_data.values() for run in group]
        named = {
            next((run.dataset for run in group if run.key == key), group[0].source): group
            for key, group in by_data.items()
        }
        tables = []
        for data in _in_order(named):
            # Tables that are averaged have the same columns.
            columns = self._columns(runs if self.protocol.averages else named[data], data)
            if not self.protocol.transfers or columns != [data]:  # else trained only, or tested in another transfer
                tables.append(self._table(data, named[data], columns))
        if len(tables) < 2 or not self.protocol.averages:
            return tables
        average = self._average(tables, runs)
        if average.rows:
            return [average, *tables]
        tables[0].notes += average.notes
        return tables

    def _columns(self, runs: Sequence[Run], data: str) -> list[str]:
        """Return the columns that hold accuracies."""
        return self.protocol.columns(list(dict.fromkeys(column_of(self.protocol, run) for run in runs)), data)

    def _table(self, data: str, runs: list[Run], columns: list[str]) -> Table:
        """Make the table of one data set or source."""
        protocol = self.protocol
        derived = protocol.derived(columns, data)
        table = Table(protocol, data, [*columns, *(each.name for each in derived)], derived, [], runs)
        for method, own in grouped(runs, self._row_of).items():
            by_column = grouped(own, lambda run: column_of(protocol, run))
            values = {name: _by_seed(by_column[name]) for name in columns if name in by_column}
            if set(values) <= ({data} if protocol.transfers else set()):  # nothing, or the source only
                continue
            row = Row(method, _seeds(values.values()), values, own)
            seeds = {column: len(of_column) for column, of_column in values.items()}
            self._fill(table, row, seeds, {each.name: each.of(values, self.interval) for each in derived}, data)
            table.rows.append(row)
        table.notes = [*notes_of(runs, [row.seeds for row in table.rows]), *protocol.remarks(columns, data)]
        for each in derived:
            lacking = [shown(row.method) for row in table.rows if each.name not in row.cells]
            if lacking and each.missing:
                table.notes.append(f"{each.missing}: {', '.join(lacking)}.")
        return table

    def _average(self, tables: list[Table], runs: list[Run]) -> Table:
        """Make the table of averages, of the methods that have all data sets."""
        first, datasets = tables[0], [table.data for table in tables]
        columns = [column for column in first.columns if column not in {each.name for each in first.derived}]
        usual = {dataset_key(name) for name in datasets} == {dataset_key(name) for name in DATASETS}
        average = Table(self.protocol, AVERAGE, first.columns, first.derived, [], runs)
        average.notes = [f"Average of {len(datasets)} data sets: {', '.join(datasets)}."]
        average.notes += [EMBEDDED] if any(run.record.is_embedded for run in runs) else []
        average.notes += different_texts(runs)
        by_method: dict[Method, dict[str, Row]] = {}
        for table in tables:
            for row in table.rows:
                by_method.setdefault(row.method, {})[table.data] = row
        for method, rows in by_method.items():
            parts = {
                column: [rows[name].values[column] for name in datasets if name in rows and column in rows[name].values]
                for column in columns
            }
            parts = {column: part for column, part in parts.items() if len(part) == len(datasets)}
            if not parts:
                average.notes.append(f"{shown(method)} has no average: {self._lack(rows, columns, datasets)}.")
                continue
            values = {column: _average_over(part) for column, part in parts.items()}
            row = Row(method, _seeds(values.values()), values, [run for each in rows.values() for run in each.runs])
            computed = {each.name: self._averaged(each, values, list(rows.values())) for each in first.derived}
            seeds = {column: min(map(len, part)) for column, part in parts.items()}
            self._fill(average, row, seeds, computed, "Average" if usual else None)
            average.rows.append(row)
        return average

    def _fill(
        self, table: Table, row: Row, seeds: Mapping[str, int], computed: Mapping[str, Summary | None], data: str | None
    ) -> None:
        """Add the cells of a row.

        Args:
            table: Its table, with columns.
            row: Row with ``values`` and ``runs``.
            seeds: Number of seeds of each column in ``values``.
            computed: Derived columns.
            data: What published values are of; None for an average that the papers do not have.
        """
        measured = {column: summarise(values.values(), self.interval) for column, values in row.values.items()}
        methods = {column_of(self.protocol, run): run.method for run in row.runs}
        for column, summary in {**measured, **computed}.items():
            if summary is None:
                continue
            value = None
            asked = self.protocol.published(column, data, table.columns) if data else None
            if asked and self.published:
                printed = self.published.get(self.protocol.name, methods.get(column, row.method), asked[0])
                row.printed += [printed] if printed else []
                value = printed.values.get(asked[1]) if printed else None
            row.cells[column] = Cell(*summary, value, seeds.get(column, min(seeds.values())))

    def _averaged(self, derived: Derived, values: Mapping[str, BySeed], rows: Sequence[Row]) -> Summary | None:
        """Return a computed column of an average."""
        if not derived.average_of:
            return derived.of(values, self.interval)
        cells = [row.cells.get(derived.average_of) for row in rows]
        return Summary(fmean(cell.mean for cell in cells if cell)) if all(cells) else None

    def _row_of(self, run: Run) -> Method:
        """Return the row of a run."""
        return run.method._replace(shots=0) if self.protocol.shots_are_columns else run.method

    def _lack(self, rows: Mapping[str, Row], columns: Sequence[str], datasets: Sequence[str]) -> str:
        """Explain why a method has no average."""
        if self.protocol.shots_are_columns:
            return "no number of shots has all data sets"
        lacking = [name for name in datasets if name not in rows or not set(columns) <= set(rows[name].values)]
        return f"it lacks {', '.join(lacking)}"


def _by_seed(runs: Sequence[Run]) -> BySeed:
    """Return the accuracy of each seed."""
    return {run.seed: run.accuracy for run in runs}


def _average_over(results: Sequence[BySeed]) -> BySeed:
    """Average accuracies of several data sets, seed by seed; the means if they are of different seeds."""
    if len({frozenset(result) for result in results}) == 1:
        return {seed: fmean(result[seed] for result in results) for seed in results[0]}
    return {None: fmean(fmean(result.values()) for result in results)}


def _seeds(values: Iterable[BySeed]) -> str:
    """Write the seeds of a row."""
    sets = {frozenset(of_column) for of_column in values}
    seeds = sets.pop()
    return UNEVEN if sets or None in seeds else format_ranges(seed for seed in seeds if seed is not None)


def _in_order(datasets: Iterable[str]) -> list[str]:
    """Sort data sets as the papers do."""
    known = {dataset_key(name): place for place, name in enumerate(DATASETS)}
    return sorted(datasets, key=lambda name: (known.get(dataset_key(name), len(known)), name))
