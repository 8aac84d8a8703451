"""Frozen weights under autocast, cast once.

Autocast keeps the casts of weights that are trained, and casts frozen ones again in every call; each such cast is then
kept for the backward pass. The bits are the same either way.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

State: TypeAlias = tuple[int, int, torch.dtype]  # of a weight: changes in place, place in memory, dtype of the cast

_casts: WeakIdKeyDictionary = WeakIdKeyDictionary()  # weight: (State, Tensor)


def cast_once(weight: Tensor) -> Tensor:
    """Return a weight as autocast would cast it; itself where it is trained or autocast is off."""
    device = weight.device.type
    if weight.requires_grad or weight.dtype != torch.float32 or not torch.is_autocast_enabled(device):
        return weight
    state: State = (weight._version, weight.data_ptr(), torch.get_autocast_dtype(device))
    kept = _casts.get(weight)
    if kept is None or kept[0] != state:
        with torch.inference_mode(False), torch.no_grad():
            kept = _casts[weight] = (state, weight.detach().to(state[2]))
    return kept[1]
