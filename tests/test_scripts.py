"""The scripts: shell syntax, one implementation behind the doors, base-to-new, log parsing, the choice of a Python."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
SCRIPTS = CHECKOUT / "scripts"
SHELL = [*sorted(SCRIPTS.rglob("*.sh")), CHECKOUT / ".ci" / "run"]
DOORS = sorted(SCRIPTS.glob("*/base2new_train.sh"))

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")


@pytest.mark.parametrize("path", SHELL, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_shell_syntax(path):
    """Catches: a shell file that does not parse, or does not run in the folder of the caller."""
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert path.read_text().startswith("#") and os.access(path, os.X_OK)


# ------------------------------------------------------------------ the Python that scripts use


def run_setup(cwd, **environment):
    code = f'set -euo pipefail; source "{SCRIPTS}/setup_env.sh"; echo "uses $PYTHON"'
    ran = subprocess.run(
        ["bash", "-c", code], cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}
    )
    return ran.returncode, ran.stdout, ran.stderr


def test_an_environment_with_everything_is_used(tmp_path):
    """Catches: gigabytes installed although everything is there; set-up work on every call."""
    assert run_setup(tmp_path, PYTHON=sys.executable) == (0, f"uses {sys.executable}\n", "")
    assert not list(tmp_path.iterdir())


def test_a_dassl_that_is_none(tmp_path):
    """Catches: DASSL that points nowhere, silently ignored."""
    code, _, errors = run_setup(tmp_path, PYTHON=sys.executable, DASSL=str(tmp_path))
    assert code == 1 and "holds no folder 'dassl'" in errors


def test_a_given_dassl_comes_first(tmp_path):
    """Catches: DASSL=... that still runs on the stand-in."""
    (tmp_path / "dassl").mkdir()
    (tmp_path / "dassl" / "__init__.py").write_text("")
    code = f'source "{SCRIPTS}/setup_env.sh"; "$PYTHON" -c "import dassl; print(dassl.__file__)"'
    environment = {**os.environ, "PYTHON": sys.executable, "DASSL": "."}
    ran = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert ran.stdout.strip() == str(tmp_path / "dassl" / "__init__.py"), ran.stderr


# What stands for the Python in .venv: complete but for dassl, which it has once its pip was asked for the toolbox, or
# where PYTHONPATH is set.
VENV_PYTHON = """#!/bin/sh
here="$(dirname "$0")"
case "$*" in
  -\\ *) [ -n "$PYTHONPATH" ] || [ -e "$here/toolbox" ] || echo dassl ;;
  *pip\\ install*/toolbox) touch "$here/toolbox" ;;
esac
"""


def test_the_stand_in_after_a_call_with_dassl(tmp_path):
    """Catches: a .venv that was made with DASSL=... and then takes a call without it for set up, though no dassl is
    there: every later call ends in "Package 'dassl' is not importable".
    """
    for name in ("scripts/setup_env.sh", "setup.py", "toolbox/pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(CHECKOUT / name, tmp_path / name)
    real = tmp_path / "Dassl.pytorch"
    (real / "dassl").mkdir(parents=True)
    venv = tmp_path / ".venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").write_text(VENV_PYTHON)
    (bare := tmp_path / "bare").write_text('#!/bin/sh\n[ "$1" = - ] && echo torch || exit 0\n')
    for each in (venv / "python", bare):
        each.chmod(0o755)

    def call(**environment):
        code = f'set -euo pipefail; source "{tmp_path}/scripts/setup_env.sh"; echo "uses $PYTHON"'
        environment = {**os.environ, "PYTHON": str(bare), "PYTHONPATH": "", **environment}
        ran = subprocess.run(["bash", "-c", code], capture_output=True, text=True, env=environment)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout.splitlines()

    assert call(DASSL=str(real))[-1] == f"uses {venv}/python" and not (venv / "toolbox").exists()
    assert "  the stand-in for Dassl (toolbox)" in call() and (venv / "toolbox").exists()
    assert call() == call(DASSL=str(real)) == [f"uses {venv}/python"]


# ------------------------------------------------------------------ the doors


def asked(tmp_path, *words, **environment):
    """What Python is asked to run by a shell script and its arguments."""
    fake = tmp_path / "python"  # passes for a complete Python, and writes down what it is asked to run
    fake.write_text('#!/bin/sh\n[ "$1" = - ] && exit 0\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(fake), **environment}
    return subprocess.run(
        ["bash", *map(str, words)], cwd=tmp_path, capture_output=True, text=True, env=environment
    ).stdout.splitlines()


def command(tmp_path, *words, **environment):
    """The ``clusterprompt`` command that a shell script runs."""
    option, module, *command = asked(tmp_path, *words, **environment)
    assert (option, module) == ("-m", "clusterprompt")
    return command


@pytest.mark.parametrize("door", DOORS, ids=lambda path: path.parent.name)
def test_doors(door, tmp_path):
    """Catches: a door to the wrong trainer, or one that loses arguments."""
    passed_on = ["--resume", "TRAINER.X.INIT", "a photo of a"]
    words = command(tmp_path, door, "shapes", "3", *passed_on)
    trainer = words[2]
    assert words == ["base2new", "--trainer", trainer, "--dataset", "shapes", "--seed", "3", *passed_on]
    assert (CHECKOUT / "configs" / "trainers" / trainer / "basetonovel.yaml").is_file()
    assert door.parent.name == {"ZeroshotCLIP": "zsclip"}.get(trainer, trainer.lower())


STEPS = {
    "xd_train": "--protocol cross_dataset --source shapes_noise --targets",
    "xd_test": "--protocol cross_dataset domain_generalisation --targets shapes_noise",
    "few_shot": "--protocol few_shot --datasets shapes_noise",
}


@pytest.mark.parametrize("step", STEPS)
def test_doors_of_the_other_protocols(step, tmp_path):
    """Catches: a method without this door, or one to another trainer or step."""
    passed_on = ["--fresh", "TRAINER.X.INIT", "a photo of a"]
    words = command(tmp_path, SCRIPTS / "tac" / f"{step}.sh", "shapes_noise", "3", *passed_on)
    assert words == ["run", *STEPS[step].split(), "--trainers", "TAC", "--seeds", "3", *passed_on]
    for base in DOORS:  # the same line as the one that was run, but for the trainer
        trainer = base.read_text().split()[-2]
        last = base.with_name(f"{step}.sh").read_text().splitlines()[-1]
        assert last.endswith(f'/../protocol.sh" {step} {trainer} "$@"')


def test_source_of_a_target(tmp_path):
    """Catches: SOURCE ignored."""
    words = command(tmp_path, SCRIPTS / "tac" / "xd_test.sh", "dtd", "1", SOURCE="caltech101")
    assert words[words.index("--source") + 1] == "caltech101"


@pytest.mark.parametrize("name", ["ablation", "compare", "demo", "results", "run"])
def test_other_doors(name, tmp_path):
    """Catches: a door to another command, or one that loses arguments."""
    assert command(tmp_path, SCRIPTS / f"{name}.sh", "a b", "--fresh") == [name, "a b", "--fresh"]


DOORS_IN_PYTHON = sorted(SCRIPTS.glob("*.py"))


@pytest.mark.parametrize("path", DOORS_IN_PYTHON, ids=lambda path: path.name)
def test_doors_in_python_are_one_line(path):
    """Catches: work that moves back into scripts, where nobody can import it."""
    text = path.read_text()
    if path.name in ("benchmark.py", "gpu_check.py", "method_table.py", "pretrain_tiny_clip.py"):  # tools of developers
        return
    assert re.search(r"from clusterprompt\.commands\.(\w+) import main", text) and len(text.splitlines()) <= 8


def test_doors_say_how_they_are_used():
    """Catches: a door called without arguments that starts installing, or dies of an unbound variable."""
    ran = subprocess.run(["bash", str(DOORS[0])], capture_output=True, text=True)
    assert ran.returncode == 2 and "usage:" in ran.stderr and "shapes 1" in ran.stderr
