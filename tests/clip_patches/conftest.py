"""Small random CLIPs."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

import golden_clip  # noqa: E402

from clusterprompt.clip_patches.loading import load_clip  # noqa: E402


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Path of a state dict on disk."""
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    torch.save(golden_clip.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def clip(weights):
    """Towers of three layers each, of different width."""
    return load_clip(str(weights))


@pytest.fixture(scope="session")
def uneven_clip(tmp_path_factory):
    """Three vision layers, two text layers."""
    path = tmp_path_factory.mktemp("clip") / "uneven.pt"
    torch.save(golden_clip.state_dict(layers_text=2), path)
    return load_clip(str(path))


@pytest.fixture(scope="session")
def resnet_clip():
    """A CLIP with a ResNet visual tower."""
    from clip.model import CLIP

    torch.manual_seed(0)
    return CLIP(32, 64, (1, 1, 1, 1), 16, None, 77, 49408, 64, 1, 2).eval().requires_grad_(False)
