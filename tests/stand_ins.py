"""Jobs without training: records as runs leave them, written in the place of processes."""

import json
from pathlib import Path
from typing import NamedTuple

import yaml

from clusterprompt.record.result import RunRecord
from clusterprompt.running.spec import dataset_config, find_config, is_drawn


def class_of(dataset: str) -> str:
    """Name of a data set's class, from its yaml."""
    return yaml.safe_load(find_config(dataset_config(dataset)).read_text())["DATASET"]["NAME"]


def write_record(spec, accuracy, **more):
    """Leave the record of a finished run."""
    leg = spec.leg
    source = leg.model or leg
    trained_on = {
        "dataset": class_of(source.dataset),
        "subsample": source.classes,
        "shots": source.shots,
        "seed": spec.seed,
    }
    fields = {
        "status": "finished",
        "trainer": spec.trainer,
        "dataset": class_of(leg.dataset),
        "subsample": leg.classes,
        "shots": leg.shots,
        "seed": spec.seed,
        "backbone": spec.backbone or "ViT-B/16",
        "accuracy": accuracy,
        "trained_on": None if spec.trainer == "ZeroshotCLIP" else trained_on,
        "drawn": is_drawn(leg.dataset),
        "learned_parameters": 0 if spec.trainer == "ZeroshotCLIP" else 12345,
        "seconds": {"train": 8.0, "test": 1.0},
        "seconds_per_epoch": 1.5,
        "peak_memory_mb": 700.0,
        "fewshot_digest": "0",
    }
    RunRecord(**{**fields, **more}).write(spec.folder)


def write_training(spec):
    """Leave the record of an interrupted run."""
    write_record(spec, None, status="training")


class Call(NamedTuple):
    """A job that was run."""

    job: object
    overwrite: bool
    environment: dict

    @property
    def name(self) -> str:
        """Folder that was filled, below out/, without what is the same everywhere."""
        spec = self.job.specs[0]
        return str(Path(spec.folder).relative_to(spec.output)).replace("/shots_16", "").rsplit("/", 2)[0]

    @property
    def pairs(self) -> dict:
        """The config values of the first run."""
        opts = self.job.specs[0].train_options().opts
        return dict(zip(opts[::2], opts[1::2]))


class Calls(list):
    """Stands in for the processes of an engine; each job leaves records, unless ``broken`` is part of its folder."""

    broken = ""

    def __call__(self, engine, job, overwrite, environment, log):
        self.append(Call(job, overwrite, environment))
        if self.broken and self.broken in job.folders[0]:
            log.write(b"a traceback\nValueError: no such thing\n")
            log.flush()
            return 1
        for number, spec in enumerate(job.specs):
            write_record(spec, self.accuracy(spec, number))
        return 0

    def accuracy(self, spec, number):
        """Accuracy of the first, second ... run of a job."""
        return 60.0 - 20 * number

    def names(self):
        return [call.name for call in self]


def read(path):
    """Read a JSON file."""
    return json.loads(Path(path).read_text())
