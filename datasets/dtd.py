"""Describable Textures (Cimpoi et al. 2014), CoOp's split: 47 textures, 2820 / 1128 / 1692 images."""

from .base import PromptDataset


class DescribableTextures(PromptDataset):
    """Textures by adjective (banded, blotchy, ...); none of the ten official splits."""

    folder = "dtd"
    split_file = "split_zhou_DescribableTextures.json"
    template = "{} texture."
    homepage = "https://www.robots.ox.ac.uk/~vgg/data/dtd/"
    lists_url = "https://drive.google.com/file/d/1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x/view"
    n_classes = 47
    counts = {"train": 2820, "val": 1128, "test": 1692}
