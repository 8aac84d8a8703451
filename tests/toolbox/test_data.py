"""Data sets, few shots, transforms, loaders."""

import os
import pickle
import random

import numpy as np
import pytest
import torch
import torchvision.transforms as T
from dassl.data import DataManager, DatasetWrapper
from dassl.data.data_manager import build_data_loader
from dassl.data.datasets import DatasetBase, Datum, build_dataset
from dassl.data.samplers import build_sampler
from dassl.data.transforms import INTERPOLATION_MODES, build_transform
from dassl.utils import set_random_seed
from PIL import Image
from toolbox_toys import ToyPictures, toolbox_only


@pytest.fixture
def picture(pictures):
    return os.path.join(pictures, "train", "lime_0.png")


def items(picture, labels):
    return [Datum(impath=picture, label=label, classname=f"class {label}") for label in labels]


# Datum, DatasetBase


def test_datum_is_the_pickled_format(picture):
    """Fault: split_fewshot/*.pkl of existing checkouts no longer load, or ours not there."""
    datum = Datum(impath=picture, label=3, classname="lime")
    assert vars(datum) == {"_impath": picture, "_label": 3, "_domain": 0, "_classname": "lime"}
    assert (datum.impath, datum.label, datum.domain, datum.classname) == (picture, 3, 0, "lime")
    # Written by hand: what a pickle of another implementation holds. The file need not exist.
    data = (
        b"cdassl.data.datasets.base_dataset\nDatum\n)\x81}(V_impath\nV/gone.jpg\nV_label\nI2\nV_domain\nI0\nV_classname\n"
        b"Vcar\nub."
    )
    old = pickle.loads(data)
    assert (old.impath, old.label, old.classname) == ("/gone.jpg", 2, "car")
    assert b"dassl.data.datasets.base_dataset" in pickle.dumps(datum)


def test_datum_of_a_missing_file_is_refused():
    """Fault: a wrong DATASET.ROOT shows only after the model has been built, in a worker."""
    with pytest.raises(AssertionError):
        Datum(impath="/no/such/picture.jpg", label=0, classname="x")


@toolbox_only
def test_missing_file_error_names_the_path():
    """Fault: an empty AssertionError."""
    with pytest.raises(FileNotFoundError, match="/no/such/picture.jpg.*DATASET.ROOT"):
        Datum(impath="/no/such/picture.jpg")


def test_classes_in_label_order(picture):
    """Fault: class names in order of appearance give every prompt the wrong label."""
    dataset = DatasetBase(train_x=items(picture, [5, 0, 2, 0]), test=items(picture, [0]))
    assert dataset.classnames == ["class 0", "class 2", "class 5"]
    assert dataset.lab2cname == {0: "class 0", 2: "class 2", 5: "class 5"}
    assert dataset.num_classes == 6 == DatasetBase.get_num_classes(dataset.train_x)
    assert list(dataset.split_dataset_by_label(dataset.train_x)) == [5, 0, 2]
    assert dataset.train_u is None and dataset.val is None


# Positions in the 15 x 20 (training) and 15 x 5 (validation) lists that Dassl.pytorch 0.6.3 draws with seed 1: 4 shots
# of both, in this order; and the next number of Python's generator.
GOLDEN_TRAIN = [
    4,
    18,
    2,
    8,
    23,
    35,
    34,
    38,
    52,
    46,
    43,
    55,
    60,
    72,
    73,
    79,
    94,
    88,
    87,
    83,
    110,
    100,
    118,
    117,
    137,
    120,
    132,
    126,
    153,
    140,
    156,
    147,
    174,
    175,
    177,
    167,
    191,
    187,
    198,
    194,
    209,
    200,
    213,
    203,
    225,
    229,
    223,
    230,
    256,
    253,
    259,
    246,
    269,
    279,
    275,
    276,
    292,
    298,
    281,
    295,
]
GOLDEN_VAL = [
    1,
    3,
    4,
    0,
    7,
    9,
    5,
    6,
    14,
    10,
    13,
    11,
    17,
    18,
    19,
    15,
    23,
    20,
    21,
    22,
    26,
    29,
    27,
    25,
    30,
    31,
    32,
    34,
    38,
    37,
    39,
    36,
    43,
    42,
    44,
    40,
    48,
    46,
    47,
    45,
    53,
    50,
    51,
    52,
    59,
    56,
    57,
    58,
    63,
    62,
    61,
    64,
    65,
    67,
    66,
    69,
    71,
    74,
    72,
    70,
]
GOLDEN_NEXT = 0.8610088608533248


def test_few_shots_are_those_of_dassl(picture):
    """Fault: another order of draws; every published few-shot number is then on other images."""
    train, val = (items(picture, [label for label in range(15) for _ in range(n)]) for n in (20, 5))
    place = {id(item): i for source in (train, val) for i, item in enumerate(source)}
    dataset = DatasetBase(train_x=train)
    set_random_seed(1)
    few = dataset.generate_fewshot_dataset(train, num_shots=4)
    few_val = dataset.generate_fewshot_dataset(val, num_shots=4)
    assert random.random() == GOLDEN_NEXT
    assert [place[id(item)] for item in few] == GOLDEN_TRAIN and [place[id(item)] for item in few_val] == GOLDEN_VAL
    set_random_seed(1)
    both = dataset.generate_fewshot_dataset(train, val, num_shots=4)
    assert both == [few, few_val]


def test_few_shots_of_small_classes(picture):
    """Fault: a class with too few images ends the run, or is doubled without being asked to."""
    source = items(picture, [1, 1, 0])
    dataset = DatasetBase(train_x=source)
    assert dataset.generate_fewshot_dataset(source, num_shots=2)[2:] == source[2:]
    assert [d.label for d in dataset.generate_fewshot_dataset(source, num_shots=3, repeat=True)] == [1, 1, 1, 0, 0, 0]
    assert dataset.generate_fewshot_dataset(source, num_shots=-1) is source
    assert dataset.generate_fewshot_dataset(source, source, num_shots=0) == (source, source)


# Transforms


def image_of(size=(40, 30)):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def test_train_and_test_pipelines_equal_torchvision(cfg):
    """Fault: another order, scale, interpolation or mean than the official runs had."""
    c = cfg(
        "INPUT.TRANSFORMS",
        ("normalize", "random_flip", "random_resized_crop"),
        "INPUT.INTERPOLATION",
        "bicubic",
        "INPUT.RRCROP_SCALE",
        (0.4, 1.0),
    )
    mode, norm = T.InterpolationMode.BICUBIC, T.Normalize(c.INPUT.PIXEL_MEAN, c.INPUT.PIXEL_STD)
    train = T.Compose(
        [
            T.RandomResizedCrop((16, 16), scale=(0.4, 1.0), interpolation=mode),
            T.RandomHorizontalFlip(),
            T.ToTensor(),
            norm,
        ]
    )
    test = T.Compose([T.Resize(16, interpolation=mode), T.CenterCrop((16, 16)), T.ToTensor(), norm])
    image = image_of()
    for is_train, reference in ((True, train), (False, test)):
        tfm = build_transform(c, is_train=is_train)
        assert isinstance(tfm, T.Compose)
        torch.manual_seed(3)
        got = tfm(image)
        torch.manual_seed(3)
        assert torch.equal(got, reference(image))


STEPS = [
    "Resize",
    "Random2DTranslation",
    "RandomCrop",
    "RandomResizedCrop",
    "RandomHorizontalFlip",
    "ColorJitter",
    "RandomGrayscale",
    "RandomApply",
    "ToTensor",
    "Cutout",
    "Normalize",
    "GaussianNoise",
    "InstanceNormalization",
]


@pytest.mark.parametrize(
    "choices, absent",
    [
        (
            (
                "instance_norm",
                "gaussian_noise",
                "normalize",
                "cutout",
                "gaussian_blur",
                "randomgrayscale",
                "colorjitter",
                "random_flip",
                "random_translation",
            ),
            {"RandomCrop", "RandomResizedCrop"},
        ),
        (("random_crop", "center_crop"), set(STEPS) - {"RandomCrop", "ToTensor"}),
    ],
)
def test_order_of_steps_is_fixed_and_each_runs(cfg, choices, absent):
    """Fault: steps in the order of the config, noise before the tensor."""
    tfm = build_transform(cfg("INPUT.TRANSFORMS", choices))
    assert [type(t).__name__ for t in tfm.transforms] == [s for s in STEPS if s not in absent]
    for seed in range(4):
        set_random_seed(seed)
        out = tfm(image_of())
        assert out.shape == (3, 16, 16) and torch.isfinite(out).all()


def test_cutout_noise_and_instance_norm_do_what_they_say(cfg):
    """Fault: a step that returns its input."""
    gray = Image.new("RGB", (16, 16), (128, 128, 128))
    np.random.seed(0)
    cut = build_transform(cfg("INPUT.TRANSFORMS", ("cutout",), "INPUT.CUTOUT_LEN", 4))(gray)
    assert 0 < (cut == 0).sum() <= 3 * 16
    set_random_seed(0)
    noise = build_transform(cfg("INPUT.TRANSFORMS", ("gaussian_noise",)))
    stds = [noise(gray).std().item() for _ in range(20)]
    assert min(stds) == pytest.approx(0, abs=1e-6) and 0.1 < max(stds) < 0.2, "the gate is open about half of the time"
    normed = build_transform(cfg("INPUT.TRANSFORMS", ("instance_norm",)), is_train=False)(image_of())
    assert normed.mean((1, 2)).abs().max() < 1e-5 and normed.std((1, 2)).sub(1).abs().max() < 1e-4


def test_choices_of_transforms(cfg):
    """Fault: a typing error silently trains without augmentation."""
    assert build_transform(cfg("INPUT.NO_TRANSFORM", True)) is None
    assert [type(t).__name__ for t in build_transform(cfg(), choices=["random_flip"]).transforms] == [
        "Resize",
        "RandomHorizontalFlip",
        "ToTensor",
    ]
    with pytest.raises(AssertionError):
        build_transform(cfg("INPUT.TRANSFORMS", ("randomflip",)))
    assert set(INTERPOLATION_MODES) == {"bilinear", "bicubic", "nearest"}


@toolbox_only
@pytest.mark.parametrize("choice, hint", [("randomflip", "random_flip"), ("randaugment2", "randaugment")])
def test_unknown_transform_lists_what_there_is(cfg, choice, hint):
    """Fault: an AssertionError without a word."""
    with pytest.raises(ValueError, match=f"'{choice}'.*not in this toolbox.*{hint}"):
        build_transform(cfg("INPUT.TRANSFORMS", (choice,)))


# Mean of the pixels, and the next draw of both generators, of Dassl.pytorch 0.6.3 for seeds 0 to 39.
RANDAUGMENT = """
116.5 133.2 1.3 114.9 131.2 84.2 116.8 180.1 32.7 86.2 87.1 121.2 121.8 120.5 128.9 39.1 75.4 114.6 133.2 116.4
54.3 126.7 218.1 21.6 123.9 37.9 114.3 119.8 125.4 98.3 118.3 131.6 124.6 86.5 85.3 115.3 27.8 128.9 67.9 64.1
"""


def test_randaugment_draws_and_changes_what_dassl_does(cfg):
    """Catches: INPUT.TRANSFORMS randaugment refused, in its place another RandAugment such as torchvision's, or other
    draws, which move every later one.
    """
    y, x = np.mgrid[:48, :64]
    picture = np.stack([(3 * x + y) % 200 + 20, (x * y) % 256, (5 * y + 2 * x) % 256], -1).astype(np.uint8)
    transform = build_transform(cfg("INPUT.TRANSFORMS", ("randaugment",), "INPUT.SIZE", (48, 64)))
    kinds = [type(step).__name__ for step in transform.transforms]
    assert kinds.index("Resize") < kinds.index("RandAugment") < kinds.index("ToTensor")
    found = []
    for seed in range(40):
        random.seed(seed), np.random.seed(seed)
        mean = transform(Image.fromarray(picture)).double().mean().item() * 255
        found.append(mean + random.random() + np.random.rand())
    assert found == pytest.approx([float(number) for number in RANDAUGMENT.split()], abs=0.1)


# DatasetWrapper


def test_wrapper_keys_and_views(cfg, picture):
    """Fault: missing keys, or views concatenated in another order than trainers expect."""
    data = items(picture, [2])
    c = cfg("DATALOADER.K_TRANSFORMS", 2, "DATALOADER.RETURN_IMG0", True)
    tfm = build_transform(c)
    item = DatasetWrapper(c, data, transform=tfm, is_train=True)[0]
    assert list(item) == ["label", "domain", "impath", "index", "img", "img0"]
    assert (item["label"], item["domain"], item["impath"], item["index"]) == (2, 0, picture, 0)
    assert isinstance(item["img"], list) and len(item["img"]) == 2 and not torch.equal(*item["img"])

    item = DatasetWrapper(c, data, transform=[tfm, tfm, tfm], is_train=False)[0]
    assert list(item)[4:] == ["img", "img2", "img3", "img0"] and item["img3"].shape == (3, 16, 16)
    item = DatasetWrapper(cfg(), data)[0]
    assert isinstance(item["img"], Image.Image) and item["img"].mode == "RGB" and "img0" not in item
    with pytest.raises(ValueError):
        DatasetWrapper(c, data, transform=None, is_train=True)


@pytest.mark.parametrize("choices, normalised", [(("random_flip", "normalize"), True), (("random_flip",), False)])
def test_img0_is_the_whole_picture(cfg, picture, choices, normalised):
    """Fault: img0 cropped or augmented; teachers would see other pixels than in the official runs."""
    c = cfg("DATALOADER.RETURN_IMG0", True, "INPUT.TRANSFORMS", choices)
    with Image.open(picture) as image:
        want = T.ToTensor()(T.Resize((16, 16), T.InterpolationMode.BILINEAR)(image.convert("RGB")))
    if normalised:
        want = T.Normalize(c.INPUT.PIXEL_MEAN, c.INPUT.PIXEL_STD)(want)
    assert torch.equal(DatasetWrapper(c, items(picture, [0]), build_transform(c), is_train=True)[0]["img0"], want)


# Loaders


def test_loaders_of_a_manager(cfg):
    """Fault: augmented or shuffled test data; a dropped test image."""
    dm = DataManager(cfg("DATALOADER.K_TRANSFORMS", 3))
    assert isinstance(dm.dataset, ToyPictures) and dm.num_classes == 3 and dm.num_source_domains == 0
    assert dm.lab2cname == {0: "crimson", 1: "lime", 2: "navy"} and dm.train_loader_u is None
    assert len(dm.train_loader_x) == 3 and len(dm.val_loader) == 2 and len(dm.test_loader) == 2
    batch = next(iter(dm.train_loader_x))
    assert isinstance(batch["img"], list) and [x.shape for x in batch["img"]] == [(8, 3, 16, 16)] * 3
    labels = torch.cat([b["label"] for b in dm.test_loader])
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    first, again = (torch.cat([b["img"] for b in dm.test_loader]) for _ in range(2))
    assert torch.equal(first, again)


def test_last_batch(cfg, picture):
    """Fault: batches of one break batch statistics; or a set smaller than a batch gives no batch."""
    c = cfg()
    data = items(picture, [0] * 10)
    tfm = build_transform(c)
    assert len(build_data_loader(c, data_source=data, batch_size=4, tfm=tfm, is_train=True)) == 2
    assert len(build_data_loader(c, data_source=data, batch_size=4, tfm=tfm, is_train=False)) == 3
    assert len(build_data_loader(c, data_source=data, batch_size=16, tfm=tfm, is_train=True)) == 1


def test_custom_wrapper_and_transforms(cfg):
    """Fault: DataManager's arguments have no effect."""

    class Wrapper(DatasetWrapper):
        pass

    tfm = T.Compose([T.Resize((8, 8)), T.ToTensor()])
    dm = DataManager(cfg(), custom_tfm_train=[tfm, tfm], custom_tfm_test=tfm, dataset_wrapper=Wrapper)
    assert next(iter(dm.train_loader_x))["img2"].shape == (8, 3, 8, 8)
    assert next(iter(dm.val_loader))["img"].shape == (8, 3, 8, 8) and isinstance(dm.test_loader.dataset, Wrapper)


def test_samplers(picture):
    """Fault: a sampler with a generator of its own, or an unknown one accepted."""
    data = items(picture, [0] * 6)
    torch.manual_seed(5)
    got = list(build_sampler("RandomSampler", cfg=None, data_source=data, batch_size=2, n_domain=0, n_ins=2))
    torch.manual_seed(5)
    assert got == list(torch.utils.data.RandomSampler(data))
    assert list(build_sampler("SequentialSampler", data_source=data)) == list(range(6))
    with pytest.raises(ValueError):
        build_sampler("NoSuchSampler", data_source=data)


def test_unknown_dataset(cfg):
    """Fault: an error that does not list the data sets there are."""
    with pytest.raises(ValueError, match="ToyPictures"):
        build_dataset(cfg("DATASET.NAME", "ToyPicture"))


@toolbox_only
def test_empty_splits_have_plain_messages(cfg, picture):
    """Fault: 'num_samples should be a positive integer'."""
    with pytest.raises(ValueError, match="training set is empty"):
        DatasetBase(train_x=[])
    with pytest.raises(ValueError, match="test or validation set of 'ToyPictures' is empty"):
        build_data_loader(cfg(), data_source=[], is_train=False)


@toolbox_only
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "narrow"])
def test_damaged_picture_is_named(cfg, tmp_path, workers, damage):
    """Fault: 'image file is truncated' without a path, after an hour of training; the message lost on the way back;
    5 GB for an image of 1 x 20000 pixels.
    """
    path = str(tmp_path / "bad.png")
    image_of((1, 20_000) if damage == "narrow" else (200, 200)).save(path)
    data = items(path, [0])
    content = open(path, "rb").read()
    if damage == "missing":
        os.remove(path)
    elif damage != "narrow":
        with open(path, "wb") as f:
            f.write(content[: len(content) // 2] if damage == "truncated" else b"<html>not found</html>")
    c = cfg("DATALOADER.NUM_WORKERS", workers)
    loader = build_data_loader(c, data_source=data, batch_size=1, tfm=build_transform(c), is_train=False)
    with pytest.raises(FileNotFoundError if damage == "missing" else OSError, match="bad.png") as caught:
        iterator = iter(loader)
        next(iterator)
    if workers:
        iterator._shutdown_workers()  # left to the garbage collector, torch waits 5 s for each after an error
    assert type(pickle.loads(pickle.dumps(caught.value))) is type(caught.value)
