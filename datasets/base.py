"""PromptDataset, the base class of all data sets: files, few-shot samples, base and new halves.

A data set is a spec: a subclass that says ``folder``, ``images``, ``split_file`` and ``template``. Only where the
layout differs from CoOp's does it also override ``read``.
"""

import hashlib
import logging
import math
import os
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, cast

from dassl.data.datasets import DatasetBase, Datum

from ..record.json_files import read_json
from ..record.list_check import check_lists
from . import canonical, fewshot_cache

logger = logging.getLogger(__name__)


class _Row(NamedTuple):
    """An image that a list names; unlike a Datum, it does not ask the disk for the file."""

    impath: str
    label: int
    classname: str


SUBSAMPLES = ("all", "base", "new")
LARGEST_LABEL = 1 << 30  # a larger one is a mistake, and could be thousands of digits long
MAX_VAL_SHOTS = 4  # CoOp's: validation never gets more images of a class than this


class PromptDataset(DatasetBase):
    """Read a data set in CoOp's layout, with CoOp's few-shot samples and class halves.

    Attributes:
        folder: Name of the data set's folder below the data root. A class without it is abstract and is not registered.
        images: The folder of the images, relative to ``folder``; the split file's paths are relative to it.
        split_file: Name of the JSON file below ``folder``: ``{"train" | "val" | "test": [[path, label, classname],
            ...]}``.
        template: The hand-written prompt, with ``{}`` for the class name.
        homepage: Where the images come from; named in errors.
        lists_url: Where the split file, or the lists in its place, come from; named in errors.
        n_classes: Number of classes of the whole data set; 0 where it is not known beforehand.
        counts: Published numbers of images, ``{"train": n, "val": n, "test": n}``; a set without such a list has no
            such key.
        test_only: The set has no training images of its own: its test images stand in for them, there is no validation
            set, and NUM_SHOTS and SUBSAMPLE_CLASSES have no effect (as with the ImageNet variants of the CoOp family).
        same_names: Class names that several labels share, as two of ImageNet's do.
        drawn: The program draws the images itself, for trying things out.
        checked: The full lists have been checked; see `check_lists`.
        dataset_dir, image_dir: Absolute paths, set on the instance.
        fewshot_digests: ``{"train": ..., "val": ...}``, sha256 of the sampled lists before the classes are halved; see
            `digest`.
        fewshot_digest: The one of "train".
        test_digest: The same of all test images, in order of their paths.
        fewer_shots: Numbers of training images by class name, of classes that have fewer than the shots.
    """

    folder = ""
    images = "images"
    split_file = ""
    template = "a photo of a {}."
    homepage = ""
    lists_url = ""
    n_classes = 0
    counts: dict[str, int] = {}
    test_only = False
    same_names: Sequence[str] = ()
    drawn = False
    checked = False
    fewer_shots: dict[str, int]
    test_digest = ""

    def __init__(self, cfg):
        """Read the files, draw the few-shot sample, keep the wanted classes.

        Args:
            cfg: The run's config; DATASET.{ROOT, NUM_SHOTS, SUBSAMPLE_CLASSES}, SEED and VERBOSE are read.

        Raises:
            FileNotFoundError: The root, the folder, the split file or an image is missing.
            ValueError: A setting is not allowed, the split file or few-shot cache is damaged, a class has fewer images
                than shots.
        """
        num_shots = cfg.DATASET.NUM_SHOTS
        subsample = cfg.DATASET.get("SUBSAMPLE_CLASSES", "all")
        check_num_shots(num_shots)
        check_subsample(subsample)

        self.configure(cfg)
        root = _root(cfg)
        self.prepare(root)
        self._set_folders(root)
        train, val, test = self.read()
        if not test:
            place = os.path.join(self.dataset_dir, self.split_file)
            raise ValueError(f"{type(self).__name__}: no test image is listed in {place}.")
        parts = {"train": train, "val": val, "test": test}
        check_lists(parts, os.path.join(self.dataset_dir, self.split_file), self.same_names)
        self.checked = True
        self._compare_counts(train, val, test)

        if self.test_only and subsample != "all":
            logger.info("%s is a test-only set: SUBSAMPLE_CLASSES %s has no effect", type(self).__name__, subsample)
        train, val = self._choose(cfg, train, val, test)
        if cfg.VERBOSE:
            self._log_sample(num_shots, cfg.SEED)

        if not self.test_only:
            train, val, test = subsample_classes(train, test if val is None else val, test, subsample=subsample)
            if not test:
                name = type(self).__name__
                raise ValueError(
                    f"{name}: no class of DATASET.SUBSAMPLE_CLASSES {subsample} has a test image in {self.dataset_dir}."
                )
        super().__init__(train_x=only_datums(train), val=val and only_datums(val), test=only_datums(test))

    @classmethod
    def check_place(cls, cfg: Any) -> None:
        """Raise FileNotFoundError unless the folders of a data set are there; no list is read."""
        if not cls.drawn:
            found = cls.__new__(cls)
            found.configure(cfg)
            found._set_folders(_root(cfg))

    @classmethod
    def listed(cls, cfg: Any) -> "PromptDataset | None":
        """Return a data set that has read its lists and done no more: nothing is written, and no image is looked for.

        Returns:
            An instance for :meth:`choose_again`; None if the data are not there.

        Raises:
            ValueError: A list is damaged.
        """
        found = cls.__new__(cls)
        try:
            found.configure(cfg)
            found._set_folders(_root(cfg))
            cast(Any, found).as_datums = lambda rows: [
                _Row(found.path_of(path), label, name) for path, label, name in rows
            ]
            found._lists = found.read_again()
        except OSError:
            return None
        return found if found._lists else None

    def choose_again(self, cfg: Any) -> None:
        """Draw the few-shot sample of a config from the lists of :meth:`listed`, and set the digests.

        Raises:
            ValueError: A class has fewer images than shots, or a cached sample does not fit.
        """
        self._choose(cfg, *self._lists)

    def configure(self, cfg: Any) -> None:
        """Keep what is needed of a config to find the files. Does nothing here."""

    def read_again(self) -> tuple[Any, Any, Any] | None:
        """Return what :meth:`read` returns; None if that would have to write."""
        return self.read()

    def prepare(self, root_dir: str) -> None:
        """Make sure that the files are there.

        Does nothing here: a hook for data sets that can write or fetch themselves.
        """

    def read(self) -> tuple[Any, Any, Any]:
        """Return the full (train, val, test) lists, all classes, from the split file.

        A subclass that overrides this may return None for val, where the test images validate too. In place of Datum,
        which asks the disk for each file, it may return any records with ``impath``, ``label`` and ``classname``.
        """
        path = os.path.join(self.dataset_dir, self.split_file)
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"Split file not found: {path}. It fixes which images train, validate and test, so none is made up "
                "here. "
                f"{self._way_out()}"
            )
        split = read_split(path, keys=("test",) if self.test_only else ("train", "val", "test"))
        train, val, test = (self.as_datums(split.get(name, [])) for name in ("train", "val", "test"))
        return train, val, test

    def as_datums(self, rows: Iterable[Sequence]) -> list:
        """Turn rows (path relative to ``image_dir``, label, classname) into Datum; every image must exist."""
        rows = [(self.path_of(path), label, classname) for path, label, classname in rows]
        missing = [path for path, _, _ in rows if not os.path.isfile(path)]
        if missing:
            raise FileNotFoundError(
                f"{type(self).__name__}: {len(missing)} of {len(rows)} listed images do not exist, the first is "
                f"{missing[0]}. "
                f"{self._way_out()}"
            )
        return [Datum(impath=path, label=label, classname=classname) for path, label, classname in rows]

    def path_of(self, path: str) -> str:
        """Return the place of an image that a list names; lists made on Windows have backslashes."""
        full = os.path.join(self.image_dir, *path.split("/"))
        return full if "\\" not in path or os.path.isfile(full) else self.path_of(path.replace("\\", "/"))

    def lines_of(self, name: str) -> list[str]:
        """Return the lines of a text file below ``dataset_dir``, stripped, without the empty ones."""
        path = os.path.join(self.dataset_dir, name)
        if not os.path.isfile(path):
            raise FileNotFoundError(f"File not found: {path}. {self._way_out()}")
        with open(path, encoding="utf-8") as file:
            return [line.strip() for line in file if line.strip()]

    def _choose(self, cfg: Any, train: Any, val: Any, test: Any) -> tuple[Any, Any]:
        """Return the training and validation images of a config, before the classes are halved; set the digests."""
        num_shots = cfg.DATASET.NUM_SHOTS
        self.fewer_shots = {}
        if self.test_only:
            train, val = test, None
        elif num_shots >= 1:
            self.fewer_shots = find_fewer_shots(train, num_shots, cfg.DATASET.get("FEWER_SHOTS", False))
            train, val = self._sample_fewshot(train, val, num_shots, cfg.SEED)
        self.fewshot_digests = {"train": digest(train, self.image_dir), "val": digest(val or [], self.image_dir)}
        self.fewshot_digest = self.fewshot_digests["train"]
        self.test_digest = self.test_digest or digest(sorted(test, key=attrgetter("impath")), self.image_dir)
        return train, val

    def _set_folders(self, root: str) -> None:
        """Set and check the folders."""
        self.dataset_dir = os.path.join(root, self.folder)
        self.image_dir = os.path.normpath(os.path.join(self.dataset_dir, self.images))
        self._check_folders(root)

    def _check_folders(self, root: str) -> None:
        """Raise FileNotFoundError unless the folders exist."""
        if not os.path.isdir(root):
            raise FileNotFoundError(
                f"Data root not found: {root}. It should hold the folder '{self.folder}'; name another root with "
                "--root (or the "
                f"environment's DATA). {self._way_out()}"
            )
        for path in (self.dataset_dir, self.image_dir):
            if not os.path.isdir(path):
                raise FileNotFoundError(f"Folder not found: {path}. {self._way_out()}")

    def _compare_counts(self, train: Sequence | None, val: Sequence | None, test: Sequence) -> None:
        """Warn where the data are not the whole published set, as after an interrupted copy."""
        found = {"train": len(train or []), "val": len(val or []), "test": len(test)}
        differ = [
            f"{found[part]} {part} images instead of {count}"
            for part, count in self.counts.items()
            if found[part] != count
        ]
        classes = len({item.label for item in test})
        if self.n_classes and classes != self.n_classes:
            differ.insert(0, f"{classes} classes instead of {self.n_classes}")
        if differ:
            what = f"{type(self).__name__} in {self.dataset_dir}"
            logger.warning("%s has %s: results will not compare with published ones", what, ", ".join(differ))

    def _log_sample(self, num_shots: int, seed: int) -> None:
        """Log the digest of the training list, and which of CoOp's samples it is."""
        name, fewshot = type(self).__name__, num_shots >= 1 and not self.test_only
        what = f"{num_shots} shots, seed {seed}" if fewshot else "all images"
        verdict = canonical.verdict(name, num_shots, seed, self.fewshot_digests) if fewshot else ""
        logger.info(
            "%s, %s: digest of the training list %s%s", name, what, self.fewshot_digest, verdict and f" ({verdict})"
        )

    def _way_out(self) -> str:
        """Say where the files come from; the end of errors about missing ones."""
        where = f"Images: {self.homepage}. " if self.homepage else ""
        where += f"{self.split_file or 'Lists'}: {self.lists_url}. " if self.lists_url else ""
        layout = (
            os.path.join("<root>", self.folder, self.split_file)
            if self.split_file
            else os.path.join("<root>", self.folder)
        )
        return f"{where}DATASETS.md says where to get {layout} and how the folders must look."

    def _sample_fewshot(self, train: list, val: list | None, num_shots: int, seed: int) -> tuple[list, list | None]:
        """Draw CoOp's few-shot sample, or take the one that CoOp left in its cache."""
        # CoOp seeds once, in train.py, and draws here first. Seeding here gives the same lists whatever ran in between.
        if seed >= 0:
            random.seed(seed)
        sampled = (
            self.generate_fewshot_dataset(train, num_shots=num_shots),
            None if val is None else self.generate_fewshot_dataset(val, num_shots=min(num_shots, MAX_VAL_SHOTS)),
        )
        cache = os.path.join(self.dataset_dir, "split_fewshot", f"shot_{num_shots}-seed_{seed}.pkl")
        if not os.path.isfile(cache):
            return sampled
        cached = fewshot_cache.load(cache, train, val, self.image_dir)
        cached = (cached[0], sampled[1] if cached[1] is None else cached[1])
        same = [digest(ours or [], self.image_dir) for ours in sampled] == [
            digest(theirs or [], self.image_dir) for theirs in cached
        ]
        comparison = f"; it {'equals' if same else 'DIFFERS from'} what seed {seed} draws" if seed >= 0 else ""
        logger.info("Few-shot sample taken from CoOp's cache %s%s", cache, comparison)
        return cached


def _root(cfg: Any) -> str:
    return os.path.abspath(os.path.expanduser(os.path.expandvars(cfg.DATASET.ROOT)))


def check_num_shots(num_shots: int) -> None:
    """Raise ValueError unless ``num_shots`` is -1 (all images) or at least 1."""
    if num_shots != -1 and num_shots < 1:
        raise ValueError(
            f"DATASET.NUM_SHOTS is {num_shots}; allowed are 1, 2, 3, ... images a class, or -1 for all of them."
        )


def find_fewer_shots(train: Sequence[Any], num_shots: int, allowed: bool) -> dict[str, int]:
    """Return the numbers of training images, by class name, of classes that have fewer than ``num_shots``.

    Args:
        train: All training images.
        num_shots: Images a class that are to be drawn.
        allowed: DATASET.FEWER_SHOTS: such a class gives what it has.

    Raises:
        ValueError: There are such classes, and it is not allowed.
    """
    counts = Counter(item.label for item in train)
    names = {item.label: item.classname for item in train}
    fewer = {names[label]: count for label, count in sorted(counts.items()) if count < num_shots}
    if not fewer:
        return {}
    short = [f"{name} ({count})" for name, count in fewer.items()]
    said = f"{', '.join(short[:10])}{', ...' if len(short) > 10 else ''}"
    if not allowed:
        raise ValueError(
            f"DATASET.NUM_SHOTS {num_shots} is more than the training images of {len(short)} classes: {said}. Lower it "
            f"to {min(counts.values())}, use -1 for all images, or set DATASET.FEWER_SHOTS True to take what there is."
        )
    logger.warning(
        "DATASET.FEWER_SHOTS: %d of %d classes have fewer than %d images, and give all: %s",
        len(short),
        len(counts),
        num_shots,
        said,
    )
    return fewer


def check_subsample(subsample: str) -> None:
    """Raise ValueError unless ``subsample`` names one of CoOp's class selections."""
    if subsample not in SUBSAMPLES:
        raise ValueError(f"DATASET.SUBSAMPLE_CLASSES is '{subsample}'; allowed are {', '.join(SUBSAMPLES)}.")


def read_split(path: str, keys: Sequence[str] = ("train", "val", "test")) -> dict[str, list]:
    """Read a split file in CoOp's form.

    Raises:
        ValueError: It is not JSON, holds a key twice, lacks one of ``keys``, or holds a row that is not [path, label,
            classname].
    """
    try:
        split = read_json(path)
    except ValueError as error:  # covers JSONDecodeError and UnicodeDecodeError
        raise ValueError(
            f"Split file {path} is not valid JSON ({error}). Mend it, or fetch it again; DATASETS.md says from where."
        ) from error
    if not isinstance(split, dict) or any(not isinstance(split.get(key), list) for key in keys):
        raise ValueError(f"Split file {path} should be an object with the lists {', '.join(keys)}.")
    for name in ("train", "val", "test"):
        for row in split.get(name, []):
            fits = isinstance(row, list) and [type(part) for part in row] == [str, int, str]
            if not fits or abs(row[1]) > LARGEST_LABEL:
                raise ValueError(
                    f"Split file {path}, '{name}': a row is {_shown(row)}; wanted is [image path, label, class name]."
                )
    return split


def _shown(row: Any) -> str:
    """Write a row of a split file, cut if it is long."""
    try:
        text = repr(row)
    except RecursionError:
        text = "nested lists"
    return text if len(text) <= 100 else f"{text[:97]}..."


def subsample_classes(train: list, val: list, test: list, subsample: str = "all") -> tuple[list, list, list]:
    """Keep all classes, the first half ("base") or the second ("new"), relabelled from 0.

    The halves are those of the sorted labels of ``train``; with an odd number of classes base has one more.
    """
    check_subsample(subsample)
    if subsample == "all":
        return train, val, test
    labels = sorted({item.label for item in train})
    middle = math.ceil(len(labels) / 2)
    kept = labels[:middle] if subsample == "base" else labels[middle:]
    if not kept:
        raise ValueError(f"DATASET.SUBSAMPLE_CLASSES {subsample} leaves no class of {len(labels)}.")
    relabel = {label: new for new, label in enumerate(kept)}

    def kept_of(items: list) -> list:
        return [
            Datum(impath=item.impath, label=relabel[item.label], classname=item.classname)
            for item in items
            if item.label in relabel
        ]

    return kept_of(train), kept_of(val), kept_of(test)


def only_datums(items: Iterable[Any]) -> list:
    """Turn records into Datum, which checks that the file exists; a Datum stays as it is."""
    return [
        item if isinstance(item, Datum) else Datum(impath=item.impath, label=item.label, classname=item.classname)
        for item in items
    ]


def digest(items: Iterable[Any], image_dir: str) -> str:
    """Return the sha256 of a list of Datum, independent of where the data lie.

    One line an item: path relative to ``image_dir``, label, class name, joined by tabs.
    """
    lines = (f"{fewshot_cache.relative(item.impath, image_dir)}\t{item.label}\t{item.classname}" for item in items)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
