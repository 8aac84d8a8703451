"""Sentences and their frozen features."""

import json

import pytest
import torch

from clusterprompt.clip_patches.class_texts import (
    class_anchors,
    fill,
    read_descriptions,
    template_sentences,
    text_features,
)
from clusterprompt.clip_patches.loading import tokenize

TABLE = {
    "yin yang": ["a circle.", "black and white, with a much longer description behind it."],
    "sea horse": ["a fish."],
}


def test_fill_replaces_underscores():
    """CoOp's class names carry underscores, its prompts do not."""
    assert fill("a photo of a {}.", ["sea_horse"]) == ["a photo of a sea horse."]


def test_features_are_means_of_raw_features(clip):
    """Normalising before averaging would give other targets than the official ones."""
    sentences = [TABLE["yin yang"], TABLE["sea horse"]]
    features = text_features(clip, sentences, batch=2)
    raw = clip.encode_text(tokenize([*sentences[0], *sentences[1]]))
    torch.testing.assert_close(features, torch.stack([raw[:2].mean(0), raw[2]]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(class_anchors(clip, sentences), features / features.norm(dim=1, keepdim=True))


def test_templates_name_every_class():
    """Every template must hold the class."""
    assert all("yin yang" in s for s in template_sentences(["yin_yang"])[0])


@pytest.mark.parametrize("where", ["file", "folder", "short name"])
def test_descriptions(tmp_path, where):
    """A file, and a folder with official names, must both be found; order is that of the classes."""
    path = (
        tmp_path / {"file": "any.json", "folder": "caltech101_prompt.json", "short name": "caltech_prompt.json"}[where]
    )
    path.write_text(json.dumps(TABLE))
    (tmp_path / "dtd_prompt.json").write_text("{}")
    found = read_descriptions(path if where == "file" else tmp_path, "Caltech101", ["sea_horse", "yin_yang"])
    assert found == [TABLE["sea horse"], TABLE["yin yang"]]


@pytest.mark.parametrize(
    "content, error, message",
    [
        (json.dumps(TABLE), ValueError, "no description for 1 of 2 classes: 'yin yan' .closest: yin yang"),
        ("{broken", ValueError, "not valid JSON"),
        ('{"a": "text"}', ValueError, "at least one sentence"),
        ('{"a": []}', ValueError, "at least one sentence"),
    ],
)
def test_bad_descriptions(tmp_path, content, error, message):
    """What is wrong with the file, or which class it lacks, is said."""
    path = tmp_path / "d.json"
    path.write_text(content)
    with pytest.raises(error, match=message):
        read_descriptions(path, "Caltech101", ["yin_yan", "sea_horse"])


def test_missing_descriptions(tmp_path):
    """A missing file and a folder without a fitting file are two different messages."""
    with pytest.raises(FileNotFoundError, match="do not exist"):
        read_descriptions(tmp_path / "none.json", "Caltech101", [])
    with pytest.raises(FileNotFoundError, match="no single description file for data set Caltech101"):
        read_descriptions(tmp_path, "Caltech101", [])
