"""Fixtures shared by the tests of the trainers."""
import sys
from pathlib import Path

import pytest
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import golden_clip  # noqa: E402
import support  # noqa: E402


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


@pytest.fixture
def build(data, backbone, tmp_path):
    """Construct a trainer on the small data: ``build("TAC", "KEY", value, ...)``."""
    def make(trainer, *pairs, output=None):
        return support.build(trainer, data, backbone, output or tmp_path / "output", *pairs)

    return make


@pytest.fixture(scope="session")
def finished_run(data, backbone, tmp_path_factory):
    """A function that leaves the folder of a run whose learner moved, and tells its trainer: ``finished_run("TAC", "KEY", value)``; built once."""
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
            trainer.write_result()
            made[(name, *pairs)] = folder, trainer
        return made[(name, *pairs)]

    return make
