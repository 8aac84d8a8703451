"""docs/new_trainer.md, followed to the letter: its files are written, its commands are run (on smaller data)."""

import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from clusterprompt.commands import base2new, compare, worker

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parent.parent
TEXT = (CHECKOUT / "docs" / "new_trainer.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w/]+\.(?:py|yaml))`:\n\n```\w+\n(.*?)```", TEXT, re.M | re.S))
COMMANDS = {
    shlex.split(line)[1]: shlex.split(line)[2:]
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.S)
    for line in block.splitlines()
}


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path, monkeypatch, small_runs):
    """A folder with the files of the walk-through, found as if they lay in the checkout; runs of a second."""
    import clusterprompt.trainers

    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        clusterprompt.trainers, "__path__", [*clusterprompt.trainers.__path__, str(tmp_path / "trainers")]
    )
    yield tmp_path
    sys.modules.pop("clusterprompt.trainers.linearprobe", None)
    vars(clusterprompt.trainers).pop("linearprobe", None)
    from dassl.engine import TRAINER_REGISTRY

    TRAINER_REGISTRY._obj_map.pop("LinearProbe", None)


def small(words):
    """The words of a command, with the test's data in the place of the embedded ones."""
    return ["caltech101" if word == "shapes" else word for word in words]


def test_one_py_and_one_yaml():
    """Catches: a walk-through that leaves a step out, or a new method that takes more than it says."""
    assert sorted(FILES) == ["configs/trainers/LinearProbe/basetonovel.yaml", "trainers/linearprobe.py"]
    assert {"scripts/base2new.sh", "scripts/compare.sh", "scripts/test.sh"} == set(COMMANDS)
    named = set(re.findall(r"`((?:trainers|tests)/[\w/]+\.py)`", TEXT)) - set(FILES)
    assert named and all((CHECKOUT / name).is_file() for name in named)


def test_runs(checkout, capsys):
    """Catches: code in the document that the base class or the config no longer take."""
    trainer, dataset, seed, *pairs = small(COMMANDS["scripts/base2new.sh"])
    words = ["--trainer", trainer, "--dataset", dataset, "--seed", seed, "DATALOADER.NUM_WORKERS", "0", *pairs]
    assert base2new.main(words) == 0 and (checkout / "out" / "base2new").is_dir()
    assert "stay" in next((checkout / "out").rglob("train_base/**/log.txt")).read_text()


def test_is_in_the_table(checkout, monkeypatch, capsys):
    """Catches: a table that goes by a list of names."""

    def run_here(self, job, overwrite, environment, log):
        """Do in this process, where the new file is found, what the worker does in its own."""
        return worker.main(["--overwrite" if overwrite else "--resume", *(spec.to_json() for spec in job.specs)])

    monkeypatch.setattr("clusterprompt.running.engine.LocalEngine.call", run_here)
    monkeypatch.setattr("clusterprompt.running.machine.MOST_JOBS", 1)
    assert compare.main(small(COMMANDS["scripts/compare.sh"])) == 0
    table = (checkout / "out" / "compare" / "table_caltech101.json").read_text()
    rows = {row["trainer"]: row for row in json.loads(table)["table"]}
    assert set(rows) == {"ZeroshotCLIP", "LinearProbe"} and rows["LinearProbe"]["parameters"] == 32 * 32
    assert "LinearProbe" in capsys.readouterr().out


@pytest.mark.slow
def test_contract_covers_it(checkout, tmp_path, monkeypatch):
    """Catches: a contract that a method written by the document breaks, or tests that go by a list of names."""
    import golden_clip
    import support
    import torch

    contract = load("contract_walkthrough", CHECKOUT / "tests" / "trainers" / "test_contract.py")
    assert "LinearProbe" in contract.LEARNING
    data = support.write_data(tmp_path / "data")
    torch.save(golden_clip.state_dict(), tmp_path / "clip.pt")

    def build(trainer, *pairs, output=tmp_path / "output"):
        return support.build(trainer, data, tmp_path / "clip.pt", output, *pairs)

    contract.test_two_steps("LinearProbe", build)
    contract.test_evaluation_is_repeatable_and_in_order("LinearProbe", build)
    contract.test_save_and_load_on_other_classes("LinearProbe", build, tmp_path)
    contract.test_precisions("LinearProbe", "amp", build)
