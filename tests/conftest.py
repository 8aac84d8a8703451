"""What the tests share: a small data set in Caltech101's layout, a small random CLIP, configs."""

import json
import random
from pathlib import Path

import golden_clip
import pytest
import support
import torch
from PIL import Image

from clusterprompt import dassl_compat

dassl_compat.prepare()  # before a test imports dassl; does nothing for the stand-in
torch.set_num_threads(1)  # the models are tiny; threads would only wait for each other

CHECKOUT = Path(__file__).resolve().parent.parent
CLASSES = (
    ("Faces", "face"),
    ("airplanes", "airplane"),
    ("anchor", "anchor"),
    ("stop_sign", "stop_sign"),
    ("yin_yang", "yin_yang"),
)
SIZES = {"train": 6, "val": 5, "test": 3}


def pytest_report_header():
    import dassl

    kind = getattr(dassl, "IMPLEMENTATION", "Dassl.pytorch")
    return f"dassl: {kind} {dassl.__version__} at {Path(dassl.__file__).parent}"


def write_caltech(root: Path) -> Path:
    """Write 5 classes of noise, 6 / 5 / 3 images each, in Caltech101's layout; return ``root``."""
    folder = root / "caltech-101"
    draw = random.Random(0)
    split = {name: [] for name in SIZES}
    for label, (directory, classname) in enumerate(CLASSES):
        (folder / "101_ObjectCategories" / directory).mkdir(parents=True)
        numbers = list(range(1, sum(SIZES.values()) + 1))
        draw.shuffle(numbers)
        colour = tuple(draw.randrange(40, 215) for _ in range(3))
        for name, size in SIZES.items():
            for _ in range(size):
                path = f"{directory}/image_{numbers.pop():04d}.jpg"
                noise = Image.effect_noise((24, 20), 60).convert("RGB")
                Image.blend(noise, Image.new("RGB", noise.size, colour), 0.6).save(
                    folder / "101_ObjectCategories" / path
                )
                split[name].append([path, label, classname])
    (folder / "split_zhou_Caltech101.json").write_text(json.dumps(split))
    return root


@pytest.fixture(scope="session")
def caltech_root(tmp_path_factory):
    """A data root with a small Caltech101; not to be changed."""
    return write_caltech(tmp_path_factory.mktemp("data"))


@pytest.fixture
def own_caltech_root(tmp_path):
    """A data root with a small Caltech101 that the test may damage."""
    return write_caltech(tmp_path / "own data")


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory):
    """A CLIP with random weights: 32 px, 2 layers, width 64; enough to run everything."""
    path = tmp_path_factory.mktemp("clip") / "random.pt"
    torch.save(support.random_clip(), path)
    return str(path)


@pytest.fixture
def small_runs(monkeypatch, caltech_root, clip_file, tmp_path):
    """An environment in which a run takes a second; returns the folder of all results."""
    values = {"DATA": caltech_root, "BACKBONE": clip_file, "EPOCHS": 1, "SHOTS": 2, "OUTPUT": tmp_path / "out"}
    for key, value in values.items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.delenv("CFG", raising=False)
    return tmp_path / "out"


@pytest.fixture
def cfg_for(caltech_root):
    """A function that makes the config of a data set: ``cfg_for(root=..., shots=..., seed=..., subsample=...)``."""
    from dassl.config import get_cfg_default

    def make(root=caltech_root, shots=-1, seed=1, subsample="all"):
        cfg = get_cfg_default()
        cfg.DATASET.ROOT, cfg.DATASET.NUM_SHOTS, cfg.DATASET.SUBSAMPLE_CLASSES, cfg.SEED = (
            str(root),
            shots,
            subsample,
            seed,
        )
        return cfg

    return make


# ------------------------------------------------------------------ trainers


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Root of the small data set."""
    return support.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    """Path of the small random CLIP."""
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    torch.save(golden_clip.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def resnet(tmp_path_factory):
    """Path of a small CLIP with a ResNet visual tower."""
    from clip.model import CLIP

    torch.manual_seed(0)
    clip = CLIP(128, 64, (1, 1, 1, 1), 16, None, 77, 49408, 128, 2, 3)
    path = tmp_path_factory.mktemp("clip") / "resnet.pt"
    torch.save(clip.state_dict(), path)
    return path


@pytest.fixture
def build(data, backbone, tmp_path):
    """Construct a trainer on the small data: ``build("TAC", "KEY", value, ...)``."""

    def make(trainer, *pairs, output=None):
        return support.build(trainer, data, backbone, output or tmp_path / "output", *pairs)

    return make


@pytest.fixture(scope="session")
def finished_run(data, backbone, tmp_path_factory):
    """A function that leaves the folder of a run whose learner moved, and tells its trainer: ``finished_run("TAC",
    "KEY", value)``; built once.
    """
    made = {}

    def make(name, *pairs):
        if (name, *pairs) not in made:
            folder = tmp_path_factory.mktemp(name) / "seed1"
            trainer = support.build(name, data, backbone, folder, *pairs)
            draws = torch.Generator().manual_seed(1)
            for weight in trainer.learner.parameters() if trainer.learner is not None else ():
                weight.data += 0.05 * torch.randn(weight.shape, generator=draws)
            trainer.set_model_mode("eval")
            trainer.save_model(0, str(folder))
            trainer.recorder.write()
            made[(name, *pairs)] = folder, trainer
        return made[(name, *pairs)]

    return make
