"""Fixtures of the tests of runs: an environment without settings, and jobs without training."""

import pytest
import stand_ins


@pytest.fixture
def output(monkeypatch, tmp_path):
    """Folder of all results; no other setting comes from the environment, and no data are drawn."""
    monkeypatch.setenv("OUTPUT", str(tmp_path / "out"))
    for name in ("SHOTS", "CFG", "BACKBONE", "EPOCHS", "CUDA_VISIBLE_DEVICES", "CLUSTERPROMPT_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("clusterprompt.running.schedule.draw_data", lambda names: None)
    monkeypatch.setattr("clusterprompt.running.sweep.check_tests", list)  # their data are not there
    return tmp_path / "out"


@pytest.fixture
def calls(output, monkeypatch):
    """The jobs that were run; each leaves finished records."""
    made = stand_ins.Calls()
    monkeypatch.setattr("clusterprompt.running.engine.LocalEngine.call", lambda *args: made(*args))
    return made
