"""UCF101 (Soomro et al. 2012), CoOp's split and frames: 101 actions, 7639 / 1898 / 3783 images."""

from .base import PromptDataset


class UCF101(PromptDataset):
    """Actions, each clip as its middle frame; the first of the official splits, its training list cut 80 to 20."""

    folder = "ucf101"
    images = "UCF-101-midframes"
    split_file = "split_zhou_UCF101.json"
    template = "a photo of a person doing {}."
    homepage = "https://drive.google.com/file/d/10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O/view"
    lists_url = "https://drive.google.com/file/d/1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y/view"
    n_classes = 101
    counts = {"train": 7639, "val": 1898, "test": 3783}
