"""Construct a run's data loaders, on any Dassl, with this project's reader of images and check of the data set."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from dassl.data import data_manager
from dassl.data.datasets import DATASET_REGISTRY
from torchvision.transforms import RandomResizedCrop

from ...record.files import ImageError, needs_remark, read_image
from ...record.list_check import check_lists

SAMPLE = 256  # images whose headers are looked at before training
NO_LABEL = -1


class ImageLoader(data_manager.DatasetWrapper):
    """Dassl's list of images as a torch data set, read by :func:`read_image` whatever the host reads images with."""

    def __getitem__(self, idx: int) -> dict:
        """Return one item with the keys of Dassl's: label, domain, impath, index, img (img2, ... ) and perhaps img0."""
        datum = self.data_source[idx]
        image = _read(datum.impath, self.cfg.DATASET.get("GREY_RANGE", ()))
        item = {key: getattr(datum, key) for key in ("label", "domain", "impath")} | {"index": idx}
        transforms = self.transform if isinstance(self.transform, (list, tuple)) else [self.transform]
        for number, transform in enumerate(transforms, 1):
            views = [transform(image) if transform else image for _ in range(self.k_tfm)]
            item["img" if number == 1 else f"img{number}"] = views if self.k_tfm > 1 else views[0]
        if self.return_img0:
            item["img0"] = self.to_tensor(image)
        return item


class UnlabelledLoader(ImageLoader):
    """The same without labels: each is :data:`NO_LABEL`."""

    def __getitem__(self, idx: int) -> dict:
        """See :class:`ImageLoader`."""
        return {**super().__getitem__(idx), "label": NO_LABEL}


def _read(path: str, grey_range: Sequence[float]) -> Any:
    """Read an image; say what to do where it cannot be read."""
    try:
        return read_image(path, grey_range)
    except ImageError as error:
        way_out = "" if "DATASET.GREY_RANGE" in str(error) else "; mend it, or take it out of the data set"
        raise type(error)(f"{error}{way_out}") from error


def check_place(cfg: Any) -> None:
    """Raise FileNotFoundError if the data are not there, before a CLIP is fetched or loaded for them."""
    known = DATASET_REGISTRY.registered_names()  # Dassl says what is wrong with other names
    cls = DATASET_REGISTRY.get(cfg.DATASET.NAME) if cfg.DATASET.NAME in known else None
    if cls is not None and hasattr(cls, "check_place"):  # a host's has no such check
        cls.check_place(cfg)


def load_data(cfg: Any, wrapper: type[ImageLoader] = ImageLoader) -> Any:
    """Construct Dassl's DataManager of a config, and check what can be known before training.

    Args:
        cfg: The config.
        wrapper: Torch data set of its loaders.

    Raises:
        ValueError: The labels, names and parts of a data set contradict each other; no validation images for TEST.SPLIT
            val.
    """
    manager = data_manager.DataManager(cfg, dataset_wrapper=wrapper)
    for step in getattr(manager.train_loader_x.dataset.transform, "transforms", ()):
        if isinstance(step, RandomResizedCrop):  # Dassl 0.5 does not know INPUT.RRCROP_SCALE
            step.scale = tuple(cfg.INPUT.RRCROP_SCALE)
    dataset = manager.dataset
    if not getattr(dataset, "checked", False):  # our own are, in full
        parts = {"train": dataset.train_x, "val": dataset.val, "test": dataset.test}
        check_lists(parts, f"{type(dataset).__name__} ({type(dataset).__module__})", getattr(dataset, "same_names", ()))
    if cfg.TEST.SPLIT == "val" and not validates(dataset):
        raise ValueError(f"TEST.SPLIT is val, but {no_validation(dataset)}. Set TEST.SPLIT test")
    every = list(chain(dataset.train_x, dataset.test))
    for item in every[:: max(1, len(every) // SAMPLE)]:
        if needs_remark(item.impath):
            _read(item.impath, cfg.DATASET.get("GREY_RANGE", ()))
    return manager


def load_unlabelled(cfg: Any) -> Any:
    """Construct the DataManager of all classes and all training images of a config's data set, without labels."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASET.NUM_SHOTS, cfg.DATASET.SUBSAMPLE_CLASSES, cfg.VERBOSE = -1, "all", False
    cfg.freeze()
    return load_data(cfg, UnlabelledLoader)


def validates(dataset: Any) -> bool:
    """Tell whether a data set has validation images that are not its test images."""
    val, test = ({item.impath for item in items or ()} for items in (dataset.val, dataset.test))
    return bool(val) and val != test


def full_validation(cfg: Any) -> Any | None:
    """Return a loader of all validation images of a config's classes, of which a few-shot run has a sample.

    None if the data set has none of its own.
    """
    whole = cfg.clone()
    whole.defrost()
    whole.DATASET.NUM_SHOTS, whole.VERBOSE = -1, False
    whole.freeze()
    dataset = data_manager.build_dataset(whole)
    if not validates(dataset):
        return None
    return data_manager.build_data_loader(
        whole,
        data_source=dataset.val,
        batch_size=cfg.DATALOADER.TEST.BATCH_SIZE,
        tfm=data_manager.build_transform(whole, is_train=False),
        is_train=False,
        dataset_wrapper=ImageLoader,
    )


def no_validation(dataset: Any) -> str:
    """Say that a data set has no validation images of its own."""
    its = "validates on its test images" if dataset.val else "has no validation images"
    return f"{type(dataset).__name__} {its}"
