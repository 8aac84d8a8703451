"""Let an unmodified real Dassl.pytorch (0.6.x) run on a current torch and numpy.

Four things stop it. The last one does so when it is imported, so `prepare` has to run before anything imports
``dassl``, unless ``gdown``, ``wilds`` and ``pandas`` are installed:

1. its warm-up scheduler hands ``verbose`` to torch's base class, which no longer takes it;
2. its checkpoints hold scheduler and optimiser objects, which ``torch.load`` refuses by default (``weights_only``);
3. ``numpy.int`` is gone;
4. it imports ``gdown``, and its WILDS data sets import ``wilds`` and ``pandas`` (and switch off logging, and look up
   PyPI).

For 2, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 is set for the process, as torch offers it: calls of ``torch.load`` that do
not choose for themselves unpickle fully, and can run code. Those are Dassl's own, for a host's trainers, which always
trusted their files. The trainers of this package never load through Dassl: they read weights, checkpoints and states
as data, whatever is set. Set TORCH_FORCE_WEIGHTS_ONLY_LOAD=1 to forbid full unpickling; see SECURITY.md.

Nothing is done for the stand-in in ``toolbox/``, which needs none of this.
"""

import importlib.machinery
import importlib.util
import inspect
import os
import sys
from pathlib import Path

WAY_OUT = (
    "Real Dassl.pytorch: git clone https://github.com/KaiyangZhou/Dassl.pytorch and put it on PYTHONPATH (or "
    "DASSL=/path/to/Dassl.pytorch for the scripts here). Or the stand-in of this checkout: "
    "pip install --no-build-isolation --no-deps -e ./toolbox"
)


def prepare() -> None:
    """Arrange what real Dassl needs; do nothing for the stand-in. May be called any number of times.

    Raises:
        ImportError: No usable ``dassl`` is importable; the message says how to get one.
    """
    spec = importlib.util.find_spec("dassl")
    if spec is None:
        raise ImportError(f"Package 'dassl' is not importable. {WAY_OUT}")
    if is_stand_in(spec):
        return
    folder = Path(spec.origin).parent if spec.origin else None
    if folder is None or not (folder / "engine").is_dir():
        place = spec.origin or list(spec.submodule_search_locations or [])
        raise ImportError(f"Package 'dassl' at {place} is not Dassl.pytorch. {WAY_OUT}")
    if importlib.util.find_spec("tensorboard") is None:
        raise ImportError(
            "Real Dassl writes its curves with tensorboard, which is not installed: pip install tensorboard"
        )
    _accept_verbose()
    if "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ:
        os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    _restore_numpy_int()
    _stand_in_for("dassl.data.datasets.dg.wilds")
    if importlib.util.find_spec("gdown") is None:
        _stand_in_for("gdown")


def is_stand_in(spec: importlib.machinery.ModuleSpec) -> bool:
    """Tell the stand-in from real Dassl by its marker ``IMPLEMENTATION``, without importing it."""
    return spec.origin is not None and "IMPLEMENTATION" in Path(spec.origin).read_text(encoding="utf-8")


def _accept_verbose():
    from torch.optim import lr_scheduler

    # Changed in place, so that it also serves a Dassl that was imported earlier.
    current = lr_scheduler._LRScheduler.__init__
    if "verbose" in inspect.signature(current).parameters:
        return

    def __init__(self, optimizer, last_epoch=-1, verbose=False):
        current(self, optimizer, last_epoch)

    lr_scheduler._LRScheduler.__init__ = __init__


def _restore_numpy_int():
    import numpy

    if not hasattr(numpy, "int"):
        numpy.int = int


def _stand_in_for(name: str):
    """Put an empty module in the place of ``name``, unless it is imported already."""
    if name not in sys.modules:
        # With a spec, because others ask for it: find_spec() fails on a module that has none.
        sys.modules[name] = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(name, loader=None))
