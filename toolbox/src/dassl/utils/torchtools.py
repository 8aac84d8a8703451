"""Layers: count, freeze, initialise."""

import torch.nn as nn

from .tools import tolist_if_not


def count_num_param(model=None, params=None) -> int:
    """Count the numbers in a model's parameters, or in a list of parameters or of parameter groups.

    Raises:
        ValueError: Neither was given.
    """
    if model is not None:
        return sum(p.numel() for p in model.parameters())
    if params is None:
        raise ValueError("count_num_param needs a model or a list of parameters; got neither")
    count = 0
    for item in params:
        count += sum(p.numel() for p in item["params"]) if isinstance(item, dict) else item.numel()
    return count


def open_all_layers(model) -> None:
    """Put a model into training mode and let all its parameters be trained."""
    model.train()
    for p in model.parameters():
        p.requires_grad = True


def open_specified_layers(model, open_layers) -> None:
    """Train the named children of a model, freeze the others and put them into eval mode.

    Args:
        model: A module, or one wrapped by DataParallel.
        open_layers: A child's name, or a list of names.

    Raises:
        ValueError: The model has no such child.
    """
    if isinstance(model, nn.DataParallel):
        model = model.module
    open_layers = tolist_if_not(open_layers)
    children = dict(model.named_children())
    for name in open_layers:
        if name not in children:
            raise ValueError(f"{name!r} is not a child of the model; it has {list(children)}")
    for name, module in children.items():
        module.train(name in open_layers)
        for p in module.parameters():
            p.requires_grad = name in open_layers


_INITS = {
    "normal": lambda w, gain: nn.init.normal_(w, 0.0, gain),
    "xavier": lambda w, gain: nn.init.xavier_normal_(w, gain=gain),
    "kaiming": lambda w, gain: nn.init.kaiming_normal_(w, a=0, mode="fan_in"),
    "orthogonal": lambda w, gain: nn.init.orthogonal_(w, gain=gain),
}


def init_network_weights(model, init_type: str = "normal", gain: float = 0.02) -> None:
    """Initialise convolutions and linear layers; norms get weight 1; all biases 0.

    Args:
        init_type: One of normal, xavier, kaiming, orthogonal.
        gain: Standard deviation (normal) or gain (xavier, orthogonal).

    Raises:
        ValueError: Another ``init_type``.
    """
    if init_type not in _INITS:
        raise ValueError(f"init_type {init_type!r} is not one of {list(_INITS)}")
    for module in model.modules():
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            _INITS[init_type](weight.data, gain)
        elif isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm)):
            if weight is not None:
                nn.init.ones_(weight.data)
        else:
            continue
        if bias is not None:
            nn.init.zeros_(bias.data)
