"""Running averages of the numbers a training loop prints."""

from collections import defaultdict

import torch


class AverageMeter:
    """The last value and the average of a series.

    Args:
        ema: Average exponentially, 0.9 of the old and 0.1 of the new, instead of over all values.
    """

    def __init__(self, ema: bool = False):
        self.ema = ema
        self.reset()

    def reset(self) -> None:
        self.val = 0
        self.avg = 0
        self.sum = 0
        self.count = 0

    def update(self, val, n: int = 1) -> None:
        """Add ``val`` (number or one-element tensor), counted ``n`` times."""
        if isinstance(val, torch.Tensor):
            val = val.item()
        self.val = val
        self.sum += val * n
        self.count += n
        self.avg = self.avg * 0.9 + self.val * 0.1 if self.ema else self.sum / self.count


class MetricMeter:
    """An ``AverageMeter`` for each name of a dict of numbers.

    ``str()`` gives ``name value (average)`` for each, joined by ``delimiter``.
    """

    def __init__(self, delimiter: str = " "):
        self.meters = defaultdict(AverageMeter)
        self.delimiter = delimiter

    def update(self, input_dict) -> None:
        """Add a dict of numbers or one-element tensors; None is ignored.

        Raises:
            TypeError: It is neither.
        """
        if input_dict is None:
            return
        if not isinstance(input_dict, dict):
            raise TypeError(
                f"MetricMeter.update takes a dict of numbers, got {type(input_dict).__name__}; "
                f"forward_backward must return such a dict"
            )
        for name, value in input_dict.items():
            self.meters[name].update(value)

    def __str__(self):
        return self.delimiter.join(f"{name} {m.val:.4f} ({m.avg:.4f})" for name, m in self.meters.items())
