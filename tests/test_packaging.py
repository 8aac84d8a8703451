"""The wheel and the editable install: one import name, and the files that are no Python."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
FOLDERS = ("clusterprompt", "trainers", "datasets", "clip_patches", "configs")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of what is packaged, so that building leaves nothing in the checkout."""
    copy = tmp_path_factory.mktemp("sources")
    for name in FOLDERS:
        shutil.copytree(CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(CHECKOUT / name, copy)
    return copy


def pip(*words, python=sys.executable):
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *words]
    ran = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def run(code, cwd, python=sys.executable, **environment):
    ran = subprocess.run(
        [str(python), "-c", code],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, **environment, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


@pytest.fixture(scope="module")
def wheel(sources, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "-q", "--no-build-isolation", "--no-deps", "-w", str(folder), str(sources))
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_everything_under_one_name(wheel):
    """Catches: a module, yaml or weights file left out; a top-level `trainers` or `datasets`; tests or toolbox packed
    by mistake.
    """
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = set()
    for folder in FOLDERS:
        below = "clusterprompt" if folder == "clusterprompt" else f"clusterprompt/{folder}"
        for path in (CHECKOUT / folder).rglob("*"):
            data = path.suffix in (".yaml", ".json", ".html", ".csv") or path.parent.name == "embedded"
            if path.is_file() and (path.suffix == ".py" or data) and "__pycache__" not in path.parts:
                wanted.add(f"{below}/{path.relative_to(CHECKOUT / folder).as_posix()}")
    assert names == wanted
    assert any(name.endswith("TAC/basetonovel.yaml") for name in names)


def test_wheel_works(wheel, tmp_path):
    """Catches: relative imports that only resolve in the checkout."""
    pip("install", "-q", "--no-deps", "--no-compile", "--target", str(tmp_path / "site"), str(wheel))
    code = (
        "import clusterprompt, clusterprompt.trainers.base, clusterprompt.datasets, clusterprompt.configs, pathlib;"
        "from dassl.config import get_cfg_default; cfg = get_cfg_default(); clusterprompt.extend_cfg(cfg);"
        "print(clusterprompt.__file__, cfg.TRAINER.COOP.N_CTX, len(list(pathlib.Path(clusterprompt.configs.__file__).parent.rglob('*.yaml'))))"
    )
    place, n_ctx, yamls = run(code, tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert place.startswith(str(tmp_path / "site"))
    assert (int(n_ctx), int(yamls)) == (16, len(list((CHECKOUT / "configs").rglob("*.yaml"))))


def test_editable_install_works(sources, tmp_path):
    """Catches: a package_dir that editable installs cannot map; a new file that needs a new installation."""
    venv.create(tmp_path / "env", system_site_packages=True, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    ours = [path for path in sys.path if path.endswith("-packages")]  # this may itself be a virtual environment
    (site / "tests.pth").write_text("\n".join(ours))
    pip("--python", str(python), "install", "-q", "--no-build-isolation", "--no-deps", "-e", str(sources))
    (sources / "trainers" / "brand_new.py").write_text("value = 5\n")
    (sources / "datasets" / "brand_new.py").write_text("value = 6\n")
    code = (
        "import clusterprompt; from clusterprompt.trainers import brand_new as a; from clusterprompt.datasets import brand_new as b;"
        "print(clusterprompt.__file__, a.value, b.value)"
    )
    place, first, second = run(code, tmp_path, python)
    assert place.startswith(str(sources)) and (first, second) == ("5", "6")
    for path in ("trainers", "datasets"):
        (sources / path / "brand_new.py").unlink()


def test_settings_stay_out_of_packaging():
    """Catches: a build table in pyproject.toml, which would make pip fetch a build environment, or rule over setup.py."""
    text = (CHECKOUT / "pyproject.toml").read_text()
    assert "[build-system]" not in text and "[project]" not in text
