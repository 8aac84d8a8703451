"""Finished runs are kept only for the data that they are of: campaigns, and what they read of data for that."""

import json
import shutil
from pathlib import Path

import data_trees
import pytest
from PIL import Image
from stand_ins import write_record

from clusterprompt import registration
from clusterprompt.commands import run
from clusterprompt.commands.options import split_pairs
from clusterprompt.datasets.base import PromptDataset
from clusterprompt.datasets.caltech101 import Caltech101
from clusterprompt.datasets.image_folder import ImageFolder
from clusterprompt.record.result import RunRecord
from clusterprompt.running.same_data import DataNow

SPLIT = "caltech-101/split_zhou_Caltech101.json"
WORDS = "--protocol base2new --trainers CoOp KgCoOp --datasets caltech101 --seeds 1 2 3 --shots 2"
TREES = [cls for cls in registration.own_datasets() if cls.folder != "." and not cls.drawn]


@pytest.mark.parametrize("cls", TREES, ids=lambda cls: cls.__name__)
def test_lists_alone_give_the_same_digests(cls, tmp_path, cfg_for):
    """Catches: a data set for which a plan sees other data than its runs did, so that all are refused, or none."""
    data_trees.write(cls, tmp_path)
    listed = cls.listed(cfg_for(tmp_path))
    for shots, seed in ((2, 1), (-1, 1), (2, 3), (2, 1)):
        cfg = cfg_for(tmp_path, shots=shots, seed=seed)
        listed.choose_again(cfg)
        dataset = cls(cfg)
        assert listed.fewshot_digests == dataset.fewshot_digests and listed.test_digest == dataset.test_digest


def test_test_digest_is_of_the_test_images(own_caltech_root, cfg_for):
    """Catches: a digest that a removed or relabelled test image does not change, or that their order changes."""
    split = json.loads((own_caltech_root / SPLIT).read_text())
    first = Caltech101(cfg_for(own_caltech_root)).test_digest
    assert first == Caltech101(cfg_for(own_caltech_root, shots=1, seed=2, subsample="new")).test_digest
    for change, same in ((lambda rows: rows[::-1], True), (lambda rows: rows[1:], False)):
        (own_caltech_root / SPLIT).write_text(json.dumps({**split, "test": change(split["test"])}))
        assert (Caltech101(cfg_for(own_caltech_root)).test_digest == first) == same


@pytest.fixture
def finished(calls, own_caltech_root, monkeypatch):
    """Six finished jobs on a small Caltech101; returns its root."""
    monkeypatch.setenv("DATA", str(own_caltech_root))
    words, pairs = split_pairs(WORDS.split())
    asked = run.campaign_of(run.build_parser().parse_args(words), pairs)
    for job in asked.jobs()["base2new"]:
        for spec in job.specs:
            data = Caltech101(_cfg(spec))
            write_record(spec, 60.0, fewshot_digest=data.fewshot_digest, test_digest=data.test_digest, n_test=9)
    return own_caltech_root


def _cfg(spec):
    from clusterprompt.running.train import make_cfg

    return make_cfg(spec.train_options())


def _files(folder):
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*.json"))}


def change_split(root, part):
    """Drop the first image of a part."""
    split = json.loads((root / SPLIT).read_text())
    split[part] = split[part][1:]
    (root / SPLIT).write_text(json.dumps(split))


@pytest.mark.parametrize("part, said", [("train", "another few-shot sample"), ("test", "other test images")])
def test_changed_data_are_noticed(finished, calls, output, capsys, part, said):
    """Catches: finished runs of other data kept in the table in silence; results lost because of it."""
    before = _files(output)
    assert run.main(WORDS.split()) == 0 and not calls
    change_split(finished, part)
    capsys.readouterr()
    assert run.main(WORDS.split()) == 2 and not calls
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and f"{said} (digest " in error and "of 6 runs" in error
    assert "--overwrite" in error and "OUTPUT=<another folder>" in error
    assert run.main([*WORDS.split(), "--plan"]) == 0 and said in capsys.readouterr().out
    assert _files(output) == before
    assert run.main([*WORDS.split(), "--overwrite"]) == 0 and len(calls) == 6


def test_data_that_cannot_be_compared(finished, calls, capsys):
    """Catches: tables that cannot be shown any more because the data were moved away; damaged lists not named."""
    (finished / SPLIT).write_text('{"train": [], "train": []}')
    assert run.main(WORDS.split()) == 2
    assert "the data cannot be used any more (Split file" in capsys.readouterr().err
    shutil.rmtree(finished)
    assert run.main(WORDS.split()) == 0 and not calls


def test_lists_are_read_once(finished, calls, monkeypatch):
    """Catches: a plan of hundreds of finished runs that reads all data sets once for each of them."""
    read, asked = [], []
    real = PromptDataset.read
    monkeypatch.setattr(PromptDataset, "read", lambda self: read.append(1) or real(self))
    chosen = PromptDataset.choose_again
    monkeypatch.setattr(PromptDataset, "choose_again", lambda self, cfg: asked.append(1) or chosen(self, cfg))
    assert run.main(WORDS.split()) == 0
    assert len(read) == 1 and len(asked) == 3  # seeds


def test_own_images(tmp_path, cfg_for):
    """Catches: images added to a user's folder that nobody notices; a split written by a plan that only looks."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.new("RGB", (9, 9)).save(tmp_path / name / f"{i}.png")
    cfg = cfg_for(tmp_path, shots=1)
    cfg.DATASET.NAME = "ImageFolder"
    assert ImageFolder.listed(cfg) is None and not list(tmp_path.glob("*.json"))
    data = ImageFolder(cfg)

    class Record:
        drawn, n_test, transductive = False, 2, False
        fewshot_digest, test_digest = data.fewshot_digest, data.test_digest

    assert DataNow().differences(Record, cfg) == []
    Image.new("RGB", (9, 9)).save(tmp_path / "cat" / "new.png")
    (difference,) = DataNow().differences(Record, cfg)
    assert "new images: 1 (cat/new.png)" in difference


def test_a_transductive_run_is_of_all_images(own_caltech_root, cfg_for):
    """Catches: a run on all training images that is refused as another few-shot sample, or one of edited data kept."""
    whole = Caltech101(cfg_for(own_caltech_root, shots=-1))
    digests = {"fewshot_digest": whole.fewshot_digest, "test_digest": whole.test_digest, "n_test": 9}
    record = RunRecord("finished", "PromptKD", "Caltech101", "base", 2, 1, "tiny", transductive=True, **digests)
    cfg = cfg_for(own_caltech_root, shots=2)
    registration.extend_cfg(cfg)
    cfg.DATASET.NAME = "Caltech101"
    assert DataNow().differences(record, cfg) == [] and cfg.DATASET.NUM_SHOTS == 2
    split = json.loads((own_caltech_root / SPLIT).read_text())
    (own_caltech_root / SPLIT).write_text(json.dumps({**split, "train": split["train"][:-1]}))
    assert len(DataNow().differences(record, cfg)) == 1
