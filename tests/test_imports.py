"""The layers: imports point one way, modules do not import each other in circles, the toolbox knows nothing of us."""

import ast
import functools
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
WINGS = ("clip_patches", "trainers", "datasets", "configs")  # top folders that are installed below `clusterprompt`
FOLDERS = ("clusterprompt", *WINGS)
TOOLS = {
    "scripts.benchmark",
    "scripts.gpu_check",
    "scripts.method_table",
    *(f"scripts.measuring.{name}" for name in ("__init__", "cases", "clocks", "growth", "made_up", "paths", "shares")),
    "scripts.pretrain_tiny_clip",
}  # developers' programs; other scripts are doors

# Who may import whom. A module belongs to the longest name that it starts with; imports within one name are free.
# Every layer may ask for `clusterprompt.__version__`.
FOUNDATION = {"config", "dassl_compat", "configs", "allowed", "dassl_keys"}
ALLOWED = {
    "clip_patches": set(),
    "config": set(),
    "configs": set(),
    "allowed": {"config"},
    "dassl_keys": {"allowed", "config"},
    "dassl_compat": set(),
    "record": {"config", "dassl_compat"},
    "trainers": {"record", "clip_patches", "allowed", "dassl_keys"},
    "datasets": {"record", "clip_patches"},
    "registration": {"trainers", "datasets", "record", "clip_patches", *FOUNDATION},
    "data": {"registration", "datasets", "record", "clip_patches", *FOUNDATION},
    "use": {"registration", "trainers", "datasets", "record", "clip_patches", *FOUNDATION},
    "running": {"registration", "trainers", "datasets", "record", "clip_patches", *FOUNDATION},
    "results": {"record", "config"},  # reads files only: no method, no data set, no torch model
    "commands": {"results", "running", "use", "data", "registration", "record", "library", *FOUNDATION},
    "library": {"registration", "use"},  # `extend_cfg` and `load_run` of clusterprompt/__init__.py
    "doors": {"commands"},  # train.py, scripts/*.py, `python -m clusterprompt...`
}
DOORS = ("train", "scripts", "clusterprompt.__main__", "clusterprompt.data.__main__")
DOORS += tuple(f"clusterprompt.{name}" for name in ("predict", "export", "convert"))
# Dassl's modules whose names other code may rely on; what is inside is free to move.
PUBLIC_DASSL = {
    "dassl",
    "dassl.config",
    "dassl.data",
    "dassl.data.data_manager",
    "dassl.data.datasets",
    "dassl.data.transforms",
    "dassl.engine",
    "dassl.evaluation",
    "dassl.metrics",
    "dassl.optim",
    "dassl.utils",
}


def module_name(path: Path) -> str:
    """Return a file's dotted name; that of our folders as installed, with ``.__init__`` for a package's own file."""
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(("clusterprompt", *parts) if parts[0] in WINGS else parts)


def files(*folders: str) -> list[Path]:
    """Return the Python files of folders of the checkout."""
    return [path for folder in folders for path in sorted((CHECKOUT / folder).rglob("*.py"))]


OURS = {module_name(path).removesuffix(".__init__"): path for path in files(*FOLDERS)}


def statements(tree: ast.AST, *, at_import: bool) -> list[ast.Import | ast.ImportFrom]:
    """Return the import statements of a syntax tree.

    Args:
        tree: A module.
        at_import: Only those that run when the module is imported: none in functions, none for type checkers.
    """
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.append(node)
        elif at_import and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        elif at_import and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            found += [inner for branch in node.orelse for inner in statements(branch, at_import=True)]
        else:
            found += statements(node, at_import=at_import)
    return found


@functools.cache
def imported(path: Path, *, at_import: bool = False) -> frozenset[str]:
    """Return the dotted names that a file imports: modules, or for ``from package import name`` also ``package.name``.

    Relative imports are resolved as in the installed package.
    """
    package = module_name(path).split(".")[:-1]
    names = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), at_import=at_import):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
            continue
        base = package[: len(package) - node.level + 1] if node.level else []
        source = ".".join([*base, *(node.module or "").split(".")] if node.module else base)
        for alias in node.names:
            # "from .. import measure" imports a module, "from ..measure import f" a name of one
            inner = f"{source}.{alias.name}"
            names.add(inner if inner in OURS or source == "clusterprompt" else source)
    return frozenset(names)


def layer(name: str) -> str | None:
    """Return the layer of a dotted name; None where it is not ours, or only our version."""
    if name == "clusterprompt.__version__" or name in TOOLS:
        return None
    if any(name == door or name.startswith(f"{door}.") for door in DOORS):
        return "doors"
    first, _, rest = name.partition(".")
    if first != "clusterprompt":
        return None
    below = rest.split(".")[0]
    return below if below in ALLOWED else "library"


def upward_imports() -> list[str]:
    """Return the imports that the table does not allow, ``module -> module`` each; lazy ones count."""
    wrong = []
    for path in [*files(*FOLDERS, "scripts"), CHECKOUT / "train.py"]:
        own = layer(module_name(path))
        for name in sorted(imported(path)) if own else ():
            target = layer(name)
            if target not in (None, own) and target not in ALLOWED[own]:
                wrong.append(f"{module_name(path)} ({own}) -> {name} ({target})")
    return wrong


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of nodes that reach each other along a graph's edges."""
    reached = {}
    for start in graph:
        seen, waiting = set(), list(graph[start])
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += graph.get(node, ())
        reached[start] = seen
    groups = {
        frozenset(other for other in reached[node] if node in reached.get(other, ()))
        for node in graph
        if node in reached[node]
    }
    return sorted(sorted(group) for group in groups)


def test_there_is_something_to_look_at():
    """Catches: a renamed folder, after which the tests below would look at nothing; a folder without a row."""
    assert all(files(folder) for folder in (*FOLDERS, "scripts", "toolbox/src"))
    assert "clusterprompt.clip_patches.encoders" in imported(CHECKOUT / "trainers" / "base.py")
    assert "clusterprompt.registration" in imported(CHECKOUT / "clusterprompt" / "__init__.py")
    assert "clusterprompt.registration" not in imported(CHECKOUT / "clusterprompt" / "__init__.py", at_import=True)
    folders = {path.name for path in (CHECKOUT / "clusterprompt").iterdir() if (path / "__init__.py").is_file()}
    assert folders | set(WINGS) <= set(ALLOWED)


def test_the_table_points_one_way():
    """Catches: a row that lets two layers import each other."""
    assert circles(ALLOWED) == []


def test_direction():
    """Catches: clip_patches that knows a trainer, tables that need a method's code, a door with a program in it."""
    wrong = upward_imports()
    assert not wrong, "\n".join(wrong)


def test_no_circles():
    """Catches: modules that import each other, and so only load in one order."""
    graph = {name: imported(path, at_import=True) & set(OURS) - {name} for name, path in OURS.items()}
    found = circles(graph)
    assert not found, "\n".join(" <-> ".join(group) for group in found)


def test_a_circle_is_found():
    """Catches: a search that sees only two modules that import each other directly."""
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]


def test_clip_patches_knows_no_dassl():
    """Catches: prompted CLIP that cannot be used outside Dassl."""
    for path in files("clip_patches"):
        assert not {name.split(".")[0] for name in imported(path)} & {"dassl", "yacs"}, path


def test_public_names_of_dassl():
    """Catches: a module of the stand-in that real Dassl lacks, or one of Dassl's inner modules."""
    for path in [*files(*FOLDERS, "scripts"), CHECKOUT / "train.py"]:
        names = {name for name in imported(path) if name.split(".")[0] == "dassl"}
        assert names <= PUBLIC_DASSL, f"{path}: {sorted(names - PUBLIC_DASSL)}"


def test_no_top_level_folders():
    """Catches: `import datasets`, which is Hugging Face's, or CoOp's in its checkout."""
    for path in [*files(*FOLDERS, "scripts", "tests"), CHECKOUT / "train.py"]:
        assert not {name.split(".")[0] for name in imported(path)} & set(WINGS), path


def test_toolbox_knows_nothing_of_us():
    """Catches: a stand-in for Dassl that only serves this project."""
    for path in files("toolbox"):
        assert not {name.split(".")[0] for name in imported(path)} & {"clip", *FOLDERS}, path


@pytest.mark.parametrize("folder", FOLDERS)
def test_device_and_precision_in_one_place(folder):
    """Catches: `.cuda()` or `.half()` where the config's device and precision should decide."""
    for path in files(folder):
        if path.name not in ("loading.py", "embedded_clip.py"):  # the second rounds what is kept in half precision
            calls = re.findall(r"\.(?:cuda|half)\(\)", path.read_text(encoding="utf-8"))
            assert not calls, f"{path}: {calls}"
