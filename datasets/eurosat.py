"""EuroSAT (Helber et al. 2019), CoOp's split: 10 kinds of land, 13500 / 5400 / 8100 images."""

from .base import PromptDataset


class EuroSAT(PromptDataset):
    """Land seen from a satellite, RGB.

    The split file spells the folders' names out: "Annual Crop Land" for ``AnnualCrop``.
    """

    folder = "eurosat"
    images = "2750"
    split_file = "split_zhou_EuroSAT.json"
    template = "a centered satellite photo of {}."
    homepage = "https://huggingface.co/datasets/torchgeo/eurosat"
    lists_url = "https://drive.google.com/file/d/1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o/view"
    n_classes = 10
    counts = {"train": 13500, "val": 5400, "test": 8100}
