"""ImageNet-A (Hendrycks et al. 2021): 7,500 photographs that classifiers get wrong, test only."""

from .imagenet import ImageNetVariant


class ImageNetA(ImageNetVariant):
    """200 of ImageNet's classes, numbered from 0: the choice is among them alone."""

    folder = "imagenet-adversarial"
    images = "imagenet-a"
    homepage = "https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar"
    n_classes = 200
    counts = {"test": 7500}
