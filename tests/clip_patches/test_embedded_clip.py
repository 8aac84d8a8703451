"""The embedded CLIP: whole, undamaged, and able to see."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clusterprompt.clip_patches import embedded_clip
from clusterprompt.clip_patches.embedded_clip import GEOMETRY, WEIGHTS, embedded_state_dict
from clusterprompt.clip_patches.loading import load_clip, tokenize
from clusterprompt.datasets import shapes

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])


@pytest.fixture(scope="module")
def tiny():
    """The model, loaded as users load it."""
    return load_clip("tiny")


def test_is_openai_clip_of_the_stated_geometry(tiny):
    """OpenAI's class, tokenizer, context and vocabulary: what works on it works on ViT-B/16."""
    assert type(tiny).__module__ == "clip.model" and tiny.context_length == 77 and tiny.vocab_size == 49408
    assert tiny.visual.input_resolution == GEOMETRY[1] == 64 and len(tiny.transformer.resblocks) == GEOMETRY[9]


@pytest.mark.slow
def test_small_and_exact_in_half_precision():
    """At most 4 MB in the repository, and the fp16 modes lose nothing of the weights."""
    assert WEIGHTS.stat().st_size <= 4 * 2**20
    assert all(torch.equal(value, value.half().float()) for value in embedded_state_dict().values())


@pytest.mark.slow
def test_unused_rows_are_rebuilt_alike():
    """A name made of words that pretraining never saw must get the same embedding on every machine."""
    first, second = (embedded_state_dict()["token_embedding.weight"] for _ in range(2))
    assert first.shape == (49408, 128) and torch.equal(first, second)
    unseen = first[tokenize(["accordion"])[0, 1]]
    assert unseen[:4].tolist() == [-0.0269775390625, 0.005126953125, -0.0013427734375, -0.0111083984375]


@pytest.mark.slow
def test_zero_shot_accuracy_leaves_room(tiny):
    """Catches: a wrong template, normalisation or damaged weights: 40 to 70 % on base and new (chance is 5 %)."""
    for classes in (shapes.BASE, shapes.NEW):
        images = torch.stack(
            [
                torch.from_numpy(np.asarray(shapes.Shapes.picture(name, "test", i)).copy())
                for name in classes
                for i in range(6)
            ]
        )
        images = images.float().div(255).sub(MEAN).div(STD).permute(0, 3, 1, 2)
        with torch.no_grad():
            image = F.normalize(tiny.encode_image(images), dim=-1)
            text = F.normalize(
                tiny.encode_text(tokenize([shapes.Shapes.template.format(name) for name in classes])), dim=-1
            )
        accuracy = 100 * float((image @ text.T).argmax(1).eq(torch.arange(20).repeat_interleave(6)).float().mean())
        assert 35 < accuracy < 75


def test_damaged_or_missing_weights(tmp_path, monkeypatch):
    """Both are named, with what to do."""
    damaged = tmp_path / "tiny.safetensors"
    damaged.write_bytes(WEIGHTS.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="sha256"):
        embedded_clip.embedded_state_dict(damaged)
    with pytest.raises(FileNotFoundError, match="pretrain_tiny_clip.py"):
        embedded_clip.embedded_state_dict(tmp_path / "none")
