"""Which protocol, row and source a finished run belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..record.names import dataset_key
from ..record.protocols import Finished, Protocol, Request, all_protocols
from ..record.result import RunRecord
from .run import Method, Run

# Classes of any number of data sets: the folder of a run, named after its yaml, tells them apart.
OWN_IMAGES = ("ImageFolder", "ImageCSV")


class _Training(NamedTuple):
    """The training run behind a record."""

    dataset: str
    shots: int
    seed: int


def _training_of(record: RunRecord) -> _Training | None:
    """Return the training run behind a record; None for zero-shot."""
    if record.is_zero_shot:
        return None
    on = record.trained_on or {}  # tests of official checkpoints and records of old versions have none
    return _Training(
        on.get("dataset", record.dataset),
        on.get("shots", record.shots),
        on.get("seed", record.seed),
    )


class _Layout:
    """The usual layout of output folders, as the protocols' legs have it.

    Attributes:
        transfers: Places of tests on another data set than the one trained on.
    """

    def __init__(self, protocols: Iterable[Protocol]):
        request = Request("source", targets=("target",))
        legs = [leg for protocol in protocols for leg in protocol.legs(request)]
        self.transfers = {leg.place for leg in legs if leg.model is not None and leg.model.dataset != leg.dataset}
        places = "|".join(sorted({re.escape(leg.place) for leg in legs}, reverse=True))
        self.pattern = re.compile(
            rf"(?P<root>.*/)?(?P<place>{places})/(?P<data>[^/]+)/shots_-?\d+/[^/]+/(?P<cfg>[^/]+)/seed[^/]+"
        )

    def match(self, path: Path) -> re.Match | None:
        """Return the parts of a run's folder; None outside the layout."""
        return self.pattern.fullmatch(path.resolve().as_posix())


def assign_protocols(records: dict[Path, RunRecord], folder: Path, notes: list[str]) -> list[Run]:
    """Decide protocol, method and source of each record, by content and, where that leaves it open, by folder.

    A record of a source is of every transfer, and becomes several runs.

    Args:
        records: Finished records by run folder.
        folder: Folder of all results.
        notes: Gets a sentence for each record that belongs to no protocol.
    """
    protocols = all_protocols()
    layout = _Layout(protocols.values())
    training = {path: _training_of(record) for path, record in records.items()}
    # The models that were also tested elsewhere: outside the usual layout, that tells a source from a few-shot run.
    sources = {
        (record.trainer, *on) for path, record in records.items() if (on := training[path]) and _moved(record, on)
    }
    runs: list[Run] = []
    for path, record in records.items():
        on, place = training[path], layout.match(path)
        in_tests = place is not None and place["place"] in layout.transfers
        trained_here = place is not None and not in_tests and bool(record.seconds.get("train"))
        if on and record.trained_on is None and record.subsample == "all" and not trained_here:
            notes.append(f"Left out, it is not known what it was trained on: {path}")
            continue
        own = place["data"] if place and record.dataset in OWN_IMAGES else ""
        finished = Finished(
            dataset=record.dataset,
            classes=record.subsample,
            trained_on=on.dataset if on else None,
            place=place["place"] if place else "",
            moved=on is not None and (_moved(record, on) or (bool(own) and in_tests)),
            is_source=on is not None and (record.trainer, *on) in sources,
            trained_classes=(record.trained_on or {}).get("subsample", "") if on else "",
        )
        found = _protocols_of(finished, protocols)
        if not found:
            classes = f"trained on {finished.trained_classes or 'unknown'} classes, tested on {record.subsample}"
            notes.append(f"Left out, of no known protocol ({classes}): {path}")
        for name, source in found.items():
            dataset = record.dataset
            if own and not protocols[name].transfers:
                dataset = source = own
            elif own and finished.moved:  # as a source it keeps its class's name, the only one that its tests know
                dataset = own
            cfg, shots, seed = place["cfg"] if place else "", on.shots if on else 0, on.seed if on else record.seed
            method = Method(record.trainer, record.backbone, cfg, shots, relative_folder(place, folder))
            runs.append(Run(path, name, method, dataset, source, record.subsample, seed, record))
    return runs


def _moved(record: RunRecord, on: _Training) -> bool:
    """Return whether a model was tested on another data set than the one trained on."""
    return dataset_key(on.dataset) != dataset_key(record.dataset)


def _protocols_of(run: Finished, protocols: dict[str, Protocol]) -> dict[str, str]:
    """Return {protocol: source} of the protocols that claim a run, or of the first that adopts it."""
    found = {name: source for name, protocol in protocols.items() if (source := protocol.source_of(run)) is not None}
    if found:
        return found
    adopted = ((name, protocol.adopts(run)) for name, protocol in protocols.items())
    return next(({name: source} for name, source in adopted if source is not None), {})


def relative_folder(place: re.Match | None, folder: Path) -> str:
    """Return the part of a path between the folder asked for and the usual layout; empty outside the layout."""
    root, folder = Path(place["root"] or "/") if place else folder.resolve(), folder.resolve()
    return root.relative_to(folder).as_posix() if root.is_relative_to(folder) and root != folder else ""
