"""Make the papers' tables from all finished runs below a folder, beside the published values.

    python scripts/results.py output/                                      # every table, as text
    python scripts/results.py output/ --protocol base2new --format latex   # one protocol, for a paper
    python scripts/results.py output/ --out tables/                        # text, Markdown, LaTeX and CSV, as files
    python scripts/results.py output/ --html report.html                   # one page with tables, charts and examples

Runs are grouped by what their result.json says: protocol, method, data set, shots, and the name of the trainer's yaml.
Runs in several folders of results, such as output/demo and output/compare, are several rows. The number after +- is the
standard deviation over seeds (divided by n), or with --interval ci95 half the 95 % interval of the mean. --html and
--page need matplotlib.
"""

import argparse
import importlib
import sys
from pathlib import Path

from ..record.protocols import PROTOCOLS
from ..results import formats
from ..results import runs as results_runs
from ..results import tables as results_tables
from ..results.published import Published


def main(argv=None):
    """Run the command line; see the module's text.

    Raises:
        SystemExit: Code 2, after a message, if there is nothing to show.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("folder", type=Path, help="folder of results; everything below it is looked at")
    parser.add_argument("--protocol", choices=PROTOCOLS, nargs="+", default=list(PROTOCOLS), help="default: all")
    parser.add_argument(
        "--interval", choices=tuple(results_tables.INTERVALS), default="std", help="what follows +-; default: std"
    )
    parser.add_argument(
        "--format", choices=tuple(formats.SUFFIXES), default="text", help="of what is printed; default: text"
    )
    parser.add_argument("--out", type=Path, help="folder for the tables in all formats")
    parser.add_argument("--html", type=Path, help="file for a report with tables, charts and examples")
    parser.add_argument(
        "--page",
        type=Path,
        help="file for a Markdown page with tables; its charts go into a folder of the same name beside it",
    )
    args = parser.parse_args(argv)
    try:
        found = results_runs.find(args.folder)
        runs = [run for run in found.runs if run.protocol in args.protocol]
        if not runs:
            there = ", ".join(sorted({run.protocol for run in found.runs}))
            raise ValueError(f"no run of {', '.join(args.protocol)} below {args.folder}; there are runs of: {there}")
        tables = results_tables.build(runs, Published(), args.interval)
        if not tables:
            raise ValueError(
                f"the runs below {args.folder} make no table: models were trained on a source, but tested on no target"
            )
        write(args, tables, found.notes)
        if args.html:
            drawing("report").write_report(args.html, args.folder, tables, runs, args.interval, found.notes)
            print(f"Written: {args.html}", file=sys.stderr)
        if args.page:
            command = ["python", "scripts/results.py", *(sys.argv[1:] if argv is None else argv)]
            drawing("page").write_page(args.page, command, tables, runs, args.interval, found.notes)
            print(f"Written: {args.page}, and its charts in {args.page.with_suffix('')}", file=sys.stderr)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def write(args, tables: list, notes: list):
    """Print the tables, and write the files that are asked for."""
    made = {
        "text": formats.text(tables, args.interval, notes),
        "markdown": formats.markdown(tables, args.interval, notes),
        "latex": formats.latex(tables, args.interval, notes),
        "csv": formats.as_csv(tables, args.interval),
    }
    print(made[args.format], end="")
    if args.format == "csv":
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        for name, content in made.items():
            file = args.out / f"tables.{formats.SUFFIXES[name]}"
            file.write_text(content, encoding="utf-8")
            print(f"Written: {file}", file=sys.stderr)


def drawing(module: str):
    """Import a module that draws; the tables do without matplotlib."""
    try:
        return importlib.import_module(f"clusterprompt.results.{module}")
    except ModuleNotFoundError as error:
        raise ImportError(f"charts need {error.name}, which is not installed: pip install {error.name}") from error


if __name__ == "__main__":
    main()
