"""Find the trainers and data sets of this package and make them known to Dassl; extend its config by their options.

Nothing is registered when a module is imported: inside somebody's CoOp checkout that would clash with the host's own
``CoOp`` or ``Caltech101``, or not, depending on which was imported first. `extend_cfg` runs when every import is done.
"""

import importlib
import logging
import pkgutil
import sys

from . import dassl_compat

logger = logging.getLogger(__name__)
# What the config's node DATASET gets beside Dassl's keys: CoOp's class halves, and what own images need
# (docs/own_images.md).
DATASET_OPTIONS = {"SUBSAMPLE_CLASSES": "all", "CSV": "", "TEMPLATE": "", "DESCRIPTIONS": ""}


def extend_cfg(cfg):
    """See `clusterprompt.extend_cfg`."""
    dassl_compat.prepare()
    from dassl.data.datasets import DATASET_REGISTRY
    from dassl.engine import TRAINER_REGISTRY
    from yacs.config import CfgNode

    log_to_stdout()
    methods = own_trainers()
    _register(TRAINER_REGISTRY, methods, "trainer")
    datasets = own_datasets()
    for kept, dataset in zip(_register(DATASET_REGISTRY, datasets, "data set"), datasets):
        if not hasattr(kept, "template"):  # the host's; our trainers read it from the data set
            kept.template = dataset.template

    frozen = cfg.is_frozen()
    cfg.defrost()
    for key, value in DATASET_OPTIONS.items():
        cfg.DATASET.setdefault(key, value)
    cfg.TRAIN.setdefault("WANDB", "")  # project of Weights & Biases; empty: not used
    for trainer in methods:
        node = cfg.TRAINER.setdefault(trainer.node(), CfgNode())
        for key, value in trainer.options.items():
            node.setdefault(key, value)
    if frozen:
        cfg.freeze()


def own_trainers() -> list:
    """Return the methods: subclasses of PromptTrainer that say their own ``options``."""
    from .trainers.base import PromptTrainer

    return [cls for cls in _classes_below("trainers", PromptTrainer) if "options" in vars(cls)]


def own_datasets() -> list:
    """Return the data sets: subclasses of PromptDataset that say their ``folder``."""
    from .datasets.base import PromptDataset

    return [cls for cls in _classes_below("datasets", PromptDataset) if cls.folder]


def log_to_stdout(always: bool = False):
    """Let this package's messages reach the console: Dassl's own are printed, and its log file is a tee of stdout.

    Args:
        always: Also where somebody has set logging up, who decides otherwise.

    Returns:
        A function that takes this back.
    """
    ours = logging.getLogger(__package__)
    if ours.level == logging.NOTSET:
        ours.setLevel(logging.INFO)
    if ours.handlers or (ours.hasHandlers() and not always):
        return lambda: None
    handler = _StdoutHandler()
    ours.addHandler(handler)
    return lambda: ours.removeHandler(handler)


class _StdoutHandler(logging.StreamHandler):
    """Writes to whatever ``sys.stdout`` is at that moment: Dassl's logger replaces it."""

    def __init__(self):
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter("%(message)s"))

    @property
    def stream(self):
        return sys.stdout


def _classes_below(folder: str, base: type) -> list:
    """Return the public subclasses of ``base`` that the modules of ``clusterprompt.<folder>`` define, by module and
    place.
    """
    package = importlib.import_module(f"{__package__}.{folder}")
    found = []
    for info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        module = importlib.import_module(info.name)
        for cls in vars(module).values():
            defined_here = isinstance(cls, type) and issubclass(cls, base) and cls.__module__ == module.__name__
            if defined_here and cls is not base and not cls.__name__.startswith("_"):
                found.append(cls)
    return found


def _register(registry, classes: list, kind: str) -> list:
    """Register classes under their names where these are free; return those that have the names, and say in one line
    which stay the host's.
    """
    kept = []
    for cls in classes:
        if cls.__name__ not in registry.registered_names():
            registry.register(cls)
        kept.append(registry.get(cls.__name__))
    taken = [f"{holder.__name__} ({holder.__module__})" for holder, cls in zip(kept, classes) if holder is not cls]
    if taken:
        logger.info("Already registered, so clusterprompt's %s of that name is not used: %s", kind, ", ".join(taken))
    return kept
