"""Print mean and spread over seeds of results in log files, of this project or of the CoOp family.

A folder of seeds holds seed1/log.txt, seed2/log.txt, ...:

    python scripts/parse_test_res.py output/base2new/train_base/shapes/shots_16/TAC/basetonovel
    python scripts/parse_test_res.py output/base2new/test_new/shapes/shots_16/TAC/basetonovel --test-log

With --multi-exp the folder holds several such folders, and their means are averaged too.

The number after +- is the standard deviation as the CoOp family prints it (divided by n); the 95 % interval is
Student's, of the mean.
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np
from scipy import stats

# Dassl prints the first, the parsers of MaPLe, PromptSRC and KgCoOp wait for the second.
TRAINED = ("Finish training", "Finished training")
TESTED = ("=> result",)


def read_log(path, keyword: str, signals) -> float | None:
    """Return the last value of ``keyword`` after a line that equals one of ``signals``; None if there is none."""
    pattern = re.compile(rf"\* {re.escape(keyword)}: ([\d.eE+-]+)%")
    started, value = False, None
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        started = started or line.strip() in signals
        match = pattern.search(line)
        if started and match:
            value = float(match.group(1))
    return value


def summarise(folder: Path, keyword: str, signals) -> float | None:
    """Print the runs below ``folder`` and their mean; return the mean, None if no run is complete."""
    print(f"Runs in {folder}")
    values = []
    for log in sorted(folder.glob("*/log.txt")):
        value = read_log(log, keyword, signals)
        print(f"  {log.parent.name}: " + ("not finished, left out" if value is None else f"{keyword} {value:.2f}%"))
        if value is not None:
            values.append(value)
    if not values:
        return None
    mean, spread = np.mean(values), np.std(values)
    print(f"* {keyword}: {mean:.2f}% +- {spread:.2f}%  ({len(values)} runs{interval(values)})")
    return float(mean)


def interval(values) -> str:
    """Describe the 95 % interval of the mean; nothing for a single value."""
    if len(values) < 2:
        return ""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f", 95 % interval {np.mean(values) - half:.2f} to {np.mean(values) + half:.2f}"


def main(argv=None):
    """Run the command line; see the module's text.

    Raises:
        SystemExit: Code 2, after a message, if no complete run is found.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--test-log", action="store_true", help="logs of evaluations, without training")
    parser.add_argument("--multi-exp", action="store_true", help="the folder holds several folders of seeds")
    parser.add_argument("--keyword", default="accuracy", help="accuracy (default), error, macro_f1, ...")
    args = parser.parse_args(argv)
    if not args.directory.is_dir():
        fail(f"no such folder: {args.directory}")
    signals = TESTED if args.test_log else TRAINED
    groups = (
        sorted(entry for entry in args.directory.iterdir() if entry.is_dir()) if args.multi_exp else [args.directory]
    )
    means = [summarise(group, args.keyword, signals) for group in groups]
    found = [mean for mean in means if mean is not None]
    if not found:
        hint = "" if args.test_log else "; for evaluations add --test-log"
        fail(f"no finished run with '* {args.keyword}: ...%' below {args.directory}{hint}")
    if args.multi_exp:
        print(f"Average of {len(found)} experiments: {np.mean(found):.2f}%")


def fail(message: str):
    """Print ``message`` and end with code 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
