"""Notes below a table: what makes its numbers less comparable than they look."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from ..config import get, keys
from ..record.folder import is_stale
from ..record.result import LOCAL_SETTINGS
from .run import Method, Run, format_ranges

EMBEDDED = (
    "This is the embedded data or the embedded model, a small synthetic world: there are no published values, and none "
    "compares."
)
TRANSDUCTIVE = (
    "{methods}: transductive, trained on all training images of all classes without labels, those of the new classes "
    "included, whatever the shots, with another model as teacher; its numbers compare with those of no other method."
)
UNEVEN = "uneven"  # the seeds of a row whose columns are of different seeds
# They differ between the runs of a row as a matter of course.
NOT_COMPARED = (*LOCAL_SETTINGS, "SEED", "DATASET.SUBSAMPLE_CLASSES")
Key = TypeVar("Key", bound=Hashable)


def grouped(runs: Iterable[Run], group: Callable[[Run], Key]) -> dict[Key, list[Run]]:
    """Return runs by the value of ``group``, in their order."""
    found = defaultdict(list)
    for run in runs:
        found[group(run)].append(run)
    return dict(found)


def shown(method: Method) -> str:
    """Name a method in a note."""
    return method.trainer + (f" ({method.folder})" if method.folder else "")


def notes_of(runs: Sequence[Run], seeds: Sequence[str]) -> list[str]:
    """Return the notes of a table.

    Args:
        runs: All runs behind the table.
        seeds: Seeds of each row, as shown.
    """
    notes = [EMBEDDED] if any(run.record.is_embedded for run in runs) else []
    notes += transductive_notes(runs)
    if len(set(seeds)) > 1 or UNEVEN in seeds:
        notes.append("Not all numbers are of the same seeds" + "".join(f"; {text}" for text in _uneven(runs)) + ".")
    for (method, dataset), group in grouped(runs, lambda run: (run.method, run.dataset)).items():
        mixed = differing_settings(group)
        if mixed:
            notes.append(f"Mixed settings, {shown(method)} on {dataset}: {'; '.join(mixed)}.")
    stale = _stale(runs)
    if stale:
        notes.append(f"Tests of models that have been trained anew since, to be run again: {'; '.join(stale)}.")
    return [*notes, *different_texts(runs), *_different_samples(runs), *_different_tests(runs)]


def transductive_notes(runs: Sequence[Run]) -> list[str]:
    """Return the note about transductive methods, if there are any."""
    methods = dict.fromkeys(run.method.trainer for run in runs if run.record.transductive)
    return [TRANSDUCTIVE.format(methods=", ".join(methods))] if methods else []


def _uneven(runs: Sequence[Run]) -> list[str]:
    """Return the seeds of each method and data set of rows whose columns differ in them."""
    texts = []
    for method, group in grouped(runs, lambda run: run.method._replace(shots=0)).items():
        seeds = {
            what: format_ranges({run.seed for run in part})
            for what, part in grouped(group, lambda run: (run.dataset, run.method.shots)).items()
        }
        if len(set(seeds.values())) > 1:
            each = ", ".join(f"{dataset} ({shots} shots) {text}" for (dataset, shots), text in seeds.items())
            texts.append(f"{shown(method)}: {each}")
    return texts


def _stale(runs: Sequence[Run]) -> list[str]:
    """Name the tests that are older than the training run of their model.

    Only the files' times tell it, and copying may change them.
    """
    names = []
    for (method, *_), group in grouped(runs, lambda run: (run.method, run.source, run.seed)).items():
        trained = [run for run in group if run.is_training] if method.shots else []
        tests = [run for run in group if run not in trained]
        names += [run.name for run in tests for model in trained if is_stale(run.path, model.path)]
    return names


def text_sources(runs: Iterable[Run]) -> str:
    """Return the sources of the class texts of runs; empty where they have none, or it is not known."""
    return "; ".join(sorted({run.record.text_source for run in runs} - {""}))


def different_texts(runs: Iterable[Run]) -> list[str]:
    """Say which methods described classes by which texts, where these are not of one source.

    The user's own files are one source as long as no data set has two.
    """
    by_source = grouped((run for run in runs if run.record.text_source), lambda run: run.record.text_source)
    known = [run for own in by_source.values() for run in own]
    kinds = {"own file" if source.startswith("own file") else source for source in by_source}
    two_files = any(
        len({run.record.text_source for run in own}) > 1 for own in grouped(known, lambda run: run.dataset).values()
    )
    if len(kinds) < 2 and not two_files:
        return []
    parts = []
    for source, own in by_source.items():
        datasets = grouped(own, lambda run: shown(run.method))
        methods = [f"{name} on {', '.join({run.dataset: 0 for run in some})}" for name, some in datasets.items()]
        parts.append(f"{source}: {', '.join(methods)}")
    return [f"Class texts are not all of one source, so these numbers compare in part only. {'; '.join(parts)}."]


def _different_samples(runs: Sequence[Run]) -> list[str]:
    """List the seeds whose methods were trained on different few-shot samples."""
    samples = defaultdict(set)
    for run in runs:
        sampled = run.method.shots and run.record.fewshot_digest and not run.record.transductive
        if sampled and run.key == run.source_key:
            samples[run.dataset, run.method.shots, run.part, run.seed].add(run.record.fewshot_digest)
    texts = [
        f"Methods were trained on different few-shot samples: {dataset}, {shots} shots, seed {seed}."
        for (dataset, shots, _, seed), digests in samples.items()
        if len(digests) > 1
    ]
    return list(dict.fromkeys(texts))


def _different_tests(runs: Sequence[Run]) -> list[str]:
    """Name the data sets whose tests were of different numbers of images."""
    sizes = defaultdict(set)
    for run in runs:
        if run.record.n_test:
            sizes[run.dataset, run.part].add(run.record.n_test)
    return [
        f"Tests were of different numbers of images: {dataset}, {part} classes: {', '.join(map(str, sorted(numbers)))}."
        for (dataset, part), numbers in sizes.items()
        if len(numbers) > 1
    ]


# ----------------------------------------------------------------- settings
def settings(run: Run) -> dict[str, str]:
    """Return the settings that make a run's numbers, {"OPTIM.LR": "0.002", ...}; other methods' left out."""
    config = run.record.config
    node = run.method.trainer.upper()
    own = isinstance(config.get("TRAINER"), dict) and node in config["TRAINER"]  # some share the node of another method
    found = {}
    for name in keys(config):
        other = name.startswith("TRAINER.") and not name.startswith(f"TRAINER.{node}.") and name != "TRAINER.NAME"
        if name in NOT_COMPARED or (own and other) or (name == "DATASET.NUM_SHOTS" and not run.method.shots):
            continue
        if run.record.text_source and name.endswith(".DESCRIPTIONS"):
            continue  # compared by content
        found[name] = str(get(config, name))
    return {**found, "class texts": run.record.text_source} if run.record.text_source else found


def differing_settings(runs: Sequence[Run]) -> list[str]:
    """Return the settings in which runs of one row differ, as "KEY: 5 (seed 1), 10 (seeds 2, 3)"."""
    configs = [(run, settings(run)) for run in runs]
    shared = set.intersection(*(set(config) for _, config in configs)) if configs else set()
    texts = []
    for name in sorted(shared):
        values = defaultdict(set)
        for run, config in configs:
            values[config[name]].add(run.seed)
        if len(values) > 1:
            each = (f"{value} (seed{'s' * (len(seeds) > 1)} {format_ranges(seeds)})" for value, seeds in values.items())
            texts.append(f"{name}: {', '.join(each)}")
    return texts
