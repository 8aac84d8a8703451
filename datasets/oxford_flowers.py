"""Oxford Flowers (Nilsback, Zisserman 2008), CoOp's split: 102 flowers, 4093 / 1633 / 2463 images."""

from .base import PromptDataset


class OxfordFlowers(PromptDataset):
    """Flowers; not the official split, which has 10 training images a class."""

    folder = "oxford_flowers"
    images = "jpg"
    split_file = "split_zhou_OxfordFlowers.json"
    template = "a photo of a {}, a type of flower."
    homepage = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
    lists_url = "https://drive.google.com/file/d/1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT/view"
    n_classes = 102
    counts = {"train": 4093, "val": 1633, "test": 2463}
