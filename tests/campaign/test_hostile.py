"""The short form of the campaign with hostile files."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_short_form():
    """Catches: code of a file that runs, a write outside, a traceback, a door that waits for ever."""
    script = Path(__file__).with_name("hostile.py")
    ended = subprocess.run([sys.executable, str(script), "--short"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "0 executions, 0 writes outside" in ended.stdout and "FAULT" not in ended.stdout
