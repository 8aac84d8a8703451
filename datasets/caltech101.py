"""Caltech101 (Fei-Fei, Fergus, Perona 2004), CoOp's split: 100 classes, 4128 / 1649 / 2465 images."""

from .base import PromptDataset


class Caltech101(PromptDataset):
    """Objects of 100 kinds; the background class and the second face class of the original are left out."""

    folder = "caltech-101"
    images = "101_ObjectCategories"
    split_file = "split_zhou_Caltech101.json"
    template = "a photo of a {}."
    homepage = "https://data.caltech.edu/records/mzrjq-6wc02"
    lists_url = "https://drive.google.com/file/d/1hyarUivQE36mY6jSomru6Fjd-JzwcCzN/view"
    n_classes = 100
    counts = {"train": 4128, "val": 1649, "test": 2465}
