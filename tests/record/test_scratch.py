"""Temporary files and folders: gone at the next start if their writer was killed, untouched while it lives."""

import os
import signal
import subprocess
import sys
import time

import pytest

from clusterprompt.record.files import write_text
from clusterprompt.record.scratch import scratch_file, scratch_folder

WRITER = """
import sys, time
from pathlib import Path
from clusterprompt.record.scratch import scratch_file, scratch_folder
folder, target = Path(sys.argv[2]), Path(sys.argv[2], "a.json")
with scratch_folder(folder, ".shapes-") if sys.argv[1] == "folder" else scratch_file(target) as path:
    (path / "images" if path.is_dir() else path).write_text("half")
    print(path, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """Start a process that holds a half-written file or folder; return it and what it writes."""
    started = []

    def start(kind):
        process = subprocess.Popen([sys.executable, "-c", WRITER, kind, tmp_path], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.wait()


def again(kind, folder):
    """Write once more; return what was there meanwhile."""
    with scratch_folder(folder, ".shapes-") if kind == "folder" else scratch_file(folder / "a.json") as path:
        found = sorted(str(each) for each in folder.iterdir())
        found.remove(str(path))
    assert not path.exists()
    return found


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_a_kill_leaves_goes_at_the_next_start(kind, writer, tmp_path):
    """Catches: one half-written folder or file more with every kill; one removed while its writer is at it."""
    process, path = writer(kind)
    assert again(kind, tmp_path) == [path]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert os.path.exists(path) and again(kind, tmp_path) == []


def test_what_is_not_ours_stays(tmp_path):
    """Catches: other hidden files, links, or the target itself taken for left-overs."""
    for name in (
        ".shapes-notes.txt",
        ".shapes-",
        ".a.json.tmp",
        ".a.json.1.xyz.tmp",
        "a.json",
        ".b.json.1.0123abcd.tmp",
    ):
        (tmp_path / name).write_text("mine")
    (tmp_path / "there").mkdir()
    (tmp_path / ".shapes-link1234").symlink_to(tmp_path / "there")
    before = sorted(str(each) for each in tmp_path.iterdir())
    assert again("folder", tmp_path) == again("file", tmp_path) == before
    (tmp_path / ".a.json.1.0123abcd.tmp").write_text("")
    assert again("file", tmp_path) == before


def test_permissions_and_content_of_a_written_file(tmp_path):
    """Catches: results that colleagues cannot read, because temporary files are for their owner alone."""
    (tmp_path / "plain").write_text("x")
    write_text(tmp_path / "a.json", "content")
    assert (tmp_path / "a.json").read_text() == "content" and len(list(tmp_path.iterdir())) == 2
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_many_writers_at_once(tmp_path):
    """Catches: a writer that takes another's new file for abandoned before it is locked."""
    code = (
        "import sys; from clusterprompt.record.files import write_text\n"
        "for i in range(60): write_text(sys.argv[1], f'{sys.argv[2]} {i}')"
    )
    command = [sys.executable, "-c", code, tmp_path / "a.json"]
    processes = [subprocess.Popen([*command, str(n)], stderr=subprocess.PIPE, text=True) for n in range(3)]
    began = time.monotonic()
    for process in processes:
        assert process.communicate(timeout=60)[1] == "" and process.returncode == 0
    assert time.monotonic() - began < 60 and [path.name for path in tmp_path.iterdir()] == ["a.json"]
