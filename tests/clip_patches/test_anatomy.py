"""The questions that a method may ask of a CLIP; nothing outside clip_patches/ looks inside one."""

import ast
from pathlib import Path

import pytest
import torch

from clusterprompt.clip_patches import anatomy
from clusterprompt.clip_patches.loading import load_clip, tokenize, untrained_clip

CHECKOUT = Path(__file__).resolve().parents[2]
ORGANS = {
    "visual",
    "transformer",
    "resblocks",
    "token_embedding",
    "positional_embedding",
    "class_embedding",
    "text_projection",
    "logit_scale",
    "ln_final",
    "ln_pre",
    "ln_post",
    "ln_1",
    "ln_2",
    "conv1",
    "attn",
    "mlp",
    "num_heads",
    "in_proj_weight",
    "in_proj_bias",
    "out_proj",
}


def organs_read(source):
    """Return the parts of a CLIP that code reads, also by ``getattr``; a module's own parts are none."""
    attributes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
    own = {n.attr for n in attributes if isinstance(n.ctx, ast.Store) and ast.unparse(n.value) == "self"}
    found = {n.attr for n in attributes if not (n.attr in own and ast.unparse(n.value) == "self")}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            found |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
    return found & ORGANS


def test_a_reader_is_found():
    """Catches: a check that would pass whatever the code does."""
    assert organs_read("size = self.clip.visual.input_resolution") == {"visual"}
    assert organs_read("getattr(clip, 'logit_scale').exp()") == {"logit_scale"}
    assert organs_read("self.attn = make()\nself.attn(x) + block.attn(x)") == {"attn"}
    assert organs_read("self.attn = make()\nself.attn(x)") == set()
    assert organs_read("anatomy(clip).text_width + logit_scale(clip)") == set()


@pytest.mark.parametrize("folder", ["trainers", "datasets", "clusterprompt", "scripts"])
def test_nothing_outside_reads_the_organs(folder):
    """Catches: a method that reaches into CLIP's modules, where another family of CLIPs has others."""
    files = sorted((CHECKOUT / folder).rglob("*.py"))
    assert files
    found = {str(path): organs for path in files if (organs := organs_read(path.read_text(encoding="utf-8")))}
    assert not found


def test_a_vit(clip):
    """Catches: the widths of the towers swapped, CLS counted as a patch."""
    assert anatomy.anatomy(clip) == anatomy.Anatomy(
        text_layers=3,
        text_width=128,
        vision_layers=3,
        vision_width=192,
        patches=16,
        joint_width=128,
        input_resolution=64,
        context_length=77,
    )


def test_towers_of_different_depth(uneven_clip):
    """Catches: one tower's layers given for the other's."""
    sizes = anatomy.anatomy(uneven_clip)
    assert (sizes.text_layers, sizes.vision_layers) == (2, 3)


def test_a_resnet(resnet_clip):
    """Catches: an AttributeError for a visual tower without a transformer."""
    sizes = anatomy.anatomy(resnet_clip)
    assert not anatomy.is_vit(resnet_clip)
    assert (sizes.vision_layers, sizes.vision_width, sizes.patches) == (0, 0, 0)
    assert (sizes.input_resolution, sizes.text_width) == (64, 64)


def test_tokens(clip):
    """Catches: another tokenizer, or embeddings of another table."""
    tokens = anatomy.tokenize(clip, ["a cat", "a big red bus"])
    assert torch.equal(tokens, tokenize(["a cat", "a big red bus"]))
    assert torch.equal(anatomy.token_embeddings(clip, tokens), clip.token_embedding.weight[tokens])


def test_logit_scale(weights):
    """Catches: a scale that clamping leaves alone, or bounds that are taken for logarithms."""
    clip = load_clip(str(weights))
    assert float(anatomy.logit_scale(clip)) == pytest.approx(100, rel=1e-5)
    anatomy.clamp_logit_scale(clip, least=0, most=50)
    assert float(anatomy.logit_scale(clip)) == pytest.approx(50, rel=1e-5)
    anatomy.clamp_logit_scale(clip, least=80, most=90)
    assert float(anatomy.logit_scale(clip)) == pytest.approx(80, rel=1e-5)


def test_untrained_clip():
    """Catches: a CLIP for pretraining that cannot be trained, or whose token embeddings are not the given ones."""
    rows = torch.randn(10, 32)
    clip = untrained_clip((16, 32, 1, 64, 16, 77, 49408, 32, 2, 1), rows)
    assert all(p.requires_grad for p in clip.parameters()) and torch.equal(clip.token_embedding.weight, rows)
