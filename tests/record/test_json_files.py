"""The one reader of JSON files, and of yaml files, that users may have written."""

import json

import pytest

from clusterprompt import config
from clusterprompt.record.json_files import read_json
from clusterprompt.record.result import DamagedRecord, RunRecord
from clusterprompt.running import spec


def test_json_is_what_it_was(tmp_path):
    """Catches: a reader that changes what it reads, such as the order of keys."""
    content = {"b": [1, 2.5, None, True, "é"], "a": {"x": {}, "y": [[]]}}
    (tmp_path / "file.json").write_text(json.dumps(content))
    assert read_json(tmp_path / "file.json") == content and list(read_json(tmp_path / "file.json")) == ["b", "a"]


@pytest.mark.parametrize(
    "text, said",
    [
        ('{"a": 1, "b": 2, "a": 3}', "'a' is given twice; keep one"),
        ('[{"x": {"a": 1, "a": 1}}]', "'a' is given twice; keep one"),
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 100_000, "nested too deep"),
        ('{"a": ', "Expecting value"),
        ("9" * 10_000, "digit"),
    ],
)
def test_json_that_cannot_be_read(text, said, tmp_path):
    """Catches: the last of two values of a key taken in silence; a traceback for what is nested without end."""
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(ValueError, match=said) as error:
        read_json(tmp_path / "file.json")
    assert "\n" not in str(error.value)


def test_record_with_a_field_twice(tmp_path):
    """Catches: a record whose second accuracy counts."""
    (tmp_path / "result.json").write_text('{"status": "finished", "accuracy": 10.0, "accuracy": 90.0}')
    with pytest.raises(DamagedRecord, match="damaged .'accuracy' is given twice"):
        RunRecord.read(tmp_path)


@pytest.mark.parametrize(
    "text, said",
    [
        ("DATASET: {NAME: Shapes, NAME: Caltech101}", "'NAME' is given twice, in lines 1 and 1"),
        ("DATASET: {NAME: Shapes}\nDATASET: {NAME: Caltech101}", "'DATASET' is given twice, in lines 1 and 2"),
        ("a: " + "[" * 5000, "not valid yaml"),
        ("DATASET: [", "not valid yaml"),
    ],
)
@pytest.mark.parametrize("reader", [config.read_yaml, lambda path: spec.is_drawn(str(path))])
def test_yaml_of_a_data_set(text, said, reader, tmp_path):
    """Catches: of two names of a data set the last taken in silence; a traceback when a plan asks what kind it is."""
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said) as error:
        reader(path)
    assert "own.yaml" in str(error.value) and "\n" not in str(error.value)
