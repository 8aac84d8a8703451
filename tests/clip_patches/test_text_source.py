"""The source of class texts: found by name, told by content."""

import hashlib
import json
import os

import pytest

from clusterprompt.clip_patches import text_source
from clusterprompt.clip_patches.class_texts import read_descriptions
from clusterprompt.clip_patches.text_source import OFFICIAL_FILES, OfficialFile, find_source
from clusterprompt.registration import own_datasets

SENTENCES = json.dumps({"ant": ["an insect."]}).encode()


@pytest.fixture
def root(tmp_path):
    """A data root with descriptions of Caltech101."""
    (tmp_path / "descriptions").mkdir()
    (tmp_path / "descriptions" / "caltech_prompt.json").write_bytes(SENTENCES)
    return tmp_path


def git_blob(content):
    """Return a git blob id, as git computes it."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


@pytest.mark.parametrize(
    "official, expected",
    [
        (OfficialFile("caltech_prompt.json", "", "", hashlib.sha256(SENTENCES).hexdigest()), "official descriptions"),
        (OfficialFile("caltech_prompt.json", "", git_blob(SENTENCES)), "official descriptions"),
        (OfficialFile("caltech_prompt.json", "", git_blob(SENTENCES + b"\n")), "own file caltech_prompt.json (sha256"),
    ],
)
def test_official_by_content(root, monkeypatch, official, expected):
    """Catches: an edited file that passes for the official one by its name; a blob id that is not git's."""
    monkeypatch.setitem(text_source.OFFICIAL_FILES, "Caltech101", official)
    assert str(find_source("", "Caltech101", root)).startswith(expected)
    elsewhere = root / "mine.json"
    elsewhere.write_bytes(SENTENCES)
    assert str(find_source(str(elsewhere), "Caltech101", root)).startswith(expected.replace("caltech_prompt", "mine"))


def test_the_data_root_is_asked_last(root):
    """Catches: descriptions that cannot be switched off; a setting that the data root overrules; another data set's."""
    assert find_source("", "Caltech101", root).file == root / "descriptions" / "caltech_prompt.json"
    assert str(find_source("templates", "Caltech101", root)) == "templates"
    assert str(find_source("", "Caltech101", root / "nowhere")) == str(find_source("", "Shapes", root)) == "templates"
    (root / "mine.json").write_bytes(SENTENCES)
    assert find_source(str(root / "mine.json"), "Caltech101", root).file == root / "mine.json"
    with pytest.raises(FileNotFoundError, match="do not exist; give a JSON file or a folder of them, or 'templates'"):
        find_source(str(root / "gone.json"), "Caltech101", root)


def test_every_data_set_finds_its_file_in_the_data_root(tmp_path):
    """Catches: a name in the table that its data set does not look for; ImageNet's variants without ImageNet's file."""
    folder = tmp_path / "descriptions"
    folder.mkdir()
    names = {cls.__name__ for cls in own_datasets() if not cls.drawn and os.path.normpath(cls.folder) != "."}
    assert names == set(OFFICIAL_FILES)
    for dataset in names:
        assert find_source("", dataset, tmp_path).kind == "templates"
        path = folder / OFFICIAL_FILES[dataset].name
        path.write_bytes(SENTENCES)
        assert find_source("", dataset, tmp_path).file == path
        path.unlink()
    (folder / "imagenet_prompt.json").write_bytes(SENTENCES)
    found = {dataset for dataset in names if find_source("", dataset, tmp_path).file}
    assert found == {"ImageNet", "ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR"}
    (folder / "imagenet_a_prompt.json").write_bytes(SENTENCES)
    assert find_source("", "ImageNetA", tmp_path).file.name == "imagenet_a_prompt.json"


def test_the_table():
    """Catches: a damaged line of the table of official files."""
    for file in OFFICIAL_FILES.values():
        assert file.url == (
            "https://raw.githubusercontent.com/FushengHao/TAC/914c3067ca5ce48b0a354dc2ccd1e5b1fc1115a8/descriptions/"
            + file.name
        )
        assert len(file.blob) == 40 and bool(file.size) == (len(file.sha256) == 64)
    assert sum(not file.sha256 for file in OFFICIAL_FILES.values()) == 5


def test_files_that_are_not_read(root, monkeypatch):
    """Catches: a pipe in the data root that is waited for; a file of gigabytes that is read into memory."""
    path = root / "descriptions" / "caltech_prompt.json"
    monkeypatch.setattr(text_source, "LARGEST", 10)
    with pytest.raises(ValueError, match="is larger than .* it is no file of class descriptions"):
        find_source("", "Caltech101", root)
    path.unlink()
    os.mkfifo(path)
    assert str(find_source("", "Caltech101", root)) == "templates"


def test_a_note_is_no_class(tmp_path):
    """Catches: the note of who wrote the file taken for a class, or a class of that name lost."""
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"@about": {"model": "m", "date": "2026-01-01"}, "about": ["a word."], "ant": ["it."]}))
    assert read_descriptions(path, "", ["ant", "about"], exact=True) == [["it."], ["a word."]]
    path.write_text(json.dumps({"@about": ["a sign."], "ant": ["it."]}))
    assert read_descriptions(path, "", ["@about"]) == [["a sign."]]
