"""Every command of ``clusterprompt``: help, no arguments, a wrong option, Ctrl-C, a closed pipe: one calm line each."""

import subprocess
import sys

import pytest

from clusterprompt import __main__ as program
from clusterprompt import __version__

every_command = pytest.mark.parametrize("name", program.COMMANDS)
WORKS_WITHOUT_ARGUMENTS = {"demo"}  # trains at once; its own tests run it


def run(capsys, *words):
    """Run a command line in this process: exit code, stdout, stderr."""
    capsys.readouterr()
    try:
        code = program.main(list(words))
    except SystemExit as end:  # argparse's
        code = end.code
    return code or 0, *capsys.readouterr()


@every_command
def test_help(name, capsys):
    """Catches: a help text that cannot be printed, names another program, or lacks the common option."""
    code, said, error = run(capsys, name, "--help")
    assert code == 0 and not error
    assert said.startswith(f"usage: clusterprompt {name}") and "--traceback" in said


@pytest.mark.parametrize("name", sorted(set(program.COMMANDS) - WORKS_WITHOUT_ARGUMENTS))
def test_without_arguments(name, capsys, tmp_path, monkeypatch):
    """Catches: a traceback, or work that nobody asked for."""
    monkeypatch.chdir(tmp_path)
    for variable in ("DATA", "OUTPUT"):
        monkeypatch.setenv(variable, str(tmp_path))
    code, _, error = run(capsys, name)
    assert code in (0, 2) and "Traceback" not in error
    calm_lines(error, code)


@every_command
def test_wrong_option(name, capsys):
    """Catches: a typing error that is passed over, or ends in more than usage and one line."""
    code, _, error = run(capsys, name, "--no-such-option")
    assert code == 2
    calm_lines(error, code)


def calm_lines(error, code):
    """Check what a command said on stderr: nothing but usage before one line with the error."""
    *usage, last = error.rstrip().splitlines() or [""]
    assert not usage or usage[0].startswith("usage: ")
    assert code == 0 or "error: " in last


INTERRUPTED = """
import importlib.abc, os, signal, sys, time

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)

sys.meta_path.insert(0, Finder())
from clusterprompt.__main__ import main
sys.exit(main(sys.argv[2:]))
"""


@every_command
def test_interrupted_during_imports(name):
    """Catches: Ctrl-C while a command is loaded that ends in a traceback or another exit code."""
    module = f"clusterprompt.{program.COMMANDS[name][0]}"
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED, module, name], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr.strip()) == (130, "", "interrupted")


def test_interrupted_at_work(tmp_path):
    """Catches: Ctrl-C at work, here while a module of the work is imported, that ends in a traceback."""
    words = ["predict", "--run", str(tmp_path), "x.jpg"]
    script = [sys.executable, "-c", INTERRUPTED, "clusterprompt.use.classifier", *words]
    ended = subprocess.run(script, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr.strip()) == (130, "", "interrupted")


def test_closed_pipe():
    """Catches: a traceback, or "Exception ignored", after ``| head``."""
    for words in ("--help", "predict --help"):
        command = f"{sys.executable} -m clusterprompt {words} | true"
        ended = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
        assert (ended.returncode, ended.stderr) == (0, "")


def test_help_lists_all_commands(capsys):
    """Catches: a command that the help lacks, or a help longer than a screen."""
    for words in (["--help"], ["-h"], []):
        code, said, error = run(capsys, *words)
        assert code == 0 and not error and len(said.splitlines()) <= 40
        for name, (_, line) in program.COMMANDS.items():
            assert any(row.split() == [name, *line.split()] for row in said.splitlines()), name
    assert max(map(len, said.splitlines())) <= 120


def test_version(capsys):
    """Catches: a version of its own."""
    assert run(capsys, "--version") == (0, f"clusterprompt {__version__}\n", "")


@pytest.mark.parametrize("given, meant", [("trian", "'train'"), ("result", "'results'"), ("--verbose", "--help")])
def test_unknown_command(given, meant, capsys):
    """Catches: an unknown word that is not named, or without the likely meant one."""
    code, said, error = run(capsys, given)
    assert code == 2 and not said and error.startswith("error: ") and error.count("\n") == 1
    assert repr(given) in error and meant in error


@every_command
def test_light(name):
    """Catches: an import of torch, Dassl or the like for the options of a command, and so for completion."""
    heavy = "{'torch', 'dassl', 'clip', 'matplotlib', 'sklearn'} & set(sys.modules)"
    code = f"import sys; from clusterprompt import __main__ as m; m.help_text(); m.command({name!r}).build_parser()"
    ended = subprocess.run([sys.executable, "-c", f"{code}; print({heavy})"], capture_output=True, text=True)
    assert ended.stdout == "set()\n", ended.stderr


def test_completion(tmp_path):
    """Catches: completion that knows no commands, or not the options of the command that the line names."""
    pytest.importorskip("argcomplete")
    for line, wanted in (("clusterprompt pre", "predict"), ("clusterprompt predict --top", "--topk")):
        answer = tmp_path / "answer"
        settings = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}
        settings |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "_ARGCOMPLETE_IFS": "\n", "PATH": "/usr/bin:/bin"}
        settings |= {"PYTHONPATH": ":".join(sys.path)}
        subprocess.run([sys.executable, "-m", "clusterprompt"], env=settings, timeout=60, check=False)
        assert answer.read_text().split() == [wanted]
