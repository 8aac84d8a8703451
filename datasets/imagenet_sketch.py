"""ImageNet-Sketch (Wang et al. 2019): 50,889 drawings of ImageNet's classes, test only."""

from .imagenet import ImageNetVariant


class ImageNetSketch(ImageNetVariant):
    """Black and white drawings of the 1000 classes."""

    folder = "imagenet-sketch"
    homepage = "https://github.com/HaohanWang/ImageNet-Sketch"
    n_classes = 1000
    counts = {"test": 50889}
