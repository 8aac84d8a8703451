"""The configuration tree."""

from .defaults import _C as cfg_default


def get_cfg_default():
    """Return a fresh, unfrozen copy of the default configuration (a yacs ``CfgNode``)."""
    return cfg_default.clone()


def clean_cfg(cfg, trainer: str) -> None:
    """Remove from ``cfg.TRAINER``, in place, every node but ``NAME`` and the one of ``trainer`` (upper-cased)."""
    for key in list(cfg.TRAINER.keys()):
        if key not in ("NAME", trainer.upper()):
            cfg.TRAINER.pop(key, None)
