"""The embedded CLIP, small enough for the repository and pretrained on drawings (embedded/MODEL_CARD.md)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor

WEIGHTS = Path(__file__).parent / "embedded" / "tiny.safetensors"
SHA256 = "e95d5c05ddf72228330be9f98b7c738ebf2908ce8fa95a18a7f174508b6fb6ee"
# embed_dim, resolution, vision layers, vision width, patch, context, vocabulary, text width, text heads, text layers
GEOMETRY = (128, 64, 4, 128, 8, 77, 49408, 128, 2, 4)


def rebuilt_embedding() -> Tensor:
    """Draw the token embeddings that pretraining never touched, equal on all machines; (49408, 128), exact in fp16."""
    generator = torch.Generator().manual_seed(20250611)
    # Sums of integers are exact everywhere, while randn's last bits depend on the CPU. The sum of four uniform bytes is
    # close enough to a normal distribution.
    shape = GEOMETRY[6], GEOMETRY[7]
    total = torch.zeros(shape, dtype=torch.long)
    for _ in range(4):
        total += torch.randint(0, 256, shape, generator=generator)
    return ((total - 510).float() / 2**13).half().float()  # standard deviation 0.018


def embedded_state_dict(path: Path = WEIGHTS) -> dict[str, Tensor]:
    """Read the embedded weights as a state dict of OpenAI's ``CLIP``, every token embedding in place.

    Raises:
        FileNotFoundError: The file is missing from the installation.
        ValueError: The file is damaged or of another version.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"the embedded CLIP's weights {path} are missing; install the package again, or make them with "
            "python scripts/pretrain_tiny_clip.py"
        )
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise ValueError(
            f"the embedded CLIP's weights {path} are damaged or another version's: sha256 {digest}, expected {SHA256}; "
            "install the package again"
        )
    weights = load(content)
    embedding = rebuilt_embedding()
    embedding[weights.pop("token_rows").long()] = weights.pop("token_embedding").float()
    return {**{name: value.float() for name, value in weights.items()}, "token_embedding.weight": embedding}
