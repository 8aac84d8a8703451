"""``results.json``: every evaluation of a run at full precision."""

import json
import os
import time

from ..utils import atomic_path, mkdir_if_missing


def append_result(path: str, context: dict, metrics: dict) -> None:
    """Add a record (time, split, epoch, checkpoint, metrics) to the list in ``path``, which is never half-written."""
    records = []
    if os.path.isfile(path):
        try:
            with open(path, encoding="utf-8") as f:
                records = json.load(f)
        except (ValueError, RecursionError):  # somebody edited it; a finished run is worth more than an error here
            records = None
        if not isinstance(records, list):
            os.replace(path, f"{path}.broken")
            print(f"{path} is not a list of records; kept it as {path}.broken and began a new one")
            records = []
    records.append(
        {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "split": context.get("split"),
            "epoch": context.get("epoch"),
            "checkpoint": context.get("checkpoint"),
            **metrics,
        }
    )
    mkdir_if_missing(os.path.dirname(path))
    with atomic_path(path) as tmp, open(tmp, "w", encoding="utf-8") as f:
        json.dump(records, f, indent=2)
