"""A short form of the campaign of kills."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_ten_kills(tmp_path):
    """Catches: a run that, killed and gone on with, ends with other weights, history or predictions, or not at all."""
    program = Path(__file__).with_name("kill.py")
    options = ["--kills", "10", "--trainers", "TAC", "CoOp", "--work", str(tmp_path / "work")]
    ran = subprocess.run([sys.executable, str(program), *options], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "10 kills tried, 10 survived, 0 faults" in ran.stdout
