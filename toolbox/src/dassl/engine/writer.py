"""Scalars over time: to tensorboard, or without it to a text file."""

import json
import os

from ..utils import mkdir_if_missing


class JsonLinesWriter:
    """Replaces tensorboard where it is not installed: one line of JSON a scalar, in ``<log_dir>/scalars.jsonl``."""

    def __init__(self, log_dir: str):
        mkdir_if_missing(log_dir)
        self._file = open(os.path.join(log_dir, "scalars.jsonl"), "a", buffering=1, encoding="utf-8")

    def add_scalar(self, tag, value, step=None):
        json.dump({"tag": tag, "value": float(value), "step": step}, self._file)
        self._file.write("\n")

    def close(self):
        self._file.close()


def build_writer(log_dir: str):
    """Construct tensorboard's writer for ``log_dir``; without tensorboard, say so and give a ``JsonLinesWriter``."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print(f"tensorboard is not installed: scalars go to {os.path.join(log_dir, 'scalars.jsonl')}")
        return JsonLinesWriter(log_dir)
    print(f"Initialize tensorboard (log_dir={log_dir})")
    return SummaryWriter(log_dir=log_dir)
