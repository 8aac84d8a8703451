"""ImageNet (Deng et al. 2009, the 1000 classes of 2012), and the base class of its test-only variants."""

import os
from typing import NamedTuple

from tqdm import tqdm

from ..record.files import IMAGE_ENDINGS, is_image_name
from .base import PromptDataset


class Listed(NamedTuple):
    """An image as found in its folder. A Datum would ask the disk again for each file, and there are 1.3 million."""

    impath: str
    label: int
    classname: str


class _InFolders(PromptDataset):
    """A set without split file: ``classnames.txt`` names the classes, and each class is a folder of images."""

    lists_url = "https://drive.google.com/file/d/1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF/view"
    same_names = ("missile", "sunglasses")

    def classnames_by_folder(self) -> dict[str, str]:
        """Return the class names by folder (``n01440764``: "tench"), in order of ``classnames.txt``."""
        names = {}
        for line in self.lines_of("classnames.txt"):
            folder, _, name = line.partition(" ")
            if not name:
                raise ValueError(
                    f"classnames.txt in {self.dataset_dir}: the line '{line}' should be a folder's name, a blank "
                    "and the class name. "
                    f"{self._way_out()}"
                )
            names[folder] = name
        return names

    def list_folder(self, folder: str) -> list[Listed]:
        """List the images of ``folder``, one sub-folder a class; labels number the sub-folders by name."""
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"Folder not found: {folder}. {self._way_out()}")
        with os.scandir(folder) as entries:
            found = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
        if not found:
            raise FileNotFoundError(
                f"{folder} has no sub-folders; its images should be sorted into one for each class, such as "
                "n01440764 (for ImageNet, "
                f"torchvision.datasets.ImageNet unpacks the archives that way). {self._way_out()}"
            )
        names = self.classnames_by_folder()
        strange = [name for name in found if name not in names]
        if strange:
            raise ValueError(
                f"{folder}: {len(strange)} of {len(found)} sub-folders are not in classnames.txt, the first is "
                f"'{strange[0]}'. "
                f"{self._way_out()}"
            )
        return self.list_classes(folder, {name: names[name] for name in found})

    def list_classes(self, folder: str, names: dict[str, str]) -> list[Listed]:
        """List the images of the sub-folders ``names``, labelled by their order there.

        Images come by name, so that a seed means the same ones on every disk.
        """
        items: list[Listed] = []
        for label, (name, classname) in enumerate(
            tqdm(names.items(), desc=f"listing {folder}", disable=None, leave=False)
        ):
            path = os.path.join(folder, name)
            if not os.path.isdir(path):
                raise FileNotFoundError(f"Folder not found: {path}. {self._way_out()}")
            with os.scandir(path) as entries:  # tells files from folders without a further call
                images = sorted(entry.path for entry in entries if is_image_name(entry.name) and entry.is_file())
            if not images:
                raise FileNotFoundError(f"{path} holds no image ({', '.join(IMAGE_ENDINGS)}). {self._way_out()}")
            items += [Listed(image, label, classname) for image in images]
        return items


class ImageNet(_InFolders):
    """1000 classes; the official validation images are the test images, and validate too.

    CoOp lists a class in the order of its disk, and so draws another few-shot sample on each machine; here it is the
    order of the file names. CoOp's ``preprocessed.pkl`` is not read: it is such a listing, with the absolute paths of
    one machine, and a pickle can run code. A sample that CoOp left in ``split_fewshot/`` is used, as with any data set.

    Two pairs of classes share a name: "missile" (labels 657, 744) and "sunglasses" (836, 837).
    """

    folder = "imagenet"
    homepage = "https://image-net.org/download.php (ILSVRC2012; needs an account)"
    n_classes = 1000
    counts = {"train": 1281167, "test": 50000}

    def read(self) -> tuple[list[Listed], None, list[Listed]]:
        """Return the training list, None, and the test list, from ``images/train`` and ``images/val``."""
        train, test = (self.list_folder(os.path.join(self.image_dir, part)) for part in ("train", "val"))
        labels = [dict.fromkeys((item.label, item.classname) for item in part) for part in (train, test)]
        if labels[0] != labels[1]:
            raise ValueError(
                f"{self.image_dir}: train has {len(labels[0])} class folders and val {len(labels[1])}, and they are "
                "not the same. "
                f"Complete both: labels number the folders. {self._way_out()}"
            )
        return train, None, test


class ImageNetVariant(_InFolders):
    """A test-only set with classes of ImageNet."""

    test_only = True

    def read(self) -> tuple[None, None, list[Listed]]:
        """Return no training and validation list, and the test list."""
        return None, None, self.list_folder(self.image_dir)
