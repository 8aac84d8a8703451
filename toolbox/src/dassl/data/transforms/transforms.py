"""Image transforms from ``cfg.INPUT``."""

import torchvision.transforms as T
from torchvision.transforms import InterpolationMode

from ..._left_out import names_left_out
from ...utils import ChoiceError, get_most_similar_str_to_a_from_b
from .ops import Cutout, GaussianNoise, InstanceNormalization, Random2DTranslation
from .randaugment import RandAugment

__getattr__ = names_left_out(
    __name__, "ImageNetPolicy", "CIFAR10Policy", "SVHNPolicy", "RandAugment2", "RandAugmentFixMatch"
)

AVAI_CHOICES = [
    "random_flip",
    "random_resized_crop",
    "random_crop",
    "center_crop",
    "random_translation",
    "randaugment",
    "colorjitter",
    "randomgrayscale",
    "gaussian_blur",
    "cutout",
    "normalize",
    "gaussian_noise",
    "instance_norm",
]

INTERPOLATION_MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}


def build_transform(cfg, is_train: bool = True, choices=None):
    """Construct the transform of a PIL image to a tensor, (3, H, W).

    The order of steps is fixed; the order of the names in the config does not count.

    Args:
        cfg: The configuration.
        is_train: With augmentation; otherwise resize, crop the centre, normalise.
        choices: Names of steps; default: ``cfg.INPUT.TRANSFORMS``.

    Returns:
        A torchvision ``Compose``; None with ``cfg.INPUT.NO_TRANSFORM``.

    Raises:
        ChoiceError: A step or the interpolation is unknown (a ValueError and AssertionError).
    """
    if cfg.INPUT.NO_TRANSFORM:
        return None
    choices = cfg.INPUT.TRANSFORMS if choices is None else choices
    for choice in choices:
        if choice not in AVAI_CHOICES:
            raise ChoiceError(
                f"The transform {choice!r} (INPUT.TRANSFORMS) is not in this toolbox; available: "
                f"{AVAI_CHOICES}. Did you mean "
                f"{get_most_similar_str_to_a_from_b(str(choice), AVAI_CHOICES)!r}?"
            )
    if cfg.INPUT.INTERPOLATION not in INTERPOLATION_MODES:
        raise ChoiceError(f"INPUT.INTERPOLATION {cfg.INPUT.INTERPOLATION!r} is not one of {list(INTERPOLATION_MODES)}")
    steps = (_train_steps if is_train else _test_steps)(cfg, choices)
    return T.Compose(steps)


def _train_steps(cfg, choices):
    cfg, steps = cfg.INPUT, []
    interpolation = INTERPOLATION_MODES[cfg.INTERPOLATION]
    if "random_crop" not in choices and "random_resized_crop" not in choices:
        steps.append(T.Resize(cfg.SIZE, interpolation=interpolation))
    if "random_translation" in choices:
        steps.append(Random2DTranslation(cfg.SIZE[0], cfg.SIZE[1]))
    if "random_crop" in choices:
        steps.append(T.RandomCrop(cfg.SIZE, padding=cfg.CROP_PADDING))
    if "random_resized_crop" in choices:
        steps.append(T.RandomResizedCrop(cfg.SIZE, scale=cfg.RRCROP_SCALE, interpolation=interpolation))
    if "random_flip" in choices:
        steps.append(T.RandomHorizontalFlip())
    if "randaugment" in choices:
        steps.append(RandAugment(cfg.RANDAUGMENT_N, cfg.RANDAUGMENT_M))
    if "colorjitter" in choices:
        steps.append(
            T.ColorJitter(
                brightness=cfg.COLORJITTER_B,
                contrast=cfg.COLORJITTER_C,
                saturation=cfg.COLORJITTER_S,
                hue=cfg.COLORJITTER_H,
            )
        )
    if "randomgrayscale" in choices:
        steps.append(T.RandomGrayscale(p=cfg.RGS_P))
    if "gaussian_blur" in choices:
        steps.append(T.RandomApply([T.GaussianBlur(cfg.GB_K)], p=cfg.GB_P))
    steps.append(T.ToTensor())
    if "cutout" in choices:
        steps.append(Cutout(cfg.CUTOUT_N, cfg.CUTOUT_LEN))
    if "normalize" in choices:
        steps.append(T.Normalize(mean=cfg.PIXEL_MEAN, std=cfg.PIXEL_STD))
    if "gaussian_noise" in choices:
        steps.append(GaussianNoise(cfg.GN_MEAN, cfg.GN_STD))
    if "instance_norm" in choices:
        steps.append(InstanceNormalization())
    return steps


def _test_steps(cfg, choices):
    cfg = cfg.INPUT
    steps = [
        T.Resize(max(cfg.SIZE), interpolation=INTERPOLATION_MODES[cfg.INTERPOLATION]),
        T.CenterCrop(cfg.SIZE),
        T.ToTensor(),
    ]
    if "normalize" in choices:
        steps.append(T.Normalize(mean=cfg.PIXEL_MEAN, std=cfg.PIXEL_STD))
    if "instance_norm" in choices:
        steps.append(InstanceNormalization())
    return steps
