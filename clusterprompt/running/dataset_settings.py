"""The authors' settings of one data set: ``datasets.yaml`` beside the yamls of a trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config import items, read_yaml
from ..record.names import dataset_key

TABLE = "datasets.yaml"


def dataset_settings(trainer_yaml: Path, dataset: str) -> dict[str, Any]:
    """Return what the table beside a trainer's yaml sets for a data set, by dotted key.

    The table has one entry a data set, named like its yaml or its class: config nodes, which hold with every yaml of
    the folder, and below the name of a yaml those that hold with this one alone, and go before the others::

        imagenet:
          TRAINER: {MMRL: {REG_WEIGHT: 0.5}}
          basetonovel:
            OPTIM: {MAX_EPOCH: 5}

    Args:
        trainer_yaml: The trainer's yaml that is used.
        dataset: Name of the data set's class, or of its yaml.

    Returns:
        Empty where there is no table, or no entry of the data set in it.

    Raises:
        ValueError: The table is no such yaml, or names a yaml that is not in its folder.
    """
    path = trainer_yaml.with_name(TABLE)
    if not path.is_file():
        return {}
    entries = {dataset_key(name): entry for name, entry in read_yaml(path).items()}
    entry = entries.get(dataset_key(dataset), {})
    parts = {} if not isinstance(entry, dict) else {name: entry[name] for name in entry if not name.isupper()}
    if missing := [name for name in parts if not path.with_name(f"{name}.yaml").is_file()]:
        raise ValueError(
            f"{path}: the entry of {dataset} names {missing[0]!r}, which is neither a config node nor a yaml beside it"
        )
    own = parts.get(trainer_yaml.stem, {})
    for nodes in (entry, own):
        if not isinstance(nodes, dict):
            raise ValueError(f"{path}: the entry of {dataset} should hold config nodes, not {str(nodes)[:100]!r}")
    everywhere = {name: entry[name] for name in entry if name not in parts}
    return {**dict(items(everywhere)), **dict(items(own))}
