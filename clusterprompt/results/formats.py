"""Tables as text, Markdown and CSV, and the short tables that other commands end with."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence

from tabulate import tabulate

from ..record.names import dataset_key, printable
from ..record.predictions import FORMULA
from ..record.protocols import Protocol
from ..record.statistics import INTERVALS
from .facts import FACTS, Number
from .notes import text_sources
from .run import Method
from .tables import Cell, Row, Table

SHORT = {
    "oxfordpets": "Pets",
    "stanfordcars": "Cars",
    "oxfordflowers": "Flowers",
    "food101": "Food",
    "fgvcaircraft": "Aircraft",
    "sun397": "SUN",
    "dtd": "DTD",
    "caltech101": "Caltech",
    "ucf101": "UCF",
}


def header(table: Table, column: str) -> str:
    """Return the short name of a column."""
    if len(table.columns) > 1 and column != table.data and column.startswith(table.data):
        return column[len(table.data) :].lstrip("_- ")  # ShapesNoise, from Shapes
    return SHORT.get(dataset_key(column), column)


def best(table: Table, write: Callable[[float], str] = "{:.2f}".format) -> dict[str, str]:
    """Return the highest mean of each column, as printed; nothing for a single row, which has nothing to compare.

    Args:
        table: Table to search.
        write: Rounds a mean as it is printed.
    """
    if len(table.rows) < 2:
        return {}
    means = {column: [row.cells[column].mean for row in table.rows if column in row.cells] for column in table.columns}
    return {column: write(max(values)) for column, values in means.items() if values}


def grid(table: Table, mark: Callable[[str], str] = str, published: bool = True) -> tuple[list[str], list[list[str]]]:
    """Return headers and rows of a table; below a method with published values, these and the difference.

    Args:
        table: Table to write.
        mark: Marks the best of a column.
        published: Add the published values.
    """
    labels, top = table.labels(), best(table)
    lines = []
    for row in table.rows:
        known = [str(getattr(row.method, name)) if name != "shots" or row.method.shots else "-" for name in labels]
        cells = []
        for column in table.columns:
            cell = row.cells.get(column)
            text = "-" if cell is None else f"{cell.mean:.2f}"
            text += "" if cell is None or cell.spread is None else f" ± {cell.spread:.2f}"
            cells.append(mark(text) if cell and top.get(column) == f"{cell.mean:.2f}" else text)
        lines.append([row.trainer, *known, row.seeds, *cells])
        if published and row.printed:
            lines += _published_lines(table, row, len(known))
    return ["method", *labels, "seeds", *(header(table, column) for column in table.columns)], lines


def _published_lines(table: Table, row: Row, blanks: int) -> list[list[str]]:
    """Return the lines of published values and of differences to them."""
    values, differences = [], []
    for column in table.columns:
        cell = row.cells.get(column)
        if cell is None or cell.published is None:
            values.append("")
            differences.append("")
        else:
            values.append(f"{cell.published:.2f}")
            differences.append(f"{round(cell.mean - cell.published, 2) + 0:+.2f}")  # + 0: no -0.00
    return [["  published", *[""] * (blanks + 1), *values], ["  difference", *[""] * (blanks + 1), *differences]]


def sources(table: Table) -> list[str]:
    """Return where the published values of a table are from."""
    texts: dict[str, list[str]] = {}
    for row in table.rows:
        for printed in row.printed:
            text = f"{printed.source}{f' ({printed.note})' if printed.note else ''}"
            texts.setdefault(text, []).append(row.method.trainer)
    return [f"Published values of {', '.join(dict.fromkeys(methods))}: {text}." for text, methods in texts.items()]


def sections(tables: Sequence[Table]) -> list[tuple[Protocol, list[Table]]]:
    """Return each protocol with its tables."""
    found: dict[str, tuple[Protocol, list[Table]]] = {}
    for table in tables:
        found.setdefault(table.protocol.name, (table.protocol, []))[1].append(table)
    return list(found.values())


def align(headers: Sequence[str], table: Table) -> list[str]:
    """Return the alignment of columns: words left, numbers right."""
    words = len(headers) - len(table.columns)
    return ["left"] * words + ["right"] * len(table.columns)


# ------------------------------------------------------------------ whole tables
def text(tables: Sequence[Table], interval: str, notes: Sequence[str]) -> str:
    """Write tables for a terminal, in ASCII where the tables are ours."""
    parts = []
    for protocol, own in sections(tables):
        for table in own:
            headers, lines = grid(table)
            lines = [[f" {line[0]}" if line[0].startswith(" ") else line[0], *line[1:]] for line in lines]
            body = tabulate(
                lines, headers, disable_numparse=True, colalign=align(headers, table), preserve_whitespace=True
            )
            parts.append("\n".join([table.title, "", body, *("  " + note for note in [*table.notes, *sources(table)])]))
        parts.append(f"{protocol.convention}\n{INTERVALS[interval]} Accuracy in %.")
    parts += ["\n".join(["Notes:", *("  " + note for note in notes)])] if notes else []
    return "\n\n".join(parts).replace("±", "+-") + "\n"


def markdown(tables: Sequence[Table], interval: str, notes: Sequence[str], level: int = 2) -> str:
    """Write tables as Markdown, the best of a column in bold."""
    parts = []
    for protocol, own in sections(tables):
        parts.append(f"{'#' * level} {protocol.title}")
        for table in own:
            parts += [f"**{escape_markdown(table.title)}**", markdown_table(table)]
            parts += markdown_notes([*table.notes, *sources(table)])
        parts.append(f"{protocol.convention} {INTERVALS[interval]} Accuracy in %.")
    parts += [f"{'#' * level} Notes", *markdown_notes(notes)] if notes else []
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """Write one table as Markdown."""
    headers, lines = grid(table, "**{}**".format)
    words = len(headers) - len(table.columns)
    lines = [
        [
            escape_markdown(line[0]).replace("  ", "&nbsp;&nbsp;"),
            *(escape_markdown(cell, MARKDOWN if place < words else "|") for place, cell in enumerate(line[1:], 1)),
        ]
        for line in lines
    ]
    return tabulate(
        lines,
        [escape_markdown(text) for text in headers],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=align(headers, table),
    )


def markdown_notes(notes: Sequence[str]) -> list[str]:
    """Return a list in Markdown, as one paragraph; none without notes."""
    return ["\n".join(f"- {escape_markdown(note)}" for note in notes)] if notes else []


MARKDOWN = "\\|<>*_`["


def escape_markdown(text: str, characters: str = MARKDOWN) -> str:
    """Keep text from being read as Markdown."""
    return "".join(f"\\{c}" if c in characters else c for c in printable(str(text)))


FIELDS = (
    "protocol",
    "data",
    "column",
    *Method._fields,
    "seeds",
    "mean",
    "spread",
    "spread_is",
    "published",
    "difference",
    "source",
    "text_source",
)


def as_csv(tables: Sequence[Table], interval: str) -> str:
    """Write one line a number, unrounded."""
    return csv_of(
        FIELDS,
        (
            _csv_line(table, row, column, cell, interval)
            for table in tables
            for row in table.rows
            for column, cell in row.cells.items()
        ),
    )


def csv_of(fields: Sequence[str], lines: Iterable[Mapping[str, object]]) -> str:
    """Write lines as CSV; texts that a spreadsheet would take for a formula get a quote in front.

    Args:
        fields: Columns in order.
        lines: Values by column; missing ones stay empty.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: _as_text(value) for name, value in line.items()})
    return out.getvalue()


def _as_text(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _csv_line(table: Table, row: Row, column: str, cell: Cell, interval: str) -> dict[str, object]:
    """Return one line of the CSV."""
    line: dict[str, object] = {**row.method._asdict(), "trainer": row.trainer, "text_source": text_sources(row.runs)}
    if table.protocol.shots_are_columns:
        line["shots"] = column.split()[0]
    line.update(protocol=table.protocol.name, data=table.data, column=column, seeds=row.seeds, mean=cell.mean)
    if cell.spread is not None:
        line.update(spread=cell.spread, spread_is=interval)
    if cell.published is not None:
        names = dict.fromkeys(p.source for p in row.printed if cell.published in p.values.values())
        line.update(published=cell.published, difference=cell.mean - cell.published, source="; ".join(names))
    return line


# ------------------------------------------------------------------ short tables
def compact(
    table: Table,
    columns: Sequence[str],
    facts: Sequence[str] = (),
    *,
    seeds: Sequence[int],
    best: Callable[[str], str] | None = None,
    sort_by_headline: bool = False,
    label: Callable[[Row], str] | None = None,
) -> tuple[list[str], list[list[str]]]:
    """Return headers and rows of a short table: one decimal, mean and spread, then facts about the runs.

    Args:
        table: Table to shorten.
        columns: Its columns to show.
        facts: Names of :data:`.facts.FACTS` to add as columns.
        seeds: Seeds that were asked for; a cell of fewer says of how many.
        best: Marks the best of each of ``columns``.
        sort_by_headline: Put the best row first, by the protocol's headline; else rows keep their order.
        label: Names a row; by default the trainer, and what else tells it from other rows.
    """
    names, rows = table.names(), ranked(table) if sort_by_headline else table.rows
    means = {column: [row.cells[column].mean for row in rows if column in row.cells] for column in columns}
    top = {column: f"{max(values):.1f}" for column, values in means.items() if values}
    lines = []
    for row in rows:
        line = [label(row) if label else names[row.method]]
        for column in columns:
            cell = row.cells.get(column)
            words = _short_cell(cell, len(seeds))
            marked = best is not None and cell is not None and f"{cell.mean:.1f}" == top[column]
            line.append(best(words) if best and marked else words)
        lines.append([*line, *(write_fact(name, FACTS[name].of(row.runs)) for name in facts)])
    source = " (source)"
    headers = [header(table, column) + source * (column == table.data) for column in columns]
    return ["trainer", *headers, *facts], lines


def flat(
    table: Table, columns: Sequence[str], facts: Sequence[str] = (), *, sort_by_headline: bool = False
) -> list[dict[str, object]]:
    """Return a row each as a flat dict, for CSV and JSON; numbers unrounded.

    ``base`` becomes ``base_mean`` and ``base_std``, 0 for a single seed; missing numbers are left out.
    ``text_source`` is there where a row describes its classes.

    Args:
        table: Table to write.
        columns: Its columns to write.
        facts: Names of :data:`.facts.FACTS` to write, under their names in files.
        sort_by_headline: Put the best row first.
    """
    lines, described = [], any(text_sources(row.runs) for row in table.rows)
    for row in ranked(table) if sort_by_headline else table.rows:
        line: dict[str, object] = {"trainer": row.trainer}
        if described:
            line["text_source"] = text_sources(row.runs)
        for column in columns:
            if cell := row.cells.get(column):
                line.update({f"{column}_mean": cell.mean, f"{column}_std": cell.spread or 0.0})
        values = {FACTS[name].field: FACTS[name].of(row.runs) for name in facts}
        lines.append({**line, **{name: value for name, value in values.items() if value is not None}})
    return lines


def write_fact(name: str, value: Number | None) -> str:
    """Write a fact: shares in percent, integers with thousands separators, others without needless decimals."""
    if value is None:
        return "-"
    if FACTS[name].percent:
        return f"{100 * value:.0f}%"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _short_cell(cell: Cell | None, seeds: int) -> str:
    """Write a cell with one decimal, and of how many seeds it is if some are missing."""
    if cell is None:
        return "-"
    some = f" ({cell.seeds} of {seeds})" if cell.seeds < seeds else ""
    return f"{cell.mean:.1f} +- {cell.spread or 0.0:.1f}{some}"


def ranked(table: Table) -> list[Row]:
    """Return the rows by the protocol's headline, the best first; rows without one last."""
    column = table.protocol.headline
    return sorted(table.rows, key=lambda row: -row.cells[column].mean if column in row.cells else 1.0)
