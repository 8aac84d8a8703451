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
