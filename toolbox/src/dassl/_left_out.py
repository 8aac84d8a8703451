"""What Dassl.pytorch has and this toolbox has not: asking for it says so, and says what there is."""

import importlib.abc
import sys

HERE = (
    "dassl.config, dassl.data, dassl.data.datasets, dassl.data.samplers, dassl.data.transforms, dassl.engine, "
    "dassl.evaluation, dassl.metrics, dassl.optim, dassl.utils"
)

MODULES = {
    "dassl.modeling",
    "dassl.engine.da",
    "dassl.engine.dg",
    "dassl.engine.ssl",
    "dassl.data.datasets.da",
    "dassl.data.datasets.dg",
    "dassl.data.datasets.ssl",
    "dassl.data.transforms.autoaugment",
    "dassl.metrics.distance",
    "dassl.optim.radam",
}


class _Finder(importlib.abc.MetaPathFinder):
    """Comes last on ``sys.meta_path``, so that it is asked only for what nothing else can find."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname in MODULES:
            raise ModuleNotFoundError(
                f"{fullname} is not in this toolbox; it has {HERE}. Install Dassl.pytorch for the rest.", name=fullname
            )
        return None


def install() -> None:
    """Give the modules of ``MODULES`` an import error that explains itself."""
    if not any(type(finder).__name__ == "_Finder" and type(finder).__module__ == __name__ for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def names_left_out(module: str, *names: str):
    """Make a module's ``__getattr__`` that explains why one of ``names`` is missing.

    Raises ImportError, not AttributeError, for those names: the text of an AttributeError does not survive
    ``from module import name``.
    """

    def __getattr__(name):
        if name in names:
            here = sorted(
                n
                for n, v in vars(sys.modules[module]).items()
                if not n.startswith("_")
                and v is not names_left_out
                and (getattr(v, "__module__", "") or "").startswith("dassl")
            )
            raise ImportError(
                f"{module}.{name} is not in this toolbox; {module} has {', '.join(here)}. Install "
                f"Dassl.pytorch for the rest.",
                name=module,
            )
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__
