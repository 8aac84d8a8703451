"""The device check: a step that fails or hangs is named, and does not stop the others."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu_check.py"


@pytest.fixture
def gpu_check():
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_steps(gpu_check, tmp_path):
    """Catches: a failure that is called ok, one that ends the check, a step without an end, a lost log."""
    args = gpu_check.parse_args([str(tmp_path), "--device", "cpu", "--minutes", "0.1"])
    steps = gpu_check.Steps(args)
    steps.allow(10.0)
    assert steps.run("good one", [sys.executable, "-c", "import os; print(os.environ['CLUSTERPROMPT_TEST_DEVICE'])"])
    assert not steps.run("bad", [sys.executable, "-c", "print('why'); raise SystemExit(3)"])
    assert not steps.run(
        "slow", [sys.executable, "-c", "import time; print('on', flush=True); time.sleep(60)"], most=0.3
    )
    steps.end -= 60  # as after slow steps
    assert not steps.run("late", [sys.executable, "-c", "import time; time.sleep(60)"])
    assert [step["result"] for step in steps.done] == ["ok", "failed", "out of time", "out of time"]
    assert steps.done[1]["last line of its log"] == "why" and steps.done[3]["seconds"] < 5
    assert (tmp_path / "good_one.log").read_text() == "cpu\n"


def test_no_gpu_is_said(gpu_check, capsys, monkeypatch):
    """Catches: minutes of steps that all fail where there is no GPU."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu_check.parse_args([])
    assert "--device cpu" in capsys.readouterr().err
