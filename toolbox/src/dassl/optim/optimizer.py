"""Optimisers from ``cfg.OPTIM``."""

import warnings

import torch
import torch.nn as nn

from ..utils import get_most_similar_str_to_a_from_b, tolist_if_not

AVAI_OPTIMS = ["adam", "amsgrad", "sgd", "rmsprop", "adamw"]


def build_optimizer(model, optim_cfg, param_groups=None):
    """Construct the optimiser that ``optim_cfg`` describes.

    Args:
        model: A module, whose parameters are all taken, frozen ones too (their places in a checkpoint depend on it);
            or parameters; or a list of parameter groups.
        optim_cfg: ``cfg.OPTIM``.
        param_groups: Taken instead of ``model``, if given; then STAGED_LR is ignored.

    Raises:
        ValueError: The optimiser is unknown, there is no parameter, or STAGED_LR would leave some untrained.
        TypeError: STAGED_LR without a module.
    """
    name, lr = optim_cfg.NAME, optim_cfg.LR
    if name not in AVAI_OPTIMS:
        raise ValueError(
            f"OPTIM.NAME {name!r} is not in this toolbox; available: {AVAI_OPTIMS}. Did you mean "
            f"{get_most_similar_str_to_a_from_b(name, AVAI_OPTIMS)!r}?"
        )
    if param_groups is not None:
        if optim_cfg.STAGED_LR:
            warnings.warn("OPTIM.STAGED_LR is ignored, because param_groups was given", stacklevel=2)
    elif optim_cfg.STAGED_LR:
        param_groups = _staged_groups(model, optim_cfg)
    else:
        param_groups = model.parameters() if isinstance(model, nn.Module) else model

    param_groups = list(param_groups)
    if not param_groups:
        raise ValueError(
            f"No parameter to optimise in {type(model).__name__}: give the module that holds those to be learnt"
        )

    common = dict(lr=lr, weight_decay=optim_cfg.WEIGHT_DECAY)
    betas = (optim_cfg.ADAM_BETA1, optim_cfg.ADAM_BETA2)
    if name == "sgd":
        return torch.optim.SGD(
            param_groups,
            momentum=optim_cfg.MOMENTUM,
            dampening=optim_cfg.SGD_DAMPNING,
            nesterov=optim_cfg.SGD_NESTEROV,
            **common,
        )
    if name == "rmsprop":
        return torch.optim.RMSprop(param_groups, momentum=optim_cfg.MOMENTUM, alpha=optim_cfg.RMSPROP_ALPHA, **common)
    if name == "adamw":
        return torch.optim.AdamW(param_groups, betas=betas, **common)
    return torch.optim.Adam(param_groups, betas=betas, amsgrad=name == "amsgrad", **common)


def _staged_groups(model, optim_cfg):
    """Split a module's children into those with the small learning rate and the new ones."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"OPTIM.STAGED_LR needs a module, to find NEW_LAYERS in; got {type(model).__name__}")
    if isinstance(model, nn.DataParallel):
        model = model.module
    new_layers = (
        tolist_if_not(optim_cfg.NEW_LAYERS) if isinstance(optim_cfg.NEW_LAYERS, str) else list(optim_cfg.NEW_LAYERS)
    )
    names = [name for name, _ in model.named_children()]
    for layer in new_layers:
        if layer not in names:
            raise ValueError(f"OPTIM.NEW_LAYERS names {layer!r}, which is not a child of the model: {names}")
    if not new_layers:
        warnings.warn(
            f"OPTIM.STAGED_LR without NEW_LAYERS: every layer gets LR x BASE_LR_MULT; children: {names}", stacklevel=3
        )
    own = [name for name, p in model.named_parameters(recurse=False) if p.requires_grad]
    if own:
        raise ValueError(
            f"OPTIM.STAGED_LR splits the model's children, so its own parameters {own} would not be "
            f"trained; put them into a child module, or pass param_groups"
        )
    base, new = [], []
    for name, module in model.named_children():
        (new if name in new_layers else base).extend(module.parameters())
    return [{"params": base, "lr": optim_cfg.LR * optim_cfg.BASE_LR_MULT}, {"params": new}]
