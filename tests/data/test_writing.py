"""Descriptions that a language model writes: a stub of a server, and a stub of a command, that misbehave as told."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from clusterprompt.clip_patches.class_texts import read_descriptions
from clusterprompt.commands.data import main
from clusterprompt.data import language_model
from clusterprompt.data.writing import PROMPT


class Stub(BaseHTTPRequestHandler):
    """An OpenAI-compatible endpoint; ``server.reply`` makes its answer from the number of the request and its text."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers.get("Authorization"), asked))
        status, content, headers = self.server.reply(len(self.server.asked), asked["messages"][0]["content"])
        body = content if isinstance(content, bytes) else json.dumps(chat(content)).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


def chat(text):
    """Return an answer in OpenAI's form."""
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}


def sentences(prompt, count=3):
    """Return a good answer to a prompt of the tests, ``about {class}, {n}``."""
    name = prompt.removeprefix("about ").rpartition(",")[0]
    return "\n".join(f"{i}. A {name} has {'many ' * i}legs." for i in range(1, count + 1))


@pytest.fixture
def server(monkeypatch):
    """The stub, which answers well until told otherwise."""
    monkeypatch.setattr(language_model, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    server.asked, server.reply = [], lambda number, prompt: (200, sentences(prompt), {})
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def write(tmp_path, server, capsys):
    """A function that describes the classes ant and sea_horse; returns exit code, stdout and stderr."""
    (tmp_path / "classes.txt").write_text("# folder = class name\nant\nhorse2 = sea_horse\n")

    def run(*words, place=None, prompt="about {class}, {n}"):
        given = ["--write", tmp_path / "classes.txt", "--with", place or server.url, "--model", "stub-1"]
        given += ["--sentences", 2, *(["--prompt", prompt] if prompt else []), *words]
        code = main(["descriptions", *map(str, given)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_what_is_written(write, server, tmp_path):
    """Catches: a file that no run can read; one that does not say who wrote it and when; other requests than needed."""
    code, said, _ = write()
    path = tmp_path / "descriptions.json"
    assert code == 0 and f"DATASET.DESCRIPTIONS {path}" in said
    assert read_descriptions(path, "", ["sea_horse", "ant"], exact=True) == [
        ["A sea horse has many legs.", "A sea horse has many many legs."],
        ["A ant has many legs.", "A ant has many many legs."],
    ]
    about = json.loads(path.read_text())["@about"]
    assert (about["model"], about["prompt"], about["sentences"]) == ("stub-1", "about {class}, {n}", 2)
    assert len(about["date"]) == 10 and about["date"] >= "2024" and "127.0.0.1" not in path.read_text()
    assert [(path, key) for path, key, _ in server.asked] == [("/v1/chat/completions", None)] * 2
    assert server.asked[0][2] == {"model": "stub-1", "messages": [{"role": "user", "content": "about ant, 2"}]}
    assert not (tmp_path / "descriptions.json.part").exists()


def test_only_usable_sentences(write, server, tmp_path):
    """Catches: headings, refusals, other classes, repetitions, sentences longer than CLIP's context among the texts."""
    bad = ["Here are sentences about the ant:", "I cannot help.", "A bee flies.", f"An ant is {'very ' * 80}small.", ""]
    answers = ["\n".join([*bad, '- "The **ant** is red."', "* the ant is red.\x1b[2J"]), "<think>ant.</think>\nAn ant."]

    def reply(number, prompt):
        return 200, answers[number - 1] if "ant" in prompt else sentences(prompt), {}

    server.reply = reply
    assert write()[0] == 0
    assert json.loads((tmp_path / "descriptions.json").read_text())["ant"] == [
        "The ant is red.",
        "the ant is red. [2J",
    ]
    (tmp_path / "descriptions.json").unlink()
    server.asked.clear()
    answers[0] = "\n".join([*bad, "2) The ant is red.", "The ANT is red."])
    assert write()[0] == 0 and len(server.asked) == 3
    assert json.loads((tmp_path / "descriptions.json").read_text())["ant"] == ["The ant is red.", "An ant."]


def test_too_few_sentences_keep_the_rest(write, server, tmp_path):
    """Catches: a class with one sentence where others have two; an hour of answers lost to the last class; a part of
    another model that is gone on with.
    """
    good = server.reply
    server.reply = lambda number, prompt: (200, "I cannot.", {}) if "sea" in prompt else good(number, prompt)
    code, said, error = write()
    assert code == 2 and said == "1 of 2: ant\n" and error.count("\n") == 1
    assert "stub-1 gave 0 of 2 usable sentences for the class 'sea_horse' in 4 answers" in error
    assert "'I cannot.' (it does not name the class)" in error and not (tmp_path / "descriptions.json").exists()
    assert "begun with another model, prompt" in write("--model", "stub-2")[2]
    server.reply = good
    server.asked.clear()
    assert write()[0] == 0 and [asked["messages"][0]["content"] for *_, asked in server.asked] == ["about sea horse, 2"]


FAULTS = {
    "no key": (401, "no", {}, "answered 401 (Unauthorized). Is the model's name right, and does it need a key"),
    "no model": (404, "no", {}, "answered 404 (Not Found). Is the model's name right"),
    "redirect": (302, "no", {"Location": "http://127.0.0.1:1/"}, "answered 302 (Found)"),
    "web page": (200, b"<html>login</html>", {}, "did not answer as an OpenAI-compatible endpoint does"),
    "another form": (200, b'{"choices": [{"text": "ant."}]}', {}, "did not answer as an OpenAI-compatible"),
    "no text": (200, b'{"choices": [{"message": {"content": null}}]}', {}, "did not answer as an OpenAI-compatible"),
    "nested": (200, b"[" * 100_000, {}, "did not answer as an OpenAI-compatible"),
    "endless": (200, b" " * (2 << 20), {}, "did not answer as an OpenAI-compatible"),
    "down": (503, "no", {}, "answered 503 (Service Unavailable). Is the server running?"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_endpoints_that_fail(fault, write, server, tmp_path):
    """Catches: a traceback, a key that follows a redirect, an answer of any size read, an empty file left behind."""
    status, content, headers, message = FAULTS[fault]
    server.reply = lambda number, prompt: (status, content, headers)
    code, _, error = write()
    assert code == 2 and message in error and error.count("\n") == 1
    assert len(server.asked) == (4 if status == 503 else 1)
    assert [path.name for path in tmp_path.iterdir()] == ["classes.txt"]


def test_an_overloaded_server_is_asked_again(write, server):
    """Catches: a run of a thousand classes that ends at the first 429."""
    good = server.reply
    server.reply = lambda number, prompt: (429, "wait", {}) if number == 1 else good(number, prompt)
    assert write()[0] == 0 and len(server.asked) == 3


def test_the_key(write, server, monkeypatch, tmp_path):
    """Catches: a key that is not sent, sent unasked, or kept in the file."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-default")
    monkeypatch.setenv("MY_KEY", "sk-mine")
    assert write("--key-from", "MY_KEY")[0] == 0 and server.asked[0][1] == "Bearer sk-mine"
    assert "sk-mine" not in (tmp_path / "descriptions.json").read_text()
    assert write("--overwrite")[0] == 0 and server.asked[-1][1] is None
    assert "--key-from NO_KEY: there is no such variable" in write("--overwrite", "--key-from", "NO_KEY")[2]


def test_a_command(write, server, tmp_path):
    """Catches: a command that does not get the prompt, or whose failure is not said; one that is run by a shell."""
    program = tmp_path / "model.py"
    program.write_text(
        "import sys\nname = sys.stdin.read().split('about ')[1].split(',')[0]\n"
        "print(f'A {name} is {sys.argv[1]}.\\nOne more {name}.')\n"
    )
    assert write(place=f"{sys.executable} {program} '$HOME; exit'")[0] == 0
    assert json.loads((tmp_path / "descriptions.json").read_text())["ant"] == ["A ant is $HOME; exit.", "One more ant."]
    assert not server.asked
    program.write_text("import sys\nprint('noise', file=sys.stderr)\nsys.exit('out of memory')\n")
    assert "ended with exit code 1: out of memory" in write("--overwrite", place=f"{sys.executable} {program}")[2]
    assert "neither an address (http://...) nor a command" in write("--overwrite", place="/no/such/program")[2]


@pytest.mark.parametrize(
    "words, message",
    [
        (("--write", "c.txt"), "--write needs --with ADDRESS-OR-COMMAND and --model NAME; no model is asked by itself"),
        (("--write", "c.txt", "--with", "http://localhost:1/v1"), "--write needs --with"),
        (("--with", "http://localhost:1/v1"), "--with needs --write"),
        (("--write", "none.txt", "--with", "x", "--model", "m"), "no such file: none.txt; it lists the classes"),
        (("--write", "c.txt", "--with", "x", "--model", "m", "--sentences", "0"), "--sentences takes a number from 1"),
        (("--write", "c.txt", "--with", "x", "--model", "m", "--prompt", "an ant"), "the prompt must hold {class}"),
        (("dtd", "--write", "c.txt", "--with", "x", "--model", "m"), "leave out dtd"),
        (("--write", "d.txt", "--with", "x", "--model", "m"), "d.txt lists sea horse twice; it takes one class a line"),
    ],
)
def test_command_lines_that_cannot_be_followed(words, message, tmp_path, monkeypatch, capsys):
    """Catches: a language model that is asked by default; a traceback for a wrong command line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.txt").write_text("ant\n")
    (tmp_path / "d.txt").write_text("sea_horse\nSea Horse\n")
    assert main(["descriptions", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_file_is_not_replaced_unasked(write, tmp_path):
    """Catches: sentences that a user has corrected by hand, overwritten."""
    (tmp_path / "descriptions.json").write_text("mine")
    code, _, error = write()
    assert code == 2 and "exists already; name another file (--to), or replace it (--overwrite)" in error
    assert write("--to", tmp_path / "other.json")[0] == 0 and (tmp_path / "other.json").is_file()


def test_the_prompt_of_the_docs(write, server):
    """Catches: a default prompt without the class, or another one than the docs show."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "descriptions.md").read_text(encoding="utf-8")
    assert " ".join(PROMPT.split()) in " ".join(page.split())
    server.reply = lambda number, prompt: (200, "A sea horse, and an ant.\nThe ant and the sea horse.", {})
    assert write(prompt="")[0] == 0
    assert "Write 2 different sentences that describe what sea horse looks like" in str(server.asked[1][2])
