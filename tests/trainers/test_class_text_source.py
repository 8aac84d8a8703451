"""The source of a method's class texts: in log and record, the same for both halves, not exchanged in a resumed run."""

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import support
import torch
from clip import tokenize

from clusterprompt import load_run
from clusterprompt.clip_patches import text_source
from clusterprompt.clip_patches.text_source import OfficialFile
from clusterprompt.record.result import RunRecord
from clusterprompt.registration import own_trainers
from clusterprompt.trainers.parts.described import Described
from clusterprompt.trainers.parts.resume import FILE, read_state
from clusterprompt.use.convert import convert

READERS = {cls.__name__: cls for cls in own_trainers() if "DESCRIPTIONS" in cls.options}


@pytest.fixture
def root(data, tmp_path):
    """A data root of its own: the small data set, its descriptions in ``descriptions/``."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "caltech-101").symlink_to(data / "caltech-101")
    split = json.loads((data / "caltech-101" / "split_zhou_Caltech101.json").read_text())
    names = dict.fromkeys(row[2].replace("_", " ") for row in split["train"])
    (root / "descriptions").mkdir()
    file = root / "descriptions" / "caltech_prompt.json"
    # Sentences of several lengths, so that averaging before and after normalising differ.
    file.write_text(json.dumps({name: [f"a {name}.", f"it is called {name}, and {'very ' * 9}odd."] for name in names}))
    return root


@pytest.fixture
def official(root, monkeypatch):
    """Let the small data set's descriptions be the official ones."""
    content = (root / "descriptions" / "caltech_prompt.json").read_bytes()
    sha256 = text_source.hashlib.sha256(content).hexdigest()
    file = OfficialFile("caltech_prompt.json", "", "", sha256, len(content))
    monkeypatch.setitem(text_source.OFFICIAL_FILES, "Caltech101", file)
    return root


@pytest.fixture
def make(backbone, tmp_path):
    """A function that builds a trainer on a data root: ``make("TAC", root, "KEY", value, output=folder)``."""

    def build(trainer, root, *pairs, output=None):
        return support.build(trainer, root, backbone, output or tmp_path / "output", *pairs)

    return build


def kmeans(points, k, seed):
    """The recorded procedure, slowly: a start by numpy's seed, means of members, until the summed shift is small."""
    np.random.seed(seed)
    centres = points[np.random.choice(len(points), k, replace=False)]
    shift = 1.0
    while shift**2 >= 1e-4:
        nearest = [max(range(k), key=lambda j: point @ centres[j] / np.linalg.norm(centres[j])) for point in points]
        new = np.stack([points[[n == j for n in nearest]].mean(axis=0) for j in range(k)])
        shift, centres = sum(np.linalg.norm(new - centres, axis=1)), new
    return centres / np.linalg.norm(centres, axis=1, keepdims=True)


def test_centres_of_the_official_descriptions(official, make, caplog):
    """Catches: descriptions in the data root that are not used, averaged otherwise, or clustered from another start; a
    log that does not say so.
    """
    with caplog.at_level(logging.INFO):
        trainer = make("TAC", official, "TRAINER.TAC.N_CENTERS", 3)
    assert "Class texts: official descriptions, 16 sentences for 8 classes, from" in caplog.text
    compare_centres(trainer, official, 3)


@pytest.mark.skipif(
    not Path(os.environ.get("CLUSTERPROMPT_TEST_DATA", "/nowhere"), "descriptions", "caltech_prompt.json").is_file(),
    reason="CLUSTERPROMPT_TEST_DATA names no root with the real Caltech101 and its official descriptions",
)
def test_centres_of_the_real_caltech101(make, caplog):
    """Catches: the same, in the real thing: 50 sentences for each of the 50 base classes."""
    root = Path(os.environ["CLUSTERPROMPT_TEST_DATA"])
    with caplog.at_level(logging.INFO):
        trainer = make("TAC", root, "MODEL.BACKBONE.NAME", "tiny")
    assert "Class texts: official descriptions, 2500 sentences for 50 classes, from" in caplog.text
    trainer.recorder.write()
    assert RunRecord.read(trainer.output_dir).text_source == "official descriptions"
    compare_centres(trainer, root, 5)


def compare_centres(trainer, root, k):
    """Compare TAC's anchors and centres with those of a slow way from the sentences to the centres."""
    table = json.loads((root / "descriptions" / "caltech_prompt.json").read_text())
    with torch.no_grad():
        features = [trainer.clip.encode_text(tokenize(table[name.replace("_", " ")])) for name in trainer.classnames]
    means = torch.stack([own.double().mean(dim=0) for own in features])
    points = torch.nn.functional.normalize(means, dim=1).numpy()
    np.testing.assert_allclose(trainer.text_anchors, points, atol=1e-6)
    np.testing.assert_allclose(trainer.learner.centers, kmeans(points, k, seed=1), atol=1e-6)


@pytest.mark.parametrize("method", READERS)
def test_the_record_says_the_source(method, official, data, make, caplog):
    """Catches: a method whose record or log does not tell official descriptions, own file and templates apart."""
    own = official / "mine.json"
    own.write_text((official / "descriptions" / "caltech_prompt.json").read_text() + "\n")
    key = "DATASET.DESCRIPTIONS"
    for number, (root, pairs, expected) in enumerate(
        [
            (official, (), "official descriptions"),
            (data, (key, str(official / "descriptions")), "official descriptions"),
            (official, (key, str(own)), "own file mine.json (sha256 "),
            (official, (key, "templates"), "templates"),
            *([] if issubclass(READERS[method], Described) else [(data, (), "templates")]),
        ]
    ):
        caplog.clear()
        folder = official.parent / f"run{number}"
        with caplog.at_level(logging.INFO):
            trainer = make(method, root, key, "", *pairs, output=folder)
            getattr(trainer, "description_features", None)  # CoPrompt reads them when it trains
        trainer.recorder.write()
        assert RunRecord.read(folder).text_source.startswith(expected)
        assert f"Class texts: {expected}" in caplog.text


def test_methods_without_class_texts(official, make):
    """Catches: a source in the record of a method that describes no class."""
    trainer = make("CoOp", official)
    trainer.recorder.write()
    assert RunRecord.read(trainer.output_dir).text_source == ""


def test_a_class_without_description(official, make):
    """Catches: a class that gets a template in silence, where the others have descriptions."""
    file = official / "descriptions" / "caltech_prompt.json"
    table = json.loads(file.read_text())
    table.pop("leopard")
    file.write_text(json.dumps(table))
    with pytest.raises(ValueError, match="no description for 1 of 8 classes: 'leopard'.*set DESCRIPTIONS templates"):
        make("TAC", official)


@pytest.fixture
def trained(data, make, tmp_path):
    """The folder of a TAC trained for one epoch of two on the base half, with templates."""
    folder = tmp_path / "trained"
    trainer = make("TAC", data, output=folder)
    trainer.recorder.start_training([], 0)
    trainer.epoch, trainer.max_epoch = 0, 2
    trainer.save_model(0, str(folder))
    return folder


def as_older_version(folder):
    """Take out of a run's files what older versions did not write."""
    content = json.loads((folder / "result.json").read_text())
    del content["text_source"]
    (folder / "result.json").write_text(json.dumps(content))
    state = read_state(folder / FILE)
    del state["run"]["text_source"]
    torch.save(state, folder / FILE)


@pytest.mark.parametrize("older", [False, True])
def test_descriptions_that_appear_in_the_data_root(trained, official, make, older):
    """Catches: a run with templates that goes on, is called finished, or is tested on the new half, with descriptions
    that were fetched in the meantime; one of an older version, which does not say its source.
    """
    if older:
        as_older_version(trained)
    now = make("TAC", official, output=trained)
    with pytest.raises(ValueError, match="class texts 'templates' -> 'official descriptions'"):
        now.check_resume()
    changed = RunRecord.read(trained).changed_settings(now.cfg)
    assert changed == ["class texts 'templates' -> 'official descriptions'"]
    new = make("TAC", official, "DATASET.SUBSAMPLE_CLASSES", "new")
    with pytest.raises(ValueError, match=r"another source \(templates\) than this test would use \(official desc"):
        new.load_model(str(trained))

    same = ("DATASET.DESCRIPTIONS", "templates")
    make("TAC", official, *same, output=trained).check_resume()
    make("TAC", official, *same, "DATASET.SUBSAMPLE_CLASSES", "new").load_model(str(trained))


def test_an_own_file_is_known_by_its_content(official, make, tmp_path):
    """Catches: a run that goes on with an edited file of the same name; one that is refused because its file moved."""
    own, folder = official / "mine.json", tmp_path / "own"
    own.write_text((official / "descriptions" / "caltech_prompt.json").read_text() + "\n")
    trainer = make("TAC", official, "DATASET.DESCRIPTIONS", str(own), output=folder)
    trainer.recorder.start_training([], 0)
    trainer.save_model(0, str(folder))
    (official / "elsewhere").mkdir()
    moved = shutil.copy(own, official / "elsewhere")
    make("TAC", official, "DATASET.DESCRIPTIONS", str(moved), output=folder).check_resume()
    own.write_text(own.read_text().replace("odd", "even"))
    with pytest.raises(ValueError, match="class texts 'own file mine.json .sha256 .* -> 'own file mine.json"):
        make("TAC", official, "DATASET.DESCRIPTIONS", str(own), output=folder).check_resume()


def test_another_data_set_may_have_another_source(trained, official, make):
    """Catches: a transfer to a data set without descriptions that is refused; halves alone need one source."""
    record = json.loads((trained / "result.json").read_text())
    record["trained_on"]["dataset"] = "ImageNet"
    (trained / "result.json").write_text(json.dumps(record))
    make("TAC", official).load_model(str(trained))


def finish(trainer):
    """Leave what a finished training run leaves."""
    trainer.save_model(0, trainer.output_dir)
    trainer.recorder.write()
    return trainer.output_dir


def test_a_record_opens_no_descriptions(official, make, backbone, tmp_path):
    """Catches: a stranger's record whose data root decides which file is read; descriptions that a prediction without
    need asks for; a model whose logits need them, rebuilt with others.
    """
    trust = {"backbone": str(backbone), "trust_record": True}
    plain = finish(make("TAC", official, output=tmp_path / "plain"))
    assert load_run(plain, backbone=str(backbone)).trainer.text_source.kind == "templates"
    folder = finish(make("TAC", official, "TRAINER.TAC.RECLUSTER", True, output=tmp_path / "reclustered"))
    with pytest.raises(ValueError, match="names class descriptions .*root/descriptions, which is opened only"):
        load_run(folder, backbone=str(backbone))
    centers = load_run(folder, **trust).trainer.learner.centers
    torch.testing.assert_close(centers, make("TAC", official).learner.centers)
    assert not torch.allclose(centers, make("TAC", official, "DATASET.DESCRIPTIONS", "templates").learner.centers)
    file = official / "descriptions" / "caltech_prompt.json"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(ValueError, match="trained with official descriptions, and what is found now is .*own file"):
        load_run(folder, **trust)
    file.unlink()
    with pytest.raises(ValueError, match="trained with official descriptions, and what is found now is no file"):
        load_run(folder, **trust)


def test_a_converted_checkpoint_keeps_the_source(trained, official, make, tmp_path):
    """Catches: a base half in one file that is tested on the new half with other texts."""
    file = convert(trained, tmp_path / "small.safetensors").path
    new = ("DATASET.SUBSAMPLE_CLASSES", "new")
    with pytest.raises(ValueError, match=r"another source \(templates\)"):
        make("TAC", official, *new).load_model(str(file))
    make("TAC", official, *new, "DATASET.DESCRIPTIONS", "templates").load_model(str(file))
