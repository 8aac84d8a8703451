r"""Tables for \input into a LaTeX document."""

from __future__ import annotations

from collections.abc import Sequence

from ..record.statistics import INTERVALS
from .formats import align, grid, sections, sources
from .tables import Table

ESCAPES = str.maketrans(
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


def latex(tables: Sequence[Table], interval: str, notes: Sequence[str]) -> str:
    r"""Write tables for a document that uses booktabs, the best of a column in bold."""
    parts = [r"% \usepackage[T1]{fontenc} \usepackage{booktabs} \usepackage{graphicx}"]
    parts += [f"% {line}" for note in notes for line in note.splitlines()]
    for protocol, own in sections(tables):
        for number, table in enumerate(own, start=1):
            caption = [
                rf"\caption{{{table.title.translate(ESCAPES)}.}}",
                rf"\label{{tab:{protocol.name.replace('_', '-')}-{number}}}",
            ]
            remarks = [*table.notes, *sources(table), protocol.convention, INTERVALS[interval], "Accuracy in %."]
            below = rf"\par\smallskip\raggedright\footnotesize {' '.join(remarks).translate(ESCAPES)}"
            lines = [r"\begin{table}", r"\centering", *caption, *_tabular(table), below, r"\end{table}"]
            parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _tabular(table: Table) -> list[str]:
    """Return the lines of the table itself."""
    headers, lines = grid(table, "\0{}".format)
    kinds = "".join(side[0] for side in align(headers, table))
    body = [
        rf"\begin{{tabular}}{{{kinds}}}",
        r"\toprule",
        " & ".join(map(_cell, headers)) + r" \\",
        r"\midrule",
        *(" & ".join(map(_cell, line)) + r" \\" for line in lines),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return [r"\resizebox{\linewidth}{!}{%", *body, "}"] if len(headers) > 7 else body


def _cell(cell: str) -> str:
    """Escape a cell; one that starts with NUL is the best of its column."""
    inner = cell.lstrip("\0 ").translate(ESCAPES)
    if cell.startswith("\0"):
        return rf"\textbf{{{inner}}}"
    if cell.startswith("  "):
        return rf"\quad {inner}"
    return "--" if inner == "-" else inner
