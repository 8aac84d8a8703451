"""Loading CLIP: names, files, downloads, precisions, and what goes wrong."""

import hashlib
import shutil
import sys
import types
import warnings

import pytest
import torch

from clusterprompt.clip_patches import loading
from clusterprompt.clip_patches.loading import load_clip, set_precision


def test_state_dict_from_disk(weights):
    """Frozen, in eval mode, fp32, and torch's random state untouched."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    clip = load_clip(str(weights))
    assert torch.equal(torch.rand(3), expected), "loading drew random numbers"
    assert not clip.training and clip.dtype == torch.float32
    assert not any(p.requires_grad for p in clip.parameters())


def test_jit_archive(clip, tmp_path):
    """OpenAI publishes JIT archives; one made here must give the same model, without a warning."""
    path = tmp_path / "archive.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace_module(clip, {"encode_image": torch.zeros(1, 3, 64, 64)}, check_trace=False).save(str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_clip(str(path))
    assert all(torch.equal(a, b) for a, b in zip(clip.state_dict().values(), loaded.state_dict().values()))


def serve(monkeypatch, weights, tmp_path, checksum=None):
    """Let the name ViT-B/16 point at a local file."""
    import clip.clip

    folder = tmp_path / (checksum or hashlib.sha256(weights.read_bytes()).hexdigest())
    folder.mkdir()
    shutil.copy(weights, folder / "ViT-B-16.pt")
    monkeypatch.setitem(clip.clip._MODELS, "ViT-B/16", (folder / "ViT-B-16.pt").as_uri())


def test_download_by_name(monkeypatch, weights, clip, tmp_path):
    """A known name is fetched by CLIP's own code, and kept."""
    serve(monkeypatch, weights, tmp_path)
    root = tmp_path / "cache"
    loaded = load_clip("ViT-B/16", download_root=str(root))
    assert torch.equal(loaded.text_projection, clip.text_projection) and (root / "ViT-B-16.pt").is_file()


def test_download_with_wrong_checksum(monkeypatch, weights, tmp_path):
    """A damaged download must not be used, and the way out is named."""
    serve(monkeypatch, weights, tmp_path, checksum="0" * 64)
    with pytest.raises(ConnectionError, match="could not be fetched.*tiny"):
        load_clip("ViT-B/16", download_root=str(tmp_path / "cache"))


def test_no_network(monkeypatch, tmp_path):
    """Without a connection the message says where the file belongs."""
    import clip.clip

    monkeypatch.setitem(clip.clip._MODELS, "ViT-B/16", "http://127.0.0.1:9/abc/ViT-B-16.pt")
    with pytest.raises(ConnectionError, match="Put the file into"):
        load_clip("ViT-B/16", download_root=str(tmp_path))


@pytest.mark.parametrize(
    "precision, dtype",
    [("fp32", torch.float32), ("amp", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)],
)
def test_precision(weights, precision, dtype):
    """Matrices change their type; layer norms and embeddings stay fp32, as in OpenAI's conversion."""
    clip = load_clip(str(weights), precision)
    assert clip.dtype == clip.text_projection.dtype == clip.transformer.resblocks[0].attn.in_proj_weight.dtype == dtype
    assert clip.ln_final.weight.dtype == clip.token_embedding.weight.dtype == torch.float32


@pytest.mark.parametrize(
    "name, error, message",
    [
        ("ViT-B/17", ValueError, "ViT-B/16"),
        ("/nowhere/clip.pt", FileNotFoundError, "neither a file nor a known name"),
    ],
)
def test_unknown_name(name, error, message):
    """The names that are known are listed, the embedded model among the ways out."""
    with pytest.raises(error, match=message) as caught:
        load_clip(name)
    assert "tiny" in str(caught.value)


def test_unknown_precision(clip):
    """Allowed ones are listed."""
    with pytest.raises(ValueError, match="fp32, amp, fp16, bf16"):
        set_precision(clip, "fp8")


def test_broken_files(weights, tmp_path):
    """A truncated file, one with other content, and one of another network are told apart from a CLIP."""
    truncated = tmp_path / "truncated.pt"
    truncated.write_bytes(weights.read_bytes()[:50_000])
    other = tmp_path / "other.pt"
    torch.save({"fc.weight": torch.zeros(2, 2)}, other)
    for path, message in ((truncated, "cut short or damaged"), (other, "no CLIP state dict")):
        with pytest.raises(ValueError, match=message):
            load_clip(str(path))


def test_edited_copy_alone(monkeypatch, tmp_path):
    """Catches: a TypeError where MaPLe's edited CLIP lies beside train.py and OpenAI's is not installed."""
    edited, model = types.ModuleType("clip"), types.ModuleType("clip.model")
    edited.__file__, edited.tokenize, edited.available_models = str(tmp_path / "clip" / "__init__.py"), None, None
    model.build_model = lambda state_dict, design_details: None
    monkeypatch.setitem(sys.modules, "clip", edited)
    monkeypatch.setitem(sys.modules, "clip.model", model)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ImportError, match="edited copy.*openai-clip"):
        loading.import_clip()


def test_clipboard_package(monkeypatch):
    """PyPI's 'clip' is a clipboard tool: say so instead of failing on a missing attribute."""
    monkeypatch.setitem(sys.modules, "clip", types.ModuleType("clip"))
    with pytest.raises(ImportError, match="not OpenAI's CLIP"):
        loading.import_clip()


def test_sentence_too_long():
    """CLIP's own error lacks the way out."""
    with pytest.raises(ValueError, match="shorten"):
        loading.tokenize(["word " * 100])
