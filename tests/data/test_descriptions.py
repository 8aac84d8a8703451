"""``clusterprompt data descriptions``: what it fetches, checks, and says of classes that a file lacks."""

import hashlib
import json

import pytest

from clusterprompt.clip_patches import text_source
from clusterprompt.clip_patches.text_source import OfficialFile
from clusterprompt.commands.data import main

CLASSES = ("face", "airplane", "anchor", "stop sign", "yin yang")  # of the small Caltech101 of conftest.py
TABLE = json.dumps({name: [f"a {name}."] for name in CLASSES}).encode()


def run(capsys, *words):
    """Run a command line; return exit code, stdout and stderr."""
    code = main(["descriptions", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def publish(serve, monkeypatch):
    """A function that puts a file on the server as a data set's official one, known by sha256 or by git blob."""

    def put(dataset, content=TABLE, by="sha256", name=None):
        name = name or f"{dataset.lower()}_prompt.json"
        url, page = serve(name, content)
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        known = (hashlib.sha256(content).hexdigest(), len(content)) if by == "sha256" else ("", 0)
        monkeypatch.setitem(text_source.OFFICIAL_FILES, dataset, OfficialFile(name, url, blob, *known))
        return page

    return put


def test_fetches_and_checks(own_caltech_root, publish, capsys):
    """Catches: a file at a place where no run looks; a second download; a silent change of what runs will do."""
    page = publish("Caltech101", name="caltech_prompt.json")
    code, said, _ = run(capsys, "caltech101", "--root", own_caltech_root)
    path = own_caltech_root / "descriptions" / "caltech_prompt.json"
    assert code == 0 and path.read_bytes() == TABLE
    assert f"To be fetched into {path.parent}, from 127.0.0.1 (TAC's authors, MIT licence): {len(TABLE)} bytes" in said
    assert f"caltech101: official descriptions, {path}; runs use them from now on, unless DATASET.DESC" in said
    code, said, _ = run(capsys, "caltech101", "--root", own_caltech_root)
    assert code == 0 and "To be fetched" not in said and len(page.asked) == 1
    code, said, _ = run(capsys, "--root", own_caltech_root)
    assert code == 0 and [line.split()[1:3] for line in said.splitlines() if line.startswith("caltech101")] == [
        ["official", "descriptions"]
    ]


@pytest.mark.parametrize("by", ["sha256", "blob"])
def test_another_file_is_refused(by, tmp_path, publish, capsys):
    """Catches: descriptions that somebody changed on the way, used by every run from then on; a server without end."""
    page = publish("Caltech101", by=by)
    page.body = TABLE.replace(b"anchor", b"banana")
    code, said, _ = run(capsys, "caltech101", "--root", tmp_path)
    assert code == 1 and f"its {by} is" in said and "caltech101: not fetched" in said
    assert not list((tmp_path / "descriptions").glob("*.json"))
    if by == "sha256":
        page.body = TABLE * 1000
        assert "sends more than" in run(capsys, "caltech101", "--root", tmp_path)[1]


def test_one_file_for_five_data_sets(tmp_path, publish, capsys):
    """Catches: megabytes fetched five times; ImageNet's file, known by its git blob alone, not checked or not found."""
    names = {"ImageNet": "", "ImageNetV2": "v2", "ImageNetSketch": "_sketch", "ImageNetA": "_a", "ImageNetR": "_r"}
    pages = [publish(dataset, by="blob", name=f"imagenet{end}_prompt.json") for dataset, end in names.items()]
    given = ("imagenet", "imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r", "--root", tmp_path)
    code, said, _ = run(capsys, *given)
    assert code == 0 and said.count("official descriptions") == 5 and "ImageNet's, whose size is not known" in said
    assert sum(len(page.asked) for page in pages) == 1 and len(list((tmp_path / "descriptions").iterdir())) == 5


def test_a_class_without_description_is_named(own_caltech_root, publish, capsys):
    """Catches: a data set called ready whose runs stop; a user who learns of it in hours."""
    publish("Caltech101", TABLE.replace(b"yin yang", b"yin and yang"))
    code, said, _ = run(capsys, "caltech101", "--root", own_caltech_root)
    assert code == 1 and "caltech101: runs stop before anything is trained" in said
    assert "no description for 1 of 5 classes: 'yin yang' (closest: yin and yang" in said
    assert "DESCRIPTIONS templates" in said
    code, said, _ = run(capsys, "--root", own_caltech_root)
    assert "stops" in said and "1 of 5 classes" in " ".join(said.split())


def test_a_file_of_the_users_stays(tmp_path, publish, capsys):
    """Catches: an edited file that is replaced, or that is called official."""
    page = publish("Caltech101", name="caltech_prompt.json")
    path = tmp_path / "descriptions" / "caltech_prompt.json"
    path.parent.mkdir()
    path.write_bytes(TABLE + b"\n")
    code, said, _ = run(capsys, "caltech101", "--root", tmp_path)
    assert code == 1 and "is not the official file, so runs use it as your own" in said
    assert path.read_bytes() == TABLE + b"\n" and not page.asked


def test_all_and_unknown_names(tmp_path, publish, monkeypatch, capsys):
    """Catches: a drawn data set asked of a server; ``all`` that leaves out a data set or stops at a failure."""
    code, _, said = run(capsys, "shapes", "--root", tmp_path)
    assert code == 2 and "no official descriptions of 'shapes'; there are of caltech101, dtd" in said
    for dataset in list(text_source.OFFICIAL_FILES):
        publish(dataset, dataset.join('""').join(["{", ': ["a."]}']).encode())
    publish("DescribableTextures").status = [404]
    code, said, _ = run(capsys, "all", "--root", tmp_path)
    assert code == 1 and said.count("official descriptions, ") == 14 and "dtd: not fetched" in said
