"""The gates themselves: one version, one pin of each tool, types on what is public."""

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml

import clusterprompt

CHECKOUT = Path(__file__).resolve().parent.parent
FOLDERS = ("clip_patches", "clusterprompt", "configs", "datasets", "trainers")


def test_one_version():
    """Catches: a release whose citation, change log or wheel tells another version."""
    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == clusterprompt.__version__
    assert f"## [{clusterprompt.__version__}]" in (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "version=version()" in (CHECKOUT / "setup.py").read_text(encoding="utf-8")


def test_one_pin():
    """Catches: a commit that the hook formats one way and check.sh another."""
    hooks = yaml.safe_load((CHECKOUT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    (ruff,) = (repo for repo in hooks if repo["repo"].endswith("/ruff-pre-commit"))
    (pin,) = re.findall(r'"ruff==([\d.]+)"', (CHECKOUT / "setup.py").read_text(encoding="utf-8"))
    assert ruff["rev"] == f"v{pin}"


def test_workflow():
    """Catches: a workflow that is no yaml, or that leaves out a Python that the metadata promise."""
    workflow = yaml.safe_load((CHECKOUT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    setup = (CHECKOUT / "setup.py").read_text(encoding="utf-8")
    promised = set(re.findall(r"Programming Language :: Python :: (3\.\d+)", setup))
    tested = set(workflow["jobs"]["tests"]["strategy"]["matrix"]["python"])
    oldest = {row["python"] for row in workflow["jobs"]["tests"]["strategy"]["matrix"]["include"]}
    assert tested | oldest == promised


def test_settings_stay_out_of_packaging():
    """Catches: a build table in pyproject.toml, which makes pip fetch a build environment, or rules over setup.py."""
    text = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    assert "[build-system]" not in text and "[project]" not in text


IMPORTED_AS = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}
NO_REQUIREMENTS = {"clip", "clusterprompt", "dassl", "pkg_resources"}  # see setup.py; the last is setuptools


def test_imports_are_declared():
    """Catches: a package that is imported but that `pip install` brings only by luck, with another one."""
    setup = (CHECKOUT / "setup.py").read_text(encoding="utf-8")
    declared = set(re.findall(r'"([a-z0-9-]+)(?:[<>=]=?[\d.]+)?"[,\]]', setup))
    missing = {}
    for path in (path for folder in FOLDERS for path in (CHECKOUT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - NO_REQUIREMENTS:
                if IMPORTED_AS.get(name, name) not in declared:
                    missing[name] = str(path.relative_to(CHECKOUT))
    assert not missing


# ------------------------------------------------------------------ types


def public_functions(body, prefix=""):
    """Yield the public functions of a module, and the public methods of its public classes, each with its name."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node


def untyped(source):
    """Return the public functions of a file that lack the type of an argument, or of what they return."""
    found = []
    for name, node in public_functions(ast.parse(source).body):
        spec = node.args
        arguments = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]
        static = any(ast.unparse(decorator) == "staticmethod" for decorator in node.decorator_list)
        if "." in name and not static:
            arguments = arguments[1:]
        if node.returns is None or any(argument.annotation is None for argument in arguments):
            found.append(name)
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_public_signatures_have_types(folder):
    """Catches: a public function that a type checker, and its reader, know nothing of."""
    found = [
        f"{path.relative_to(CHECKOUT)}: {name}"
        for path in sorted((CHECKOUT / folder).rglob("*.py"))
        for name in untyped(path.read_text(encoding="utf-8"))
    ]
    assert not found, f"{len(found)} without types:\n" + "\n".join(found)


def test_a_missing_type_is_found():
    """Catches: a check that overlooks methods, keyword arguments or a missing return type."""
    source = """
def good(a: int, *rest, b: str = "", **others) -> None: ...
def bad(a: int, *, b) -> None: ...
def _private(a): ...
class Public:
    def good(self, a: int) -> int: ...
    def bad(self): ...
    @staticmethod
    def worse(a) -> None: ...
class _Private:
    def any(self): ...
"""
    assert untyped(source) == ["bad", "Public.bad", "Public.worse"]
