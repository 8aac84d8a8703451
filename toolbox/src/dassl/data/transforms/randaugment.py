"""RandAugment as Dassl.pytorch does it: same operations, same strengths, same random draws.

Cubuk et al., *RandAugment: Practical automated data augmentation with a reduced search space*, CVPR Workshops 2020.
"""

import random

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from ..._left_out import names_left_out

__getattr__ = names_left_out(__name__, "RandAugment2", "RandAugmentFixMatch")

GREY = (125, 123, 114)  # colour of the pixels that are cut out


class RandAugment:
    """Apply operations drawn with repetition, all of one strength.

    Draws from Python's generator; the place of a cut-out from numpy's.

    Args:
        n: Number of operations.
        m: Strength, 0 to 30: where it lies in the range of each operation.

    Raises:
        ValueError: ``m`` is outside its range.
    """

    def __init__(self, n=2, m=10):
        if not 0 <= m <= 30:
            raise ValueError(f"INPUT.RANDAUGMENT_M is {m}; allowed is 0 to 30")
        self.n, self.m = n, m

    def __call__(self, img):
        for operation, low, high in random.choices(OPERATIONS, k=self.n):
            img = operation(img, self.m / 30 * (high - low) + low)
        return img


def _sign():
    """Draw -1 or 1."""
    return -1 if random.random() > 0.5 else 1


def _moved(row):
    """Make an operation that moves each pixel; ``row(value)`` gives the six numbers of Pillow's affine transform."""
    return lambda img, value: img.transform(img.size, Image.AFFINE, row(_sign() * value))


def _enhanced(kind):
    """Make an operation from a class of Pillow's ``ImageEnhance``."""
    return lambda img, value: kind(img).enhance(value)


def _brighter_then_solarized(img, value):
    pixels = np.minimum(np.asarray(img).astype(int) + value, 255)
    return ImageOps.solarize(Image.fromarray(pixels.astype(np.uint8)), 128)


def _cut_out(img, value):
    """Paint a square of ``value`` pixels, its centre anywhere in the image."""
    width, height = img.size
    left, top = (int(max(0, np.random.uniform(side) - value / 2)) for side in (width, height))
    img = img.copy()
    ImageDraw.Draw(img).rectangle((left, top, min(width, left + value), min(height, top + value)), GREY)
    return img


# Operation, and its strength at m = 0 and m = 30. Pixels and degrees do not grow with the image.
OPERATIONS = (
    (lambda img, _: ImageOps.autocontrast(img), 0, 1),
    (lambda img, _: ImageOps.equalize(img), 0, 1),
    (lambda img, _: ImageOps.invert(img), 0, 1),
    (lambda img, degrees: img.rotate(_sign() * degrees), 0, 30),
    (lambda img, bits: ImageOps.posterize(img, int(bits)), 4, 8),
    (lambda img, threshold: ImageOps.solarize(img, threshold), 0, 256),
    (_brighter_then_solarized, 0, 110),
    (_enhanced(ImageEnhance.Color), 0.1, 1.9),
    (_enhanced(ImageEnhance.Contrast), 0.1, 1.9),
    (_enhanced(ImageEnhance.Brightness), 0.1, 1.9),
    (_enhanced(ImageEnhance.Sharpness), 0.1, 1.9),
    (_moved(lambda shear: (1, shear, 0, 0, 1, 0)), 0.0, 0.3),
    (_moved(lambda shear: (1, 0, 0, shear, 1, 0)), 0.0, 0.3),
    (_cut_out, 0, 40),
    (_moved(lambda pixels: (1, 0, pixels, 0, 1, 0)), 0.0, 100),
    (_moved(lambda pixels: (1, 0, 0, 0, 1, pixels)), 0.0, 100),
)
