"""Sentences and their frozen features."""

import json

import pytest
import torch

from clusterprompt.clip_patches.class_texts import (
    check_length,
    class_anchors,
    fill,
    read_descriptions,
    template_sentences,
    text_features,
)
from clusterprompt.clip_patches.loading import tokenize
from clusterprompt.registration import own_datasets

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


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"ant": ["a."], "ant": ["b."]}', "described twice, as entry 1 'ant' and as entry 2 'ant'; keep one"),
        ('{"ant_lion": ["a."], "bee": ["b."], "ant lion": ["c."]}', "as entry 1 'ant_lion' and as entry 3 'ant lion'"),
    ],
)
def test_a_class_described_twice(tmp_path, content, message):
    """Catches: the last of two descriptions taken in silence."""
    (tmp_path / "d.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_descriptions(tmp_path / "d.json", "Caltech101", ["ant"])


OFFICIAL_FOLDER = (
    "caltech dtd eurosat fgvc food101 imagenet oxford_flowers oxford_pets stanford_cars sun397 ucf101".split()
)


def test_all_data_sets_find_their_official_file(tmp_path):
    """Catches: a data set whose file in the official folder has a name of its own, such as dtd's, and is not found."""
    for name in OFFICIAL_FOLDER:
        (tmp_path / f"{name}_prompt.json").write_text(json.dumps({"it": [name]}))
    sets = [cls.__name__ for cls in own_datasets() if not cls.drawn and not cls.__name__.startswith("Image")]
    sets += ["ImageNet", "ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR"]
    assert len(sets) == 15
    found = {name: read_descriptions(tmp_path, name, ["it"])[0][0] for name in sets}
    assert (
        found["DescribableTextures"] == "dtd" and found["FGVCAircraft"] == "fgvc" and found["ImageNetA"] == "imagenet"
    )
    assert set(found.values()) == set(OFFICIAL_FOLDER)


def test_capitals_of_keys(tmp_path):
    """Catches: descriptions not found for a capital letter; one of two that differ in it taken for the other."""
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"Sea Horse": ["a fish."], "Crane": ["a machine."], "crane": ["a bird."]}))
    assert read_descriptions(path, "", ["sea_horse", "crane"]) == [["a fish."], ["a bird."]]
    with pytest.raises(ValueError, match="no description for 1 of 1 classes: 'CRANE'"):
        read_descriptions(path, "", ["CRANE"])


@pytest.mark.parametrize("template", ["{:>2000000000}", "{name}", "{0.__class__}", "{} {}", "none", "{{}}"])
def test_a_template_is_no_format_string(template):
    """Catches: a template from a stranger's record that takes gigabytes, or reads attributes."""
    with pytest.raises(ValueError, match=r"should hold \{\} once"):
        fill(template, ["ant"])


def test_braces_in_class_names():
    """Catches: a class name that is taken for a part of the template."""
    assert fill("a {}.", ["{0}"]) == ["a {0}."] and template_sentences(["{}"], ("a {}.",)) == [["a {}."]]


def test_lengths_without_a_clip():
    """Catches: a class name of the new half that is only refused after the base half was trained."""
    check_length(["word " * 75], 0)
    with pytest.raises(ValueError, match="has 78 tokens with SOS, EOT, and CLIP's context is 77"):
        check_length(["word " * 76], 0)
    with pytest.raises(ValueError, match="has 78 tokens with SOS, EOT and 16 in front"):
        check_length(["word " * 60], 16)
