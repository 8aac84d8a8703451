"""Stanford Cars (Krause et al. 2013), CoOp's split: 196 models, 6509 / 1635 / 8041 images."""

from .base import PromptDataset


class StanfordCars(PromptDataset):
    """Car models by year, make and type ("2012 Audi TTS Coupe"); the images lie in ``cars_train`` and ``cars_test``."""

    folder = "stanford_cars"
    images = "."
    split_file = "split_zhou_StanfordCars.json"
    template = "a photo of a {}."
    homepage = "https://github.com/pytorch/vision/issues/7545"
    lists_url = "https://drive.google.com/file/d/1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT/view"
    n_classes = 196
    counts = {"train": 6509, "val": 1635, "test": 8041}
