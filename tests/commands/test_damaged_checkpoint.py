"""A truncated checkpoint: one line and exit code 2 from every command that reads it."""

import shutil

import pytest

from clusterprompt.commands import convert, export, pictures, predict

pytestmark = pytest.mark.slow


@pytest.fixture
def damaged(finished_run, tmp_path):
    """A run of TAC whose model file is cut short."""
    folder = tmp_path / "damaged"
    shutil.copytree(finished_run("TAC")[0], folder)
    (model,) = folder.glob("*/model*")
    model.write_bytes(model.read_bytes()[:2000])
    return folder


@pytest.mark.parametrize("command", [convert, export, pictures, predict], ids=lambda command: command.__name__[23:])
def test_one_line(command, damaged, tmp_path, capsys):
    """Catches: a traceback, another exit code, or a file that is written all the same; --traceback that shows none."""
    if command is pictures:
        pytest.importorskip("matplotlib")
    out = tmp_path / "out.onnx"
    words = {convert: [str(damaged), str(out)], pictures: ["--run", str(damaged), "--trust-record"]}
    words = words.get(command, ["--run", str(damaged), "--trust-record", str(out)])
    capsys.readouterr()
    assert command.main(words) == 2
    said, error = capsys.readouterr()
    assert not said and error.startswith("error: ") and error.count("\n") == 1 and "model.pth.tar" in error
    assert not out.exists() and not (damaged / "pictures").exists()
    assert command.main([*words, "--traceback"]) == 2
    error = capsys.readouterr().err
    assert "Traceback (most recent call last)" in error and error.splitlines()[-1].startswith("error: ")
