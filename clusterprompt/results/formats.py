"""Tables as text, Markdown, LaTeX and CSV."""

import csv
import io

from tabulate import tabulate

from .runs import Method, key
from .tables import CONVENTIONS, INTERVALS, TITLES

SUFFIXES = {"text": "txt", "markdown": "md", "latex": "tex", "csv": "csv"}
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
LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        "±": r"$\pm$",
    }
)


def header(table, column: str) -> str:
    """Return the short name of a column."""
    if len(table.columns) > 1 and column != table.data and column.startswith(table.data):
        return column[len(table.data) :].lstrip("_- ")  # ShapesNoise, from Shapes
    return SHORT.get(key(column), column)


def best(table) -> dict:
    """Return the highest mean of each column, as printed; empty for a table of one method, which has nothing to
    compare.
    """
    if len(table.rows) < 2:
        return {}
    return {
        column: max(f"{row.cells[column].mean:6.2f}" for row in table.rows if column in row.cells)
        for column in table.columns
        if any(column in row.cells for row in table.rows)
    }


def grid(table, mark=lambda text: text, published: bool = True) -> tuple:
    """Return headers and rows of a table as strings; below a method with published values, these and the difference.

    Args:
        mark: What is done with the best of a column.
    """
    labels, top, lines = table.labels(), best(table), []
    for row in table.rows:
        known = [str(getattr(row.method, name)) if name != "shots" or row.method.shots else "-" for name in labels]
        cells = []
        for column in table.columns:
            cell = row.cells.get(column)
            text = (
                "-" if cell is None else f"{cell.mean:.2f}" + ("" if cell.spread is None else f" ± {cell.spread:.2f}")
            )
            cells.append(mark(text) if cell and top.get(column) == f"{cell.mean:6.2f}" else text)
        lines.append([row.method.trainer, *known, row.seeds, *cells])
        if published and row.printed:
            for name, value in (
                ("  published", lambda c: f"{c.published:.2f}"),
                ("  difference", lambda c: f"{round(c.mean - c.published, 2) + 0:+.2f}"),
            ):
                shown = [
                    value(cell) if (cell := row.cells.get(column)) and cell.published is not None else ""
                    for column in table.columns
                ]
                lines.append([name, *[""] * len(known), "", *shown])
    return ["method", *labels, "seeds", *(header(table, column) for column in table.columns)], lines


def sources(table) -> list:
    """Return where the published values of a table are from."""
    texts = {}
    for row in table.rows:
        for printed in row.printed:
            texts.setdefault(f"{printed.source}{f' ({printed.note})' if printed.note else ''}", []).append(
                row.method.trainer
            )
    return [f"Published values of {', '.join(dict.fromkeys(methods))}: {text}." for text, methods in texts.items()]


def sections(tables: list) -> list:
    """Return (protocol, its tables)."""
    return [
        (protocol, own) for protocol in TITLES if (own := [table for table in tables if table.protocol == protocol])
    ]


def text(tables: list, interval: str, notes: list) -> str:
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
        parts.append(f"{CONVENTIONS[protocol]}\n{INTERVALS[interval]} Accuracy in %.")
    parts += ["\n".join(["Notes:", *("  " + note for note in notes)])] if notes else []
    return "\n\n".join(parts).replace("±", "+-") + "\n"


def align(headers: list, table) -> list:
    """Return the alignment of columns: words left, numbers right."""
    words = len(headers) - len(table.columns)
    return ["left"] * words + ["right"] * len(table.columns)


def markdown(tables: list, interval: str, notes: list, level: int = 2) -> str:
    """Write tables as Markdown, the best of a column in bold."""
    parts = []
    for protocol, own in sections(tables):
        parts.append(f"{'#' * level} {TITLES[protocol]}")
        for table in own:
            parts += [f"**{escape_markdown(table.title)}**", markdown_table(table)]
            remarks = [*table.notes, *sources(table)]
            parts += ["\n".join(f"- {escape_markdown(note)}" for note in remarks)] if remarks else []
        parts.append(f"{CONVENTIONS[protocol]} {INTERVALS[interval]} Accuracy in %.")
    parts += (
        ["\n".join([f"{'#' * level} Notes", "", *(f"- {escape_markdown(note)}" for note in notes)])] if notes else []
    )
    return "\n\n".join(parts) + "\n"


def markdown_table(table) -> str:
    """Write one table as Markdown."""
    headers, lines = grid(table, "**{}**".format)
    lines = [
        [escape_markdown(line[0]).replace("  ", "&nbsp;&nbsp;"), *(escape_markdown(cell, "|") for cell in line[1:])]
        for line in lines
    ]
    return tabulate(
        lines,
        [escape_markdown(text) for text in headers],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=align(headers, table),
    )


def escape_markdown(text: str, characters: str = "\\|<>*_`[") -> str:
    """Keep text from being read as Markdown."""
    return "".join(f"\\{c}" if c in characters else c for c in str(text))


def latex(tables: list, interval: str, notes: list) -> str:
    r"""Write tables for \input into a document that uses booktabs, the best of a column in bold."""
    parts = [r"% \usepackage[T1]{fontenc} \usepackage{booktabs} \usepackage{graphicx}"]
    parts += [f"% {line}" for note in notes for line in note.splitlines()]
    for protocol, own in sections(tables):
        for number, table in enumerate(own):
            headers, lines = grid(table, "\0{}".format)
            rows = [[latex_cell(cell) for cell in line] for line in lines]
            kinds = "".join(side[0] for side in align(headers, table))
            body = [
                rf"\begin{{tabular}}{{{kinds}}}",
                r"\toprule",
                " & ".join(map(latex_cell, headers)) + r" \\",
                r"\midrule",
                *(" & ".join(row) + r" \\" for row in rows),
                r"\bottomrule",
                r"\end{tabular}",
            ]
            if len(headers) > 7:
                body = [r"\resizebox{\linewidth}{!}{%", *body, "}"]
            remarks = [*table.notes, *sources(table), CONVENTIONS[protocol], INTERVALS[interval], "Accuracy in %."]
            caption = [
                rf"\caption{{{table.title.translate(LATEX)}.}}",
                rf"\label{{tab:{protocol.replace('_', '-')}-{number + 1}}}",
            ]
            below = [rf"\par\smallskip\raggedright\footnotesize {' '.join(remarks).translate(LATEX)}"]
            parts.append("\n".join([r"\begin{table}", r"\centering", *caption, *body, *below, r"\end{table}"]))
    return "\n\n".join(parts) + "\n"


def latex_cell(cell: str) -> str:
    """Escape a cell; one that starts with NUL is the best of its column."""
    inner = cell.lstrip("\0 ").translate(LATEX)
    if cell.startswith("\0"):
        return rf"\textbf{{{inner}}}"
    return rf"\quad {inner}" if cell.startswith("  ") else inner.replace("-", "--", 1) if inner == "-" else inner


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
)


def as_csv(tables: list, interval: str) -> str:
    """Write one line a number, unrounded."""
    out = io.StringIO()
    writer = csv.DictWriter(out, FIELDS, lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for row in table.rows:
            for column, cell in row.cells.items():
                known = {
                    "protocol": table.protocol,
                    "data": table.data,
                    "column": column,
                    "seeds": row.seeds,
                    "mean": cell.mean,
                }
                if cell.spread is not None:
                    known.update(spread=cell.spread, spread_is=interval)
                if cell.published is not None:
                    source = "; ".join(
                        dict.fromkeys(p.source for p in row.printed if cell.published in p.values.values())
                    )
                    known.update(published=cell.published, difference=cell.mean - cell.published, source=source)
                method = row.method._asdict()
                if table.protocol == "few_shot":
                    method["shots"] = column.split()[0]
                writer.writerow({**method, **known})
    return out.getvalue()
