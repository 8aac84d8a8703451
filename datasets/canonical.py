"""Recognise CoOp's few-shot samples of seeds 1, 2 and 3, on which every paper of the field trains.

``canonical_samples.json`` holds their digests (see `base.digest`) for the ten data sets with a fixed split: ``{data
set: {"shot_16-seed_1": [train, val]}}``. ImageNet is not among them: CoOp draws from it in the order in which the disk
lists the files, so its samples differ between machines.
"""

import functools
import json
from pathlib import Path


@functools.cache
def known() -> dict[str, dict[str, list[str]]]:
    """Return the digests by data set and sample."""
    return json.loads(Path(__file__).with_name("canonical_samples.json").read_text(encoding="utf-8"))


def verdict(dataset: str, shots: int, seed: int, digests: dict[str, str]) -> str:
    """Say which of CoOp's samples this is.

    Args:
        dataset: Registry name of the data set.
        shots: Images a class.
        seed: Seed of the run.
        digests: ``{"train": ..., "val": ...}`` of the sample that was drawn, or taken from a cache.

    Returns:
        A few words for the log; empty where no sample of the data set is known.
    """
    samples = known().get(dataset, {})
    for name, (train, val) in samples.items():
        if train == digests["train"]:
            known_shots, known_seed = name.removeprefix("shot_").split("-seed_")
            others = "" if val == digests["val"] else ", with other validation images"
            return f"the canonical CoOp sample of seed {known_seed}, {known_shots} shots{others}"
    if samples and f"shot_{shots}-seed_{seed}" not in samples:
        return "no canonical sample of this number of shots and seed is known"
    return "not the canonical CoOp sample" if samples else ""
