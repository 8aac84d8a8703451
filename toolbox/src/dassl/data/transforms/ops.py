"""Transforms that torchvision lacks."""

import random

import numpy as np
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F


class Random2DTranslation:
    """Enlarge an image to 9/8 and cut a window of the target size from a random place; or only resize it.

    Draws from Python's generator.

    Args:
        height, width: Size of the result.
        p: Probability of the translation.
        interpolation: Of the resizing.
    """

    def __init__(self, height, width, p=0.5, interpolation=InterpolationMode.BILINEAR):
        self.height, self.width, self.p, self.interpolation = height, width, p, interpolation

    def __call__(self, img):
        if random.uniform(0, 1) > self.p:
            return F.resize(img, [self.height, self.width], self.interpolation)
        height, width = int(round(self.height * 1.125)), int(round(self.width * 1.125))
        img = F.resize(img, [height, width], self.interpolation)
        left = int(round(random.uniform(0, width - self.width)))
        top = int(round(random.uniform(0, height - self.height)))
        return F.crop(img, top, left, self.height, self.width)


class Cutout:
    """Set square patches of a tensor, (3, H, W), to zero. Draws from numpy's generator.

    Args:
        n_holes: Number of patches.
        length: Edge in pixels; a patch may reach over the image's edge.
    """

    def __init__(self, n_holes=1, length=16):
        self.n_holes, self.length = n_holes, length

    def __call__(self, img):
        height, width = img.shape[1:]
        mask = torch.ones_like(img)
        half = self.length // 2
        for _ in range(self.n_holes):
            y, x = np.random.randint(height), np.random.randint(width)
            mask[:, max(y - half, 0) : y + half, max(x - half, 0) : x + half] = 0
        return img * mask


class GaussianNoise:
    """Add noise to a tensor with probability ``p``. The gate draws from Python's generator, the noise from torch's."""

    def __init__(self, mean=0.0, std=0.15, p=0.5):
        self.mean, self.std, self.p = mean, std, p

    def __call__(self, img):
        if random.uniform(0, 1) > self.p:
            return img
        return img + torch.randn(img.size()) * self.std + self.mean


class InstanceNormalization:
    """Give each channel of a tensor, (3, H, W), mean 0 and standard deviation 1."""

    def __init__(self, eps=1e-8):
        self.eps = eps

    def __call__(self, img):
        flat = img.flatten(1)  # 3 H*W
        mean, std = flat.mean(1)[:, None, None], flat.std(1)[:, None, None]
        return (img - mean) / (std + self.eps)
