"""Find the trainers and data sets of this package, register them with Dassl, and add their options to its config.

Nothing is registered when a module is imported: inside a CoOp checkout that could clash with the host's own ``CoOp`` or
``Caltech101``, depending on the order of imports. `extend_cfg` runs when all imports are done.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
import sys
from collections.abc import Callable
from copy import copy
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .datasets.base import PromptDataset
    from .trainers.base import PromptTrainer

from . import dassl_compat
from .dassl_keys import ADDED

logger = logging.getLogger(__name__)


def extend_cfg(cfg: Any) -> None:
    """Register trainers and data sets, and add their options to a config; see `clusterprompt.extend_cfg`."""
    dassl_compat.prepare()
    from dassl.data.datasets import DATASET_REGISTRY
    from dassl.engine import TRAINER_REGISTRY
    from yacs.config import CfgNode

    log_to_stdout()
    methods = own_trainers()
    named: list[tuple[Any, Any]] = [(vars(cls).get("official_trainer"), cls) for cls in methods]
    official = [_called(*each) for each in named if each[0]]
    _register(TRAINER_REGISTRY, [*methods, *official], "trainer")
    datasets = own_datasets()
    for kept, dataset in zip(_register(DATASET_REGISTRY, datasets, "data set"), datasets):
        for name in ("template", "same_names"):  # our trainers read them from the host's class, too
            if not hasattr(kept, name):
                setattr(kept, name, getattr(dataset, name))

    frozen = cfg.is_frozen()
    cfg.defrost()
    for key, value in ADDED.items():
        *nodes, option = key.split(".")
        node = cfg
        for name in nodes:
            node = node.setdefault(name, CfgNode())
        node.setdefault(option, copy(value))
    for trainer in methods:
        node = cfg.TRAINER.setdefault(trainer.node(), CfgNode())
        for option, default in trainer.options.items():
            node.setdefault(option, default)
            if default is None and node[option] is False:  # KgCoOp's CTX_INIT; yacs would refuse words in its place
                node[option] = None
    if frozen:
        cfg.freeze()


def own_trainers() -> list[type[PromptTrainer]]:
    """Return the methods: public subclasses of PromptTrainer that build a learner, themselves or by inheritance."""
    from .trainers.base import PromptTrainer

    classes = _classes_below("trainers", PromptTrainer)
    return [cls for cls in classes if cls.build_learner is not PromptTrainer.build_learner]


def own_datasets() -> list[type[PromptDataset]]:
    """Return the data sets: public subclasses of PromptDataset with a ``folder``, their own or an inherited one."""
    from .datasets.base import PromptDataset

    return [cls for cls in _classes_below("datasets", PromptDataset) if cls.folder]


def log_to_stdout(always: bool = False) -> Callable[[], None]:
    """Print this package's log messages: Dassl's own are printed, and its log file is a tee of stdout.

    Args:
        always: Print them even where logging is already set up.

    Returns:
        A function that undoes this.
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
    """Write to the ``sys.stdout`` of the moment: Dassl's logger replaces it.

    A host registers before it opens its log file, so messages marked ``repeat`` are written into that file as well.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter("%(message)s"))
        self._early: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message, after what an opened log file has missed."""
        file = getattr(self.stream, "file", None)
        if file is not None:
            file.writelines(self._early)
            self._early.clear()
        elif getattr(record, "repeat", False):
            self._early.append(self.format(record) + self.terminator)
        super().emit(record)

    @property
    def stream(self):  # type: ignore[override]
        return sys.stdout


def _classes_below(folder: str, base: type) -> list:
    """Return the public subclasses of ``base`` that ``clusterprompt.<folder>`` defines, by module and order."""
    package = importlib.import_module(f"{__package__}.{folder}")
    found = []
    for info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        module = importlib.import_module(info.name)
        for cls in vars(module).values():
            defined_here = isinstance(cls, type) and issubclass(cls, base) and cls.__module__ == module.__name__
            if defined_here and cls is not base and not cls.__name__.startswith("_"):
                found.append(cls)
    return found


@lru_cache
def _called(name: str, method: Any) -> Any:
    """Return a class of another name whose instances are the method's own."""
    builds = lambda cls, *args, **kwargs: method(*args, **kwargs)  # noqa: E731
    return type(name, (method,), {"__new__": builds, "config_node": method.node()})


def _register(registry: Any, classes: list, kind: str) -> list:
    """Register classes whose names are free; log in one line which names stay the host's.

    Args:
        registry: One of Dassl's.
        classes: Classes to register under their names.
        kind: Word for them in the log.

    Returns:
        The class that has each name.
    """
    kept = []
    for cls in classes:
        if cls.__name__ not in registry.registered_names():
            registry.register(cls)
        kept.append(registry.get(cls.__name__))
    taken = [f"{holder.__name__} ({holder.__module__})" for holder, cls in zip(kept, classes) if holder is not cls]
    if taken:
        text = "Already registered, so clusterprompt's %s of that name is not used: %s"
        logger.info(text, kind, ", ".join(taken), extra={"repeat": True})
    return kept
