"""Reading, few-shot sampling, halves of classes, caches."""

import hashlib
import json
import os
import pickle
import random
import shutil
from collections import defaultdict

import pytest
from dassl.data.datasets import Datum

from clusterprompt.datasets.base import PromptDataset
from clusterprompt.datasets.caltech101 import Caltech101

SEEDS = (0, 1, 2, 3)


def rows(items, root):
    folder = os.path.join(str(root), "caltech-101", "101_ObjectCategories")
    return [[os.path.relpath(item.impath, folder), item.label, item.classname] for item in items]


def read_split(root):
    return json.loads((root / "caltech-101" / "split_zhou_Caltech101.json").read_text())


def coop_sample(split, shots, seed):
    """CoOp's few-shot sampling, written down as plainly as possible."""
    random.seed(seed)
    sampled = []
    for part, n in (("train", shots), ("val", min(shots, 4))):
        by_label = defaultdict(list)
        for row in split[part]:
            by_label[row[1]].append(row)
        sampled.append(
            [row for items in by_label.values() for row in (random.sample(items, n) if len(items) >= n else items)]
        )
    return sampled


# ------------------------------------------------------------------ few-shot


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shots", [1, 2, 5])
def test_fewshot_lists_are_coops(caltech_root, cfg_for, shots, seed):
    """Catches: another order of draws, val drawn first, more than 4 val shots, seed 0 taken for "no seed"."""
    random.seed(987)  # whatever ran before must not matter
    dataset = Caltech101(cfg_for(shots=shots, seed=seed))
    after = random.random()
    train, val = coop_sample(read_split(caltech_root), shots, seed)
    assert after == random.random()  # and the generator is left where CoOp leaves it
    assert rows(dataset.train_x, caltech_root) == train
    assert rows(dataset.val, caltech_root) == val
    assert len(dataset.test) == 15


def test_val_takes_what_there_is(own_caltech_root, cfg_for):
    """Catches: too few validation images treated as an error."""
    path = own_caltech_root / "caltech-101" / "split_zhou_Caltech101.json"
    split = read_split(own_caltech_root)
    split["val"] = split["val"][:1]
    path.write_text(json.dumps(split))
    assert len(Caltech101(cfg_for(own_caltech_root, shots=4)).val) == 1


def test_unseeded_sampling_follows_the_global_generator(caltech_root, cfg_for):
    """Catches: seeding with -1, which would make every unseeded run the same."""
    samples = []
    for state in (1, 2):
        random.seed(state)
        samples.append(rows(Caltech101(cfg_for(shots=2, seed=-1)).train_x, caltech_root))
    assert samples[0] != samples[1]


@pytest.mark.parametrize("shots", [0, -2])
def test_impossible_shots(cfg_for, shots):
    """Catches: NUM_SHOTS 0 silently meaning the full set, as in CoOp."""
    with pytest.raises(ValueError, match=f"NUM_SHOTS is {shots}.*-1 for all"):
        Caltech101(cfg_for(shots=shots))


def test_fewer_images_than_shots(cfg_for):
    """Catches: an unnoticed 6-shot run under the name of 16."""
    with pytest.raises(ValueError, match=r"NUM_SHOTS 16 .*face \(6\).*Lower it to 6"):
        Caltech101(cfg_for(shots=16))


def test_what_there_is(cfg_for, caltech_root, caplog):
    """Catches: unbalanced data that cannot be run at 16 shots; counts that nobody hears of; another sample of the
    classes that have enough.
    """
    cfg = cfg_for(shots=16)
    cfg.DATASET.FEWER_SHOTS = True
    dataset = Caltech101(cfg)
    assert len(dataset.train_x) == 30 and dataset.fewer_shots["face"] == 6
    assert "5 of 5 classes have fewer than 16 images, and give all: face (6), airplane (6)" in caplog.text
    cfg = cfg_for(shots=2)
    plain = rows(Caltech101(cfg).train_x, caltech_root)
    cfg.DATASET.FEWER_SHOTS = True
    assert rows(Caltech101(cfg).train_x, caltech_root) == plain and not Caltech101(cfg).fewer_shots


def edited_split(root, change):
    """Change the split file of a small Caltech101."""
    path = root / "caltech-101" / "split_zhou_Caltech101.json"
    split = json.loads(path.read_text())
    path.write_text(json.dumps({part: [change(part, row) for row in part_rows] for part, part_rows in split.items()}))


@pytest.mark.parametrize("subsample", ["all", "base"])
@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda part, row: [row[0], row[1] + 1, row[2]],
            "the 5 classes have the labels 1, 2, 3 and 2 more, not 0 to 4",
        ),
        (lambda part, row: [row[0], row[1], "" if row[1] == 2 else row[2]], r"class 2 has no name \('train', row 13\)"),
        (lambda part, row: [row[0], row[1], "bird"], r"1 names have several labels: 'bird' is 0 \('train', row 1\)"),
    ],
)
def test_contradictions_of_a_split(own_caltech_root, cfg_for, change, message, subsample):
    """Catches: 0.0 % or an IndexError long after the start, for labels that count from 1; names that say nothing."""
    edited_split(own_caltech_root, change)
    with pytest.raises(ValueError, match=rf"split_zhou_Caltech101\.json: .*{message}"):
        Caltech101(cfg_for(own_caltech_root, subsample=subsample))


def test_backslashes(own_caltech_root, caltech_root, cfg_for):
    """Catches: a split written on Windows whose images "do not exist"."""
    before = Caltech101(cfg_for(own_caltech_root, shots=2)).fewshot_digests
    edited_split(own_caltech_root, lambda part, row: [row[0].replace("/", "\\"), *row[1:]])
    assert Caltech101(cfg_for(own_caltech_root, shots=2)).fewshot_digests == before


def test_all_images(caltech_root, cfg_for):
    """Catches: sampling where none was asked for."""
    dataset = Caltech101(cfg_for())
    assert rows(dataset.train_x, caltech_root) == read_split(caltech_root)["train"]
    assert len(dataset.val) == 25


def test_digest_follows_the_published_rule(caltech_root, own_caltech_root, cfg_for):
    """Catches: a digest that depends on the place of the data, on the chosen half, or leaves out label or name."""
    train, val = coop_sample(read_split(caltech_root), 2, 1)
    expected = [
        hashlib.sha256("\n".join(f"{p}\t{y}\t{name}" for p, y, name in part).encode()).hexdigest()
        for part in (train, val)
    ]
    for root, subsample in (
        (caltech_root, "all"),
        (own_caltech_root, "all"),
        (caltech_root, "base"),
        (caltech_root, "new"),
    ):
        dataset = Caltech101(cfg_for(root, shots=2, subsample=subsample))
        assert [dataset.fewshot_digests["train"], dataset.fewshot_digests["val"]] == expected
        assert dataset.fewshot_digest == expected[0]


def test_digest_is_logged_once(cfg_for, caplog):
    """Catches: a run whose log does not say which images it trained on."""
    with caplog.at_level("INFO"):
        dataset = Caltech101(cfg_for(shots=2))
    assert [message for message in caplog.messages if dataset.fewshot_digest in message] == [
        "Caltech101, 2 shots, seed 1: digest of the training list "
        f"{dataset.fewshot_digest} (not the canonical CoOp sample)"
    ]


# ------------------------------------------------------------------ base and new


def test_halves(caltech_root, cfg_for):
    """Catches: the middle class of an odd number on the wrong side, labels not renumbered, other images than with all
    classes.
    """
    every = rows(Caltech101(cfg_for(shots=2)).train_x, caltech_root)
    base = Caltech101(cfg_for(shots=2, subsample="base"))
    new = Caltech101(cfg_for(shots=2, subsample="new"))
    assert base.classnames == ["face", "airplane", "anchor"]
    assert new.classnames == ["stop_sign", "yin_yang"]
    assert rows(base.train_x, caltech_root) == [row for row in every if row[1] < 3]
    assert rows(new.train_x, caltech_root) == [[path, label - 3, name] for path, label, name in every if label >= 3]
    assert [len(base.test), len(new.test)] == [9, 6]
    assert {item.label for item in new.test} == {item.label for item in new.val} == {0, 1}


def test_a_half_without_test_images(own_caltech_root, cfg_for):
    """Catches: hours of training before a test without images ends in a traceback."""
    path = own_caltech_root / "caltech-101" / "split_zhou_Caltech101.json"
    split = read_split(own_caltech_root)
    split["test"] = [row for row in split["test"] if row[1] < 3]
    path.write_text(json.dumps(split))
    assert len(Caltech101(cfg_for(own_caltech_root, subsample="base")).test) == 9
    with pytest.raises(ValueError, match="no class of DATASET.SUBSAMPLE_CLASSES new has a test image"):
        Caltech101(cfg_for(own_caltech_root, subsample="new"))


def test_unknown_half(cfg_for):
    """Catches: a misspelt SUBSAMPLE_CLASSES that silently means something else."""
    with pytest.raises(ValueError, match="'novel'; allowed are all, base, new"):
        Caltech101(cfg_for(subsample="novel"))


# ------------------------------------------------------------------ what may be missing or damaged


def test_missing_root(cfg_for, tmp_path):
    """Catches: an error that does not say which folder, and where the data come from."""
    with pytest.raises(FileNotFoundError, match=r"nowhere.*--root.*data\.caltech\.edu.*DATASETS\.md"):
        Caltech101(cfg_for(tmp_path / "nowhere"))


def test_missing_folder(cfg_for, tmp_path):
    """Catches: the root blamed for a folder that is missing below it."""
    with pytest.raises(FileNotFoundError, match=r"Folder not found: .*caltech-101.*data\.caltech\.edu"):
        Caltech101(cfg_for(tmp_path))


def test_missing_split_is_never_invented(own_caltech_root, cfg_for):
    """Catches: CoOp's silent new split, which also moves the few-shot sample."""
    path = own_caltech_root / "caltech-101" / "split_zhou_Caltech101.json"
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"split_zhou_Caltech101\.json.*DATASETS\.md"):
        Caltech101(cfg_for(own_caltech_root))
    assert not path.exists()


def test_missing_image(own_caltech_root, cfg_for):
    """Catches: a missing image found hours later, or not named."""
    victim = read_split(own_caltech_root)["test"][4][0]
    (own_caltech_root / "caltech-101" / "101_ObjectCategories" / victim).unlink()
    with pytest.raises(FileNotFoundError, match=f"1 of 15 listed images.*{victim}"):
        Caltech101(cfg_for(own_caltech_root))


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"train": [', "not valid JSON"),
        ('{"train": [], "val": []}', "lists train, val, test"),
        ('{"train": [["a.jpg", "0", "face"]], "val": [], "test": []}', r"a row is \['a.jpg', '0', 'face'\]"),
        ('{"train": [], "val": [], "test": []}', "no test image"),
        ('{"train": [], "test": [], "val": [], "test": []}', "'test' is given twice; keep one"),
        ('{"train": ' + "[" * 100_000, r"not valid JSON \(nested too deep\)"),
        (
            '{"train": [' + "[" * 200 + "]" * 200 + "]" + ', "val": [], "test": []}',
            r"a row is \[\[.{1,100}\.\.\.; wanted",
        ),
        ('{"train": [["a.jpg", NaN, "face"]], "val": [], "test": []}', r"a row is \['a.jpg', nan, 'face'\]"),
    ],
)
def test_damaged_split(own_caltech_root, cfg_for, content, message):
    """Catches: a half-downloaded or hand-edited split file that fails far from its cause; of two lists of one name the
    last taken in silence; a traceback for one nested deep.
    """
    path = own_caltech_root / "caltech-101" / "split_zhou_Caltech101.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        Caltech101(cfg_for(own_caltech_root))


def test_root_may_use_home_and_environment(caltech_root, cfg_for, monkeypatch):
    """Catches: "~" or "$DATA" taken for names of folders."""
    monkeypatch.setenv("HOME", str(caltech_root.parent))
    monkeypatch.setenv("MY_DATA", str(caltech_root))
    for root in (f"~/{caltech_root.name}", "$MY_DATA"):
        assert Caltech101(cfg_for(root)).image_dir == str(caltech_root / "caltech-101" / "101_ObjectCategories")


class Photos(PromptDataset):
    folder = "caltech-101"
    images = "101_ObjectCategories"
    split_file = "test_only.json"
    test_only = True


def test_test_only_set(own_caltech_root, cfg_for):
    """Catches: a shifted test set that wants training images, or is cut to shots or halves."""
    split = {"test": read_split(own_caltech_root)["test"]}
    (own_caltech_root / "caltech-101" / "test_only.json").write_text(json.dumps(split))
    dataset = Photos(cfg_for(own_caltech_root, shots=16, subsample="base"))
    assert rows(dataset.train_x, own_caltech_root) == rows(dataset.test, own_caltech_root) == split["test"]
    assert not dataset.val
    assert dataset.num_classes == 5


def test_prepare_may_write_the_data(own_caltech_root, cfg_for, tmp_path):
    """Catches: the root checked before a data set that writes itself had the chance."""

    class Written(Caltech101):
        def prepare(self, root_dir):
            shutil.copytree(own_caltech_root, root_dir)

    assert len(Written(cfg_for(tmp_path / "not there yet")).test) == 15


# ------------------------------------------------------------------ CoOp's caches


def write_cache(root, shots, seed, content):
    path = root / "caltech-101" / "split_fewshot" / f"shot_{shots}-seed_{seed}.pkl"
    path.parent.mkdir()
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL))
    return path


def chosen(root, numbers, folder=None):
    """The rows ``numbers`` of the training list as CoOp caches them; ``folder``: where the images lay when it did."""
    items = []
    for row in (read_split(root)["train"][number] for number in numbers):
        item = Datum(str(root / "caltech-101" / "101_ObjectCategories" / row[0]), row[1], classname=row[2])
        if folder:
            item._impath = f"{folder}/{row[0]}"
        items.append(item)
    return items


def test_no_cache_is_written(own_caltech_root, cfg_for):
    """Catches: files of ours in the data folder."""
    before = sorted(os.listdir(own_caltech_root / "caltech-101"))
    Caltech101(cfg_for(own_caltech_root, shots=1))
    assert sorted(os.listdir(own_caltech_root / "caltech-101")) == before


@pytest.mark.parametrize(
    "folder", [None, "/old/disk/caltech-101/101_ObjectCategories", r"D:\data\caltech-101\101_ObjectCategories"]
)
def test_cache_is_honoured(own_caltech_root, cfg_for, caplog, folder):
    """Catches: a cached sample ignored, or lost because the data were moved."""
    numbers = [5, 11, 17, 23, 29]  # the last image of each class: not what seed 1 gives
    write_cache(own_caltech_root, 1, 1, {"train": chosen(own_caltech_root, numbers, folder), "val": []})
    with caplog.at_level("INFO"):
        dataset = Caltech101(cfg_for(own_caltech_root, shots=1))
    assert rows(dataset.train_x, own_caltech_root) == [
        read_split(own_caltech_root)["train"][number] for number in numbers
    ]
    assert "DIFFERS from what seed 1 draws" in caplog.text


def test_canonical_cache_is_recognised(own_caltech_root, cfg_for, caplog):
    """Catches: a warning about a cache that is just what the seed gives."""
    fresh = Caltech101(cfg_for(own_caltech_root, shots=2))
    write_cache(own_caltech_root, 2, 1, {"train": fresh.train_x, "val": fresh.val})
    with caplog.at_level("INFO"):
        cached = Caltech101(cfg_for(own_caltech_root, shots=2))
    assert cached.fewshot_digests == fresh.fewshot_digests
    assert "equals what seed 1 draws" in caplog.text


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_cache_that_runs_code(own_caltech_root, cfg_for, tmp_path):
    """Catches: plain unpickling of a downloaded file."""
    trace = tmp_path / "it ran"
    write_cache(own_caltech_root, 1, 1, {"train": [Bomb(str(trace))], "val": []})
    with pytest.raises(ValueError, match=r"shot_1-seed_1\.pkl.*posix\.mkdir|nt\.mkdir"):
        Caltech101(cfg_for(own_caltech_root, shots=1))
    assert not trace.exists()


def test_damaged_or_foreign_caches(own_caltech_root, cfg_for):
    """Catches: a truncated cache, or one of another split, used in part or failing without its name."""
    good = pickle.dumps({"train": chosen(own_caltech_root, [0]), "val": []})
    renamed = chosen(own_caltech_root, [0])
    renamed[0]._classname = "visage"
    strange = chosen(own_caltech_root, [0], "/old/elsewhere")
    strange[0]._impath = "/old/Faces/image_9999.jpg"
    cases = [
        (good[: len(good) // 2], "cannot be read"),
        ([1, 2], "does not hold the lists"),
        ({"train": ["Faces/image_0001.jpg"], "val": []}, "not a Datum"),
        ({"train": renamed, "val": []}, "'visage'.*'face'"),
        ({"train": strange, "val": []}, "image_9999"),
    ]
    for content, message in cases:
        path = write_cache(own_caltech_root, 1, 1, content)
        with pytest.raises(ValueError, match=f"(?s){path.name}.*{message}.*Delete"):
            Caltech101(cfg_for(own_caltech_root, shots=1))
        shutil.rmtree(path.parent)
