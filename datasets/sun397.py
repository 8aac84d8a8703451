"""SUN397 (Xiao et al. 2010), CoOp's split: 397 scenes, 15880 / 3970 / 19850 images."""

from .base import PromptDataset


class SUN397(PromptDataset):
    """Scenes.

    In the split file's names the specifier comes first: ``c/church/outdoor`` is "outdoor church".
    """

    folder = "sun397"
    images = "SUN397"
    split_file = "split_zhou_SUN397.json"
    template = "a photo of a {}."
    homepage = "https://huggingface.co/datasets/zhengli97/prompt_learning_dataset"
    lists_url = "https://drive.google.com/file/d/1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq/view"
    n_classes = 397
    counts = {"train": 15880, "val": 3970, "test": 19850}
