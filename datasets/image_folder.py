"""A folder of a user's images: a folder for each class, or train, val and test folders of them.

See docs/own_images.md.
"""

import glob
import logging
import os
from collections import Counter

from ..record.files import IMAGE_ENDINGS, is_image_name
from .own_images import PARTS, Found, OwnImages, first, nfc

logger = logging.getLogger(__name__)


class ImageFolder(OwnImages):
    """``DATASET.ROOT/<class>/...`` or ``DATASET.ROOT/<train | val | test>/<class>/...``."""

    folder = "."  # the root itself

    def find(self) -> list[Found]:
        """See :meth:`OwnImages.find`."""
        folders = subfolders(self.image_dir)
        parts = {name: PARTS[name.casefold()] for name in folders if name.casefold() in PARTS}
        if {"train", "test"} <= set(parts.values()) or folders and len(parts) == len(folders):
            check_parts(self.image_dir, folders, parts)
            places = [
                (part, name, f"{outer}/{name}")
                for outer, part in parts.items()
                for name in subfolders(os.path.join(self.image_dir, outer))
            ]
        else:
            places = [("", name, name) for name in folders]
        if not places:
            raise FileNotFoundError(f"No folder of a class in {self.image_dir}. {self._way_out()}")
        loose = [entry.name for entry in os.scandir(self.image_dir) if is_image_name(entry.name)]
        if loose:
            logger.warning(
                "%d images lie outside of the class folders and are left alone: %s", len(loose), first(sorted(loose))
            )
        found: list[Found] = []
        others: Counter[str] = Counter()
        empty = []
        for part, name, place in places:
            paths, skipped = images_below(self.image_dir, place)
            found += [Found(path, nfc(name), part) for path in paths]
            others.update(skipped)
            if not paths:
                empty.append(
                    f"{place!r}" + (f" (it holds {first(f'*{suffix}' for suffix in skipped)})" if skipped else "")
                )
        if empty:
            raise ValueError(
                f"No image in {len(empty)} of {len(places)} class folders of {self.image_dir}: {first(empty)}. "
                f"Images end in {', '.join(IMAGE_ENDINGS)}; add some, or remove the folder."
            )
        if others:
            logger.info(
                "Not images, left alone: %s",
                ", ".join(f"{count} *{suffix}" for suffix, count in sorted(others.items())),
            )
        return found

    def _check_folders(self, root: str):
        self.dataset_dir = root
        if not os.path.isdir(root):
            raise FileNotFoundError(
                f"Folder of images not found: {root}. Name it with --root, or as DATASET.ROOT in the yaml. "
                f"{self._way_out()}"
            )
        splits = glob.glob(os.path.join(glob.escape(root), "*", "split_*.json"))
        if splits:
            raise ValueError(
                f"{root} holds whole data sets "
                f"({first((os.path.relpath(path, root) for path in sorted(splits)), 3)}), not classes. Name the "
                f"folder of your images with --root, or as DATASET.ROOT in the yaml. {self._way_out()}"
            )


def subfolders(folder: str) -> list[str]:
    """Return the names of the folders in a folder, sorted; not hidden ones, nor what macOS and CoOp leave."""
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in ("__MACOSX", "split_fewshot")
    )


def images_below(root: str, place: str) -> tuple[list[str], Counter[str]]:
    """Return the images below a folder, at any depth, relative to ``root``, and the suffixes of the other files."""
    paths, others = [], []
    for folder, inner, names in os.walk(os.path.join(root, place)):
        inner[:] = [name for name in inner if not name.startswith(".")]
        for name in names:
            if is_image_name(name):
                paths.append(os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/"))
            elif not name.startswith("."):
                others.append(os.path.splitext(name)[1].lower())
    return paths, Counter(others)


def check_parts(root: str, folders: list[str], parts: dict[str, str]) -> None:
    """Raise ValueError unless the folders are one train, one test and at most one val."""
    foreign = [name for name in folders if name not in parts]
    if foreign:
        raise ValueError(
            f"{root} holds folders to train and to test on, and also {first(foreign)}: is that a class? Move it away."
        )
    double = [part for part, count in Counter(parts.values()).items() if count > 1]
    if double:
        raise ValueError(
            f"{root} holds more than one folder of {double[0]} images: "
            f"{first(n for n in folders if parts[n] == double[0])}. Keep one."
        )
    missing = {"train", "test"} - set(parts.values())
    if missing:
        raise ValueError(
            f"{root} holds {first(folders)}, but no folder '{min(missing)}'. Rename the one that you mean to "
            f"{min(missing)} on, "
            "or put all classes directly into the root, and a split is made."
        )
