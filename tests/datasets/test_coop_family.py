"""The data sets of the CoOp family: specs as published, reading, sampling and halves of each, what is special about
some.

`FAMILY` is every data set of the package with a folder below the data root, those that draw themselves excepted. So a
new one is covered by existing; one with a layout of its own needs a writer in `data_trees.OWN_LAYOUTS`.
"""

import math
import os
import pickle
import random
import re
from collections import Counter, defaultdict
from pathlib import Path

import data_trees
import pytest
import yaml
from dassl.data.datasets import Datum

from clusterprompt.datasets import canonical, imagenet
from clusterprompt.datasets.fgvc_aircraft import FGVCAircraft
from clusterprompt.datasets.imagenet import ImageNet
from clusterprompt.datasets.imagenet_a import ImageNetA
from clusterprompt.datasets.imagenetv2 import ImageNetV2
from clusterprompt.datasets.shapes import DrawnDataset
from clusterprompt.registration import own_datasets

YAMLS = Path(__file__).resolve().parents[2] / "configs" / "datasets"
FAMILY = [cls for cls in own_datasets() if cls.folder != "." and not issubclass(cls, DrawnDataset)]
every_one = pytest.mark.parametrize("cls", FAMILY, ids=lambda cls: cls.__name__)
with_training = pytest.mark.parametrize(
    "cls", [cls for cls in FAMILY if not cls.test_only], ids=lambda cls: cls.__name__
)

# registry name: (yaml, folder, images, split file, template, classes, (train, val, test), test images of (base, new))
PUBLISHED = {
    "ImageNet": (
        "imagenet", "imagenet", "images", "", "a photo of a {}.",
        1000, (1281167, None, 50000), (25000, 25000)),
    "Caltech101": (
        "caltech101", "caltech-101", "101_ObjectCategories", "split_zhou_Caltech101.json", "a photo of a {}.",
        100, (4128, 1649, 2465), (1549, 916)),
    "OxfordPets": (
        "oxford_pets", "oxford_pets", "images", "split_zhou_OxfordPets.json", "a photo of a {}, a type of pet.",
        37, (2944, 736, 3669), (1881, 1788)),
    "StanfordCars": (
        "stanford_cars", "stanford_cars", ".", "split_zhou_StanfordCars.json", "a photo of a {}.",
        196, (6509, 1635, 8041), (4002, 4039)),
    "OxfordFlowers": (
        "oxford_flowers", "oxford_flowers", "jpg", "split_zhou_OxfordFlowers.json",
        "a photo of a {}, a type of flower.", 102, (4093, 1633, 2463), (1053, 1410)),
    "Food101": (
        "food101", "food-101", "images", "split_zhou_Food101.json", "a photo of {}, a type of food.",
        101, (50500, 20200, 30300), (15300, 15000)),
    "FGVCAircraft": (
        "fgvc_aircraft", "fgvc_aircraft", "images", "", "a photo of a {}, a type of aircraft.",
        100, (3334, 3333, 3333), (1666, 1667)),
    "SUN397": (
        "sun397", "sun397", "SUN397", "split_zhou_SUN397.json", "a photo of a {}.",
        397, (15880, 3970, 19850), (9950, 9900)),
    "DescribableTextures": (
        "dtd", "dtd", "images", "split_zhou_DescribableTextures.json", "{} texture.",
        47, (2820, 1128, 1692), (864, 828)),
    "EuroSAT": (
        "eurosat", "eurosat", "2750", "split_zhou_EuroSAT.json", "a centered satellite photo of {}.",
        10, (13500, 5400, 8100), (4200, 3900)),
    "UCF101": (
        "ucf101", "ucf101", "UCF-101-midframes", "split_zhou_UCF101.json", "a photo of a person doing {}.",
        101, (7639, 1898, 3783), (1934, 1849)),
    "ImageNetV2": (
        "imagenetv2", "imagenetv2", "imagenetv2-matched-frequency-format-val", "", "a photo of a {}.",
        1000, (None, None, 10000), None),
    "ImageNetSketch": (
        "imagenet_sketch", "imagenet-sketch", "images", "", "a photo of a {}.",
        1000, (None, None, 50889), None),
    "ImageNetA": (
        "imagenet_a", "imagenet-adversarial", "imagenet-a", "", "a photo of a {}.",
        200, (None, None, 7500), None),
    "ImageNetR": (
        "imagenet_r", "imagenet-rendition", "imagenet-r", "", "a photo of a {}.",
        200, (None, None, 30000), None),
}  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A function: data set class -> (root, what it should find); written once, not to be changed."""
    made = {}

    def get(cls):
        if cls not in made:
            root = tmp_path_factory.mktemp(cls.__name__)
            made[cls] = (root, data_trees.write(cls, root))
        return made[cls]

    return get


def rows(items, dataset):
    return [
        [os.path.relpath(item.impath, dataset.image_dir).replace(os.sep, "/"), item.label, item.classname]
        for item in items or []
    ]


def coop_sample(items, shots):
    """CoOp's draws for one list, written down as plainly as possible."""
    by_label = defaultdict(list)
    for row in items:
        by_label[row[1]].append(row)
    return [row for some in by_label.values() for row in (random.sample(some, shots) if len(some) >= shots else some)]


# ------------------------------------------------------------------ every data set


def test_all_fifteen_are_there():
    """Catches: one that discovery does not find."""
    assert set(PUBLISHED) <= {cls.__name__ for cls in FAMILY}


@pytest.mark.parametrize("name", PUBLISHED)
def test_specs_are_coops(name):
    """Catches: a misspelt folder, file, template or number: the user's data are not found, or give other results."""
    (cls,) = [cls for cls in FAMILY if cls.__name__ == name]
    _, folder, images, split_file, template, n_classes, counts, halves = PUBLISHED[name]
    assert (cls.folder, cls.images, cls.split_file, cls.template, cls.n_classes) == (
        folder,
        images,
        split_file,
        template,
        n_classes,
    )
    assert cls.counts == {part: count for part, count in zip(("train", "val", "test"), counts) if count}
    assert cls.test_only == (halves is None) and (halves is None or sum(halves) == counts[2])
    assert cls.homepage and (cls.lists_url or cls is FGVCAircraft)  # whose lists come with its images


@pytest.mark.parametrize("cls", own_datasets(), ids=lambda cls: cls.__name__)
def test_every_set_has_its_yaml_and_says_what_it_is(cls):
    """Catches: a data set that no script can name; a spec without template, or whose numbers contradict each other."""
    named = [
        path.stem
        for path in YAMLS.glob("*.yaml")
        if yaml.safe_load(path.read_text()) == {"DATASET": {"NAME": cls.__name__}}
    ]
    assert len(named) == 1
    assert PUBLISHED.get(cls.__name__, named)[0] == named[0]
    assert cls.template.count("{}") == 1 and cls.__doc__
    assert not cls.counts or (
        cls.n_classes > 1 and set(cls.counts) - {"val"} == ({"test"} if cls.test_only else {"train", "test"})
    )


@every_one
def test_reads_the_documented_layout(cls, tree, cfg_for, caplog):
    """Catches: images of another folder, other labels or names, a lost part; and silence about a set that is not the
    whole one.
    """
    root, expected = tree(cls)
    dataset = cls(cfg_for(root))
    assert rows(dataset.test, dataset) == expected["test"]
    assert rows(dataset.train_x, dataset) == expected["test" if cls.test_only else "train"]
    assert rows(dataset.val, dataset) == ([] if cls.test_only else expected.get("val", expected["test"]))
    assert dataset.classnames == [
        name for _, name in sorted({label: name for _, label, name in expected["test"]}.items())
    ]
    assert all(type(item) is Datum for item in dataset.train_x + dataset.test)
    assert not cls.counts or f"{len(expected['test'])} test images instead of {cls.counts['test']}" in caplog.text


@with_training
def test_fewshot_samples_are_coops(cls, tree, cfg_for):
    """Catches: another order of draws or of the images; ImageNet's test images cut down to a few shots."""
    root, expected = tree(cls)
    for shots, seed in ((1, 1), (2, 1), (3, 2)):
        dataset = cls(cfg_for(root, shots=shots, seed=seed))
        random.seed(seed)
        assert rows(dataset.train_x, dataset) == coop_sample(expected["train"], shots)
        assert rows(dataset.val, dataset) == (
            coop_sample(expected["val"], shots) if "val" in expected else expected["test"]
        )
        assert rows(dataset.test, dataset) == expected["test"]


@every_one
def test_halves(cls, tree, cfg_for):
    """Catches: the middle class on the wrong side, labels not renumbered; a test-only set cut in halves."""
    root, expected = tree(cls)
    labels = sorted({label for _, label, _ in expected["test"]})
    middle = math.ceil(len(labels) / 2)
    for half, kept in (("base", labels[:middle]), ("new", labels[middle:])):
        dataset = cls(cfg_for(root, shots=1, subsample=half))
        wanted = [[path, kept.index(label), name] for path, label, name in expected["test"] if label in kept]
        wanted = expected["test"] if cls.test_only else wanted
        assert rows(dataset.test, dataset) == wanted
        assert {item.label for item in dataset.train_x} == {label for _, label, _ in wanted}


@every_one
def test_samples_do_not_depend_on_the_place(cls, tree, cfg_for, tmp_path):
    """Catches: a digest that tells two roots apart; it serves to see that two machines trained on the same images."""
    data_trees.write(cls, tmp_path / "elsewhere")
    here, there = (cls(cfg_for(root, shots=2)) for root in (tree(cls)[0], tmp_path / "elsewhere"))
    assert here.fewshot_digests == there.fewshot_digests


@every_one
def test_what_is_missing_is_named(cls, cfg_for, tmp_path):
    """Catches: somebody else's traceback, or a made-up split, where a file or folder is missing."""
    expected = data_trees.write(cls, tmp_path)
    folder = tmp_path / cls.folder
    pieces = (
        [folder / name for name in data_trees.essential_files(cls)]
        + [folder / cls.images] * (cls.images != ".")
        + [folder]
    )
    if cls.split_file or cls is FGVCAircraft:  # elsewhere nothing says which images there should be, but how many
        pieces.append(folder / cls.images / expected["test"][0][0])
    for piece in pieces:
        piece.rename(tmp_path / "away")
        with pytest.raises(FileNotFoundError, match=rf"(?s){re.escape(str(piece))}.*DATASETS\.md"):
            cls(cfg_for(tmp_path))
        (tmp_path / "away").rename(piece)
    cls(cfg_for(tmp_path))


# ------------------------------------------------------------------ ImageNet and its variants


@pytest.fixture
def own_imagenet(tmp_path):
    """A root with a small ImageNet that the test may damage."""
    data_trees.write(ImageNet, tmp_path)
    return tmp_path


def test_imagenet_validates_on_its_test_images(own_imagenet, cfg_for):
    """Catches: a validation set of few shots, or none, where CoOp has the test images; two classes of one name taken
    for one.
    """
    dataset = ImageNet(cfg_for(own_imagenet, shots=2, subsample="new"))
    assert [item.impath for item in dataset.val] == [item.impath for item in dataset.test]
    assert dataset.num_classes == 6 and ImageNet(cfg_for(own_imagenet)).classnames.count("sunglasses") == 2


def test_imagenet_sample_does_not_follow_the_disk(own_imagenet, cfg_for, monkeypatch):
    """Catches: CoOp's fault, by which seed 1 means other images on another disk."""
    before = ImageNet(cfg_for(own_imagenet, shots=2)).fewshot_digests
    scandir = os.scandir

    class Reversed:
        def __init__(self, path):
            self.entries = scandir(path)

        def __enter__(self):
            return reversed(list(self.entries))

        def __exit__(self, *error):
            self.entries.close()

    monkeypatch.setattr(imagenet.os, "scandir", Reversed)
    assert ImageNet(cfg_for(own_imagenet, shots=2)).fewshot_digests == before


def test_imagenet_asks_only_for_what_it_keeps(own_imagenet, cfg_for, monkeypatch):
    """Catches: a look at each of 1.3 million files, minutes on a network disk, for the 16 shots that are kept."""
    asked, isfile = [], os.path.isfile
    monkeypatch.setattr(os.path, "isfile", lambda path: asked.append(str(path)) or isfile(path))
    ImageNet(cfg_for(own_imagenet, shots=1))
    assert sum("/train/" in path for path in asked) == len(data_trees.WNIDS)


def test_imagenet_takes_nothing_but_images(own_imagenet, cfg_for):
    """Catches: hidden files, notes and folders that fail as images hours later, or shift the labels."""
    before = ImageNet(cfg_for(own_imagenet)).fewshot_digests
    train = own_imagenet / "imagenet" / "images" / "train"
    for name in (".hidden", "notes"):
        (train / data_trees.WNIDS[0] / f"{name}.txt").touch()
    (train / data_trees.WNIDS[0] / "._n01440764_9.JPEG").touch()
    (train / data_trees.WNIDS[0] / "folder.jpg").mkdir()
    (train / ".cache").mkdir()
    (train / "LOC_train.txt").touch()
    assert ImageNet(cfg_for(own_imagenet)).fewshot_digests == before


def test_imagenet_ignores_coops_listing(own_imagenet, cfg_for):
    """Catches: CoOp's preprocessed.pkl loaded, which can run code and holds the paths of another machine."""
    (own_imagenet / "imagenet" / "preprocessed.pkl").write_bytes(b"cos\nmkdir\n(S'/proc/never'\ntR.")
    ImageNet(cfg_for(own_imagenet))


@pytest.mark.parametrize("val", [{}, {"val": None}, {"val": ["of a fork"]}])
def test_imagenet_takes_coops_sample(own_imagenet, cfg_for, caplog, val):
    """Catches: CoOp's cache of ImageNet, which holds no "val", refused or its paths not found below train/."""
    every = ImageNet(cfg_for(own_imagenet)).train_x
    chosen = [item for number, item in enumerate(every) if number % data_trees.SIZES["train"] == 3]
    for item in chosen:
        item._impath = item._impath.replace(str(own_imagenet), "/old/disk")
    cache = own_imagenet / "imagenet" / "split_fewshot" / "shot_1-seed_1.pkl"
    cache.parent.mkdir()
    cache.write_bytes(pickle.dumps({"train": chosen, **val}))
    with caplog.at_level("INFO"):
        dataset = ImageNet(cfg_for(own_imagenet, shots=1))
    assert [item.impath for item in dataset.train_x] == [
        item.impath.replace("/old/disk", str(own_imagenet)) for item in chosen
    ]
    assert len(dataset.val) == len(dataset.test) == 24 and "DIFFERS from what seed 1 draws" in caplog.text


def test_imagenet_val_not_sorted_into_folders(own_imagenet, cfg_for):
    """Catches: the archive's flat folder of 50,000 images, as it is unpacked, called an empty data set."""
    val = own_imagenet / "imagenet" / "images" / "val"
    for path in list(val.rglob("*.JPEG")):
        path.rename(val / path.name)
    for path in val.iterdir():
        if path.is_dir():
            path.rmdir()
    with pytest.raises(
        FileNotFoundError, match=r"images/val has no sub-folders; its images should be sorted.*DATASETS\.md"
    ):
        ImageNet(cfg_for(own_imagenet))


def test_imagenet_folders_that_do_not_fit(own_imagenet, cfg_for):
    """Catches: labels shifted by a class that one half lacks; a folder without a name; a line of classnames.txt without
    one.
    """
    images, wnid = own_imagenet / "imagenet" / "images", data_trees.WNIDS[-1]
    (images / "val" / wnid).rename(own_imagenet / "away")
    with pytest.raises(ValueError, match="train has 12 class folders and val 11"):
        ImageNet(cfg_for(own_imagenet))
    (own_imagenet / "away").rename(images / "val" / "n99999999")
    with pytest.raises(ValueError, match="1 of 12 sub-folders are not in classnames.txt, the first is 'n99999999'"):
        ImageNet(cfg_for(own_imagenet))
    (own_imagenet / "imagenet" / "classnames.txt").write_text("tench\n")
    with pytest.raises(ValueError, match="the line 'tench' should be"):
        ImageNet(cfg_for(own_imagenet))


def test_imagenetv2_folders_are_line_numbers(tree, cfg_for):
    """Catches: folders "0" ... "999" sorted as words, which gives nearly every image a wrong label."""
    dataset = ImageNetV2(cfg_for(tree(ImageNetV2)[0]))
    assert {os.path.basename(os.path.dirname(item.impath)) == str(item.label) for item in dataset.test} == {True}
    assert dataset.classnames == list(data_trees.NAMES)


def test_imagenet_a_chooses_among_its_own_classes(tree, cfg_for, caplog):
    """Catches: ImageNet's labels kept, which would score 200 classes among 1000; a lost class that nobody hears of."""
    dataset = ImageNetA(cfg_for(tree(ImageNetA)[0]))
    assert "has 5 classes instead of 200, 10 test images instead of 7500" in caplog.text
    assert dataset.num_classes == len(dataset.classnames) == 5
    assert dataset.classnames == [data_trees.NAMES[number] for number in (1, 4, 5, 8, 11)]


# ------------------------------------------------------------------ FGVC-Aircraft


def test_aircraft_of_no_known_variant(cfg_for, tmp_path):
    """Catches: a damaged list that fails without its name."""
    data_trees.write(FGVCAircraft, tmp_path)
    path = tmp_path / "fgvc_aircraft" / "images_variant_val.txt"
    path.write_text(path.read_text() + "0034309 Cessna\n")
    with pytest.raises(ValueError, match="images_variant_val.txt .* '0034309 Cessna' names no variant"):
        FGVCAircraft(cfg_for(tmp_path))


# ------------------------------------------------------------------ CoOp's samples, by name


def test_the_list_of_canonical_samples():
    """Catches: a damaged or incomplete list, after which nothing is ever canonical."""
    samples = {f"shot_{shots}-seed_{seed}" for shots in (1, 2, 4, 8, 16) for seed in (1, 2, 3)}
    assert set(canonical.known()) == {name for name, spec in PUBLISHED.items() if spec[7]} - {"ImageNet"}
    for of_a_set in canonical.known().values():
        assert set(of_a_set) == samples
        assert all(
            len(pair) == 2 and all(re.fullmatch("[0-9a-f]{64}", digest) for digest in pair)
            for pair in of_a_set.values()
        )
        assert len({pair[0] for pair in of_a_set.values()}) == 15


def test_canonical_samples_are_named(tree, cfg_for, caplog, monkeypatch):
    """Catches: a log that calls another sample canonical, or the canonical one not."""
    (cls,) = [cls for cls in FAMILY if cls.__name__ == "OxfordPets"]
    root = tree(cls)[0]
    digests = cls(cfg_for(root, shots=2)).fewshot_digests
    samples = {
        "shot_2-seed_1": [digests["train"], digests["val"]],
        "shot_1-seed_1": ["0", "0"],
        "shot_2-seed_2": ["0", "0"],
    }
    monkeypatch.setattr(canonical, "known", lambda: {"OxfordPets": samples})
    for shots, seed, words in (
        (2, 1, "(the canonical CoOp sample of seed 1, 2 shots)"),
        (2, 2, "(not the canonical CoOp sample)"),
        (3, 1, "(no canonical sample of this number of shots and seed is known)"),
        (-1, 1, None),
    ):
        caplog.clear()
        with caplog.at_level("INFO"):
            dataset = cls(cfg_for(root, shots=shots, seed=seed))
        (line,) = [line for line in caplog.messages if "digest" in line]
        assert line.endswith(f"{dataset.fewshot_digest} {words}" if words else dataset.fewshot_digest)
    assert canonical.verdict("OxfordPets", 2, 2, {**digests, "val": "0"}).endswith(
        "of seed 1, 2 shots, with other validation images"
    )
    assert canonical.verdict("Birds", 2, 1, digests) == ""


# ------------------------------------------------------------------ the published split files, where they are at hand

REAL = Path(os.environ.get("CLUSTERPROMPT_TEST_DATA", "/nowhere"))
LISTED = [cls for cls in FAMILY if cls.__name__ in canonical.known()]
AT_HAND = [
    cls for cls in LISTED if all((REAL / cls.folder / name).is_file() for name in data_trees.essential_files(cls))
]


@pytest.mark.skipif(not AT_HAND, reason="CLUSTERPROMPT_TEST_DATA names no root with a published split file")
@pytest.mark.parametrize("cls", AT_HAND, ids=lambda cls: cls.__name__)
def test_published_splits(cls, cfg_for, tmp_path, monkeypatch, caplog):
    """Catches: other counts, halves or few-shot images than everybody's. The images themselves need not be there."""
    (tmp_path / cls.folder / cls.images).mkdir(parents=True, exist_ok=True)
    for name in data_trees.essential_files(cls):
        (tmp_path / cls.folder / name).symlink_to(REAL / cls.folder / name)
    isfile = os.path.isfile
    monkeypatch.setattr(
        os.path, "isfile", lambda path: str(path).lower().endswith((".jpg", ".jpeg", ".png")) or isfile(path)
    )

    full = cls(cfg_for(tmp_path))
    assert "instead of" not in caplog.text  # so the counts are the published ones
    assert full.num_classes == len(set(full.classnames)) == cls.n_classes
    for half, size in zip(("base", "new"), PUBLISHED[cls.__name__][7]):
        dataset = cls(cfg_for(tmp_path, subsample=half))
        assert len(dataset.test) == size
        assert dataset.num_classes == (math.ceil(cls.n_classes / 2) if half == "base" else cls.n_classes // 2)

    lists = full.train_x, full.val, full.test
    monkeypatch.setattr(cls, "read", lambda self: lists)  # the file was read often enough
    for shots in (1, 2, 4, 8, 16):
        for seed in (1, 2, 3):
            digests = cls(cfg_for(tmp_path, shots=shots, seed=seed)).fewshot_digests
            assert [digests["train"], digests["val"]] == canonical.known()[cls.__name__][f"shot_{shots}-seed_{seed}"], (
                shots,
                seed,
            )


@pytest.mark.skipif(
    not (REAL / "imagenet" / "classnames.txt").is_file(),
    reason="CLUSTERPROMPT_TEST_DATA has no imagenet/classnames.txt",
)
def test_published_classnames_of_imagenet():
    """Catches: names of several words cut short; the two pairs of classes that share a name counted as one."""
    reader = ImageNet.__new__(ImageNet)
    reader.dataset_dir = str(REAL / "imagenet")
    names = list(reader.classnames_by_folder().values())
    assert len(names) == 1000 and {name for name, count in Counter(names).items() if count > 1} == {
        "missile",
        "sunglasses",
    }
    assert [names[label] for label in (0, 2, 657, 744, 836, 837)] == ["tench", "great white shark"] + [
        "missile"
    ] * 2 + ["sunglasses"] * 2
