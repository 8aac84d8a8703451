"""Food-101 (Bossard et al. 2014), CoOp's split: 101 dishes, 50500 / 20200 / 30300 images."""

from .base import PromptDataset


class Food101(PromptDataset):
    """Dishes; not the official split of 750 to 250 a class."""

    folder = "food-101"
    split_file = "split_zhou_Food101.json"
    template = "a photo of {}, a type of food."
    homepage = "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/"
    lists_url = "https://drive.google.com/file/d/1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl/view"
    n_classes = 101
    counts = {"train": 50500, "val": 20200, "test": 30300}
