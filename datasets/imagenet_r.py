"""ImageNet-R (Hendrycks et al. 2021): 30,000 renditions (art, toys, drawings), test only."""

from .imagenet import ImageNetVariant


class ImageNetR(ImageNetVariant):
    """200 of ImageNet's classes, not those of `ImageNetA`, numbered from 0: the choice is among them alone."""

    folder = "imagenet-rendition"
    images = "imagenet-r"
    homepage = "https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar"
    n_classes = 200
    counts = {"test": 30000}
