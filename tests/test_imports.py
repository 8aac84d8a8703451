"""Imports point one way: scripts and train.py -> trainers, datasets -> clip_patches.

And the toolbox knows nothing of us.
"""

import ast
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
FOLDERS = ("clip_patches", "trainers", "datasets", "clusterprompt")
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
# What a folder may import from this project, by the first name below `clusterprompt`.
ALLOWED = {
    "clip_patches": {"clip_patches"},
    "trainers": {"trainers", "clip_patches", "record"},
    "datasets": {"datasets", "clip_patches"},
}


def imports(path: Path) -> list:
    """Return the dotted names that a file imports; relative ones, in our folders, as they read below `clusterprompt`."""
    folder = path.relative_to(CHECKOUT).parts[0]
    below = path.relative_to(CHECKOUT).parent.parts
    package = ".".join(below if folder == "clusterprompt" else ("clusterprompt", *below))
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (not node.level or folder in FOLDERS):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join(parts + ([node.module] if node.module else []))
            # "from .. import measure" imports a module, "from ..measure import x" from one
            found += [f"{base}.{alias.name}" for alias in node.names] if base == "clusterprompt" else [base]
    return found


def files(*folders) -> list:
    return [path for folder in folders for path in sorted((CHECKOUT / folder).rglob("*.py"))]


def test_there_is_something_to_look_at():
    """Catches: a renamed folder, after which the tests below would look at nothing."""
    assert all(files(folder) for folder in (*FOLDERS, "scripts", "toolbox/src"))
    assert "clusterprompt.clip_patches" in imports(CHECKOUT / "trainers" / "base.py")


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_direction(folder):
    """Catches: clip_patches that knows a trainer, a data set that knows a method, and so on."""
    for path in files(folder):
        for name in imports(path):
            if name.split(".")[0] == "clusterprompt":
                assert name.split(".")[1] in ALLOWED[folder], f"{path}: {name}"


def test_clip_patches_knows_no_dassl():
    """Catches: prompted CLIP that cannot be used outside Dassl."""
    for path in files("clip_patches"):
        assert not {name.split(".")[0] for name in imports(path)} & {"dassl", "yacs"}, path


def test_public_names_of_dassl():
    """Catches: a module of the stand-in that real Dassl lacks, or one of Dassl's inner modules."""
    for path in [*files(*FOLDERS, "scripts"), CHECKOUT / "train.py"]:
        names = {name for name in imports(path) if name.split(".")[0] == "dassl"}
        assert names <= PUBLIC_DASSL, f"{path}: {sorted(names - PUBLIC_DASSL)}"


def test_no_top_level_folders():
    """Catches: `import datasets`, which is Hugging Face's, or CoOp's in its checkout."""
    for path in [*files(*FOLDERS, "scripts", "tests"), CHECKOUT / "train.py"]:
        assert not {name.split(".")[0] for name in imports(path)} & {
            "trainers",
            "datasets",
            "clip_patches",
            "configs",
        }, path


def test_toolbox_knows_nothing_of_us():
    """Catches: a stand-in for Dassl that only serves this project."""
    for path in files("toolbox"):
        assert not {name.split(".")[0] for name in imports(path)} & {"clip", "clusterprompt", *FOLDERS}, path


def test_device_and_precision_in_one_place():
    """Catches: `.cuda()` or `.half()` where the config's device and precision should decide."""
    for path in [*files(*FOLDERS), CHECKOUT / "train.py"]:
        if path.name not in ("loading.py", "embedded_clip.py"):  # the second rounds what is kept in half precision
            calls = re.findall(r"\.(?:cuda|half)\(\)", path.read_text(encoding="utf-8"))
            assert not calls, f"{path}: {calls}"
