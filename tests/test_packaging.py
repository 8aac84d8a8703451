"""The wheels and the editable install: one import name, every file, one command, and no need of the checkout."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
WINGS = ("clusterprompt", "trainers", "datasets", "clip_patches", "configs")
NOT_PACKED = {".pyc", ".swp"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of what is packaged, so that building leaves nothing in the checkout."""
    copy = tmp_path_factory.mktemp("sources")
    for name in (*WINGS, "toolbox"):
        ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
        shutil.copytree(CHECKOUT / name, copy / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(CHECKOUT / name, copy)
    return copy


def pip(*words, python=sys.executable):
    """Run pip, outside the checkout."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *map(str, words)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def new_environment(folder):
    """Make a virtual environment that sees the dependencies, but neither this project nor its toolbox.

    The ``.pth`` files by which editable installs are found count only in an environment's own folder.
    """
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # this may itself be a virtual environment
    (site / "tests.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    return folder / "bin" / "python"


def run(command, cwd, **environment):
    """Run a command on the CPU, without what leads to the checkout; return its output."""
    left_out = {"PYTHONPATH", "DASSL", "DATA", "BACKBONE", "CFG", "OUTPUT", "EPOCHS", "SHOTS", "CLUSTERPROMPT_HOME"}
    environment = {**{key: value for key, value in os.environ.items() if key not in left_out}, **environment}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "120"}
    ran = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, env=environment)
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    assert not names_checkout(said), said
    return said


def names_checkout(text):
    """Tell whether a text names the checkout, other than a virtual environment in it that holds the dependencies."""
    return str(CHECKOUT) in text.replace(f"{CHECKOUT}/.venv", "")


@pytest.fixture(scope="module")
def wheels(sources, tmp_path_factory):
    """Paths of the two wheels: the project's and the toolbox's."""
    folder = tmp_path_factory.mktemp("wheels")
    pip("wheel", "-q", "--no-build-isolation", "--no-deps", "-w", folder, sources)
    pip("wheel", "-q", "--no-build-isolation", "--no-deps", "-w", folder, sources / "toolbox")
    (project,) = folder.glob("clusterprompt-*.whl")
    (toolbox,) = folder.glob("clusterprompt_toolbox-*.whl")
    return project, toolbox


def packed(wheel):
    """Return the names of the files in a wheel, without its metadata."""
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def in_checkout(folder, below):
    """Return the names of the files of a folder of the checkout, as a wheel has them below ``below``."""
    return {
        f"{below}/{path.relative_to(folder).as_posix()}"
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in NOT_PACKED
    }


def test_wheel_holds_everything_under_one_name(wheels):
    """Catches: a module, yaml or weights file left out; a top-level `trainers` or `datasets`; tests or toolbox packed
    by mistake.
    """
    wanted = set()
    for wing in WINGS:
        wanted |= in_checkout(CHECKOUT / wing, "clusterprompt" if wing == "clusterprompt" else f"clusterprompt/{wing}")
    names = packed(wheels[0])
    assert names == wanted
    for name in (
        "py.typed",
        "results/report.html",
        "results/published.csv",
        "data/sources.yaml",
        "configs/trainers/TAC/basetonovel.yaml",
        "configs/datasets/shapes.yaml",
        "clip_patches/embedded/tiny.safetensors",
        "datasets/canonical_samples.json",
    ):
        assert f"clusterprompt/{name}" in names


def test_toolbox_wheel_holds_dassl_only(wheels):
    """Catches: a module of the stand-in left out, or anything beside it."""
    assert packed(wheels[1]) == in_checkout(CHECKOUT / "toolbox" / "src" / "dassl", "dassl")


def test_metadata(wheels):
    """Catches: a second version, a command that is not on PATH, a Python that CI tests but the metadata leave out."""
    import clusterprompt

    with zipfile.ZipFile(wheels[0]) as wheel:
        (folder,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
        metadata = wheel.read(f"{folder}/METADATA").decode()
        entry_points = wheel.read(f"{folder}/entry_points.txt").decode()
    assert f"\nVersion: {clusterprompt.__version__}\n" in metadata
    assert "\nRequires-Python: >=3.10\n" in metadata
    assert "clusterprompt = clusterprompt.__main__:main" in entry_points
    minors = re.findall(r"Classifier: Programming Language :: Python :: (3\.\d+)", metadata)
    assert minors == ["3.10", "3.11", "3.12", "3.13"]
    extras = set(re.findall(r"Provides-Extra: (\S+)", metadata))
    named = "clip test check dev tensorboard wandb data pictures onnx completion cluster search"
    assert extras == set(named.split())


# ------------------------------------------------------------------ installed, in an empty folder


@pytest.fixture(scope="module")
def installed(wheels, tmp_path_factory):
    """Python of an environment in which both wheels are installed."""
    python = new_environment(tmp_path_factory.mktemp("installed") / "env")
    pip("--python", python, "install", "-q", "--no-deps", "--no-index", *wheels)
    return python


def test_wheel_works(installed, tmp_path):
    """Catches: relative imports that only resolve in the checkout; configs that are not found."""
    code = (
        "import pathlib, dassl, clusterprompt.trainers.base, clusterprompt.datasets, clusterprompt.configs;"
        "from dassl.config import get_cfg_default; cfg = get_cfg_default(); clusterprompt.extend_cfg(cfg);"
        "yamls = list(pathlib.Path(clusterprompt.configs.__file__).parent.rglob('*.yaml'));"
        "print(clusterprompt.__file__, dassl.__file__, dassl.IMPLEMENTATION, cfg.TRAINER.COOP.N_CTX, len(yamls))"
    )
    ours, dassl, implementation, n_ctx, yamls = run([installed, "-c", code], tmp_path).split()
    assert all(path.startswith(str(installed.parent.parent)) for path in (ours, dassl))
    assert (implementation, int(n_ctx)) == ("toolbox", 16)
    assert int(yamls) == len(list((CHECKOUT / "configs").rglob("*.yaml")))


COMMANDS = "train base2new run compare ablation results logs predict export convert pictures data demo"


@pytest.mark.parametrize("way", ["module", "script"])
def test_command(installed, tmp_path, way):
    """Catches: a command that `pip install` does not put on PATH, or that only `python -m` knows."""
    command = [installed, "-m", "clusterprompt"] if way == "module" else [installed.with_name("clusterprompt")]
    said = run([*command, "--help"], tmp_path)
    assert all(re.search(rf"^ +{name}\b", said, re.MULTILINE) for name in COMMANDS.split()), said
    status = run([*command, "data", "status"], tmp_path)
    assert "caltech101" in status and str(tmp_path / "data") in status
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", COMMANDS.split())
def test_help_of_each_command(installed, tmp_path, name):
    """Catches: a command that needs scripts/ or another folder of the checkout before it says a word."""
    assert f"usage: clusterprompt {name}" in run([installed, "-m", "clusterprompt", name, "--help"], tmp_path)


def draw_few_shapes(root):
    """Write ``shapes`` with six classes of four images: what the demo needs of it, in a second in place of a minute."""
    from clusterprompt.datasets.shapes import Shapes

    class Few(Shapes):
        names = Shapes.names[:3] + Shapes.names[20:23]
        sizes = {"train": 2, "val": 1, "test": 1}

    Few.prepare(Few.__new__(Few), str(root))


def test_programs_run_in_an_empty_folder(installed, tmp_path):
    """Catches: demo, runs, drawing, tables or prediction that look for a checkout, its yamls or its scripts."""
    from PIL import Image

    command = [installed.with_name("clusterprompt")]
    draw_few_shapes(tmp_path / "data")
    run([*command, *"demo --epochs 1 --shots 1 --seeds 1 --output demo".split()], tmp_path)
    words = "run --protocol base2new --trainers TAC --datasets shapes_counts --seeds 1 --output output".split()
    run([*command, *words], tmp_path, EPOCHS="1", SHOTS="1")
    assert (tmp_path / "data" / "shapes_counts" / "version.txt").is_file()  # drawn by the installed program
    (result,) = (tmp_path / "output").glob("base2new/train_base/shapes_counts/shots_1/TAC/*/seed1/result.json")
    assert json.loads(result.read_text())["trainer"] == "TAC"
    assert "TAC" in run([*command, "results", "output"], tmp_path)
    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "red.png")
    assert "red.png" in run([*command, "predict", "--run", result.parent, "red.png"], tmp_path)
    for path in tmp_path.rglob("*"):
        if path.suffix in (".json", ".yaml", ".txt", ".md", ".csv"):
            assert not names_checkout(path.read_text(errors="replace")), path


# ------------------------------------------------------------------ editable


def test_editable_install_works(sources, tmp_path):
    """Catches: a package_dir that editable installs cannot map; a new file that needs a new installation."""
    python = new_environment(tmp_path / "env")
    pip("--python", python, "install", "-q", "--no-build-isolation", "--no-deps", "-e", sources)
    for number, wing in enumerate(("trainers", "datasets")):
        (sources / wing / "brand_new.py").write_text(f"value = {number}\n")
    code = (
        "import clusterprompt; from clusterprompt.trainers import brand_new as a;"
        "from clusterprompt.datasets import brand_new as b; print(clusterprompt.__file__, a.value, b.value)"
    )
    place, first, second = run([python, "-c", code], tmp_path).split()
    assert place.startswith(str(sources)) and (first, second) == ("0", "1")
    for wing in ("trainers", "datasets"):
        (sources / wing / "brand_new.py").unlink()
