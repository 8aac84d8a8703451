"""Files of weights, ours and hostile ones, read as data."""

import io
import tarfile
import warnings
import zipfile

import pytest
import torch
from hostile_files import evil_pickle, evil_script, plain_pickle

from clusterprompt.clip_patches import weights
from clusterprompt.clip_patches.loading import load_clip, read_weights

pytestmark = pytest.mark.slow


class Model(torch.nn.Module):
    """Parameters, buffers, and tensors that are neither."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(3, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
        self.register_buffer("halved", torch.arange(6.0).half().view(2, 3).t())
        self.plain, self.table = torch.ones(2), {"a": 1}

    def forward(self, x):
        return self.norm(self.first(x)) + self.plain.sum()


def traced(clip, path):
    """Write a CLIP as a TorchScript archive, as OpenAI publishes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace_module(clip, {"encode_image": torch.zeros(1, 3, 64, 64)}, check_trace=False).save(str(path))
    return path


@pytest.mark.parametrize("kind", ["scripted", "traced"])
def test_same_tensors_as_torch(kind, clip, tmp_path):
    """Catches: tensors of another name, order, type or layout than torch.jit.load's; attributes taken for weights."""
    path = tmp_path / "archive.pt"
    torch.jit.script(Model()).save(str(path)) if kind == "scripted" else traced(clip, path)
    wanted = torch.jit.load(str(path)).state_dict()
    found = weights.state_dict_in(weights.load_data(path), path)
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        assert torch.equal(found[name], value) and found[name].dtype == value.dtype, name
        assert found[name].stride() == value.stride(), name


def test_no_jit_load(monkeypatch, clip, tmp_path):
    """Catches: an archive that is loaded as a program, even for its tensors alone."""
    path = traced(clip, tmp_path / "archive.pt")
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("loaded as a program"))
    monkeypatch.setattr(torch._C, "import_ir_module", lambda *_, **__: pytest.fail("loaded as a program"))
    assert torch.equal(load_clip(str(path)).text_projection, clip.text_projection)


HOSTILE = {
    "TorchScript that writes": lambda path, target: evil_script(path, target),
    "TorchScript that loops": lambda path, target: evil_script(path, target, loops=True),
    "pickle in a zip": lambda path, target: evil_pickle(path, target),
    "pickle in torch's old format": lambda path, target: evil_pickle(path, target, zipped=False),
    "pickle among weights": lambda path, target: evil_pickle(
        path, target, around=lambda call: {"text_projection": torch.zeros(2, 2), "x": call}
    ),
    "bare pickle": plain_pickle,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_code_is_never_run(case, tmp_path):
    """Catches: code of a file that runs when its weights are read, or a file that keeps the program busy for ever."""
    target = tmp_path / "canary"
    path = HOSTILE[case](tmp_path / "clip.pt", target)
    with pytest.raises(ValueError, match="clip.pt") as caught:
        load_clip(str(path))
    assert not target.exists() and "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda sd: {"model_state_dict": sd},
        lambda sd: {"state_dict": sd, "epoch": 3},
        lambda sd: {"model": {f"module.{name}": value for name, value in sd.items()}},
        lambda sd: {"state_dict": sd, "optimizer": torch.optim.SGD([torch.zeros(1)], 0.1), "args": pytest.approx(1)},
    ],
    ids=["model_state_dict", "state_dict", "module.", "with other objects"],
)
def test_one_level_down(wrap, clip, tmp_path):
    """Catches: weights that are not found below model_state_dict or behind DataParallel's "module."."""
    path = tmp_path / "own.pt"
    torch.save(wrap(clip.state_dict()), path)
    found = load_clip(str(path)).state_dict()
    assert all(torch.equal(found[name], value) for name, value in clip.state_dict().items())


@pytest.mark.parametrize("zipped", [True, False])
def test_whole_model(zipped, clip, tmp_path):
    """Catches: "truncated, delete it and fetch it again" said of a whole pickled model, with terminal codes."""
    path = tmp_path / "whole.pt"
    torch.save(clip, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"clip\.model\.CLIP.*torch\.save\(model\.state_dict\(\)") as caught:
        load_clip(str(path))
    said = str(caught.value)
    assert "delete" not in said and "fetch" not in said and "\x1b" not in said and "\n" not in said


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda t: t.fill_(float("nan")), "'visual.proj' holds NaN or infinite"),
        (lambda t: t.fill_(float("inf")), "'visual.proj' holds NaN or infinite"),
        (lambda t: t.long(), "'visual.proj' holds int64"),
        (lambda t: t.to(torch.complex64), "'visual.proj' holds complex64"),
        (lambda t: 3, "'visual.proj' is no tensor but a int"),
        (lambda t: t.to_sparse(), "'visual.proj' is no tensor"),
        (lambda t: t[:1], "does not hold the weights of an OpenAI CLIP"),
    ],
)
def test_unusable_weights(spoil, message, clip, tmp_path):
    """Catches: a CLIP with NaN, infinite, integer or complex weights that is used, and a number printed."""
    path = tmp_path / "clip.pt"
    state = {name: value.clone() for name, value in clip.state_dict().items()}
    torch.save({**state, "visual.proj": spoil(state["visual.proj"])}, path)
    with pytest.raises(ValueError, match=message):
        load_clip(str(path))


def rewritten(path, out, change, compression=zipfile.ZIP_STORED):
    """Copy a zip, its entries changed by ``change(name, content)``; None drops one."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", compression) as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return out


def test_bombs(weights_file, tmp_path):
    """Catches: a small file that asks for gigabytes: compressed numbers, a view of one number, a huge layer."""
    packed = rewritten(weights_file, tmp_path / "packed.pt", lambda _, content: content, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="compressed or overlap"):
        read_weights(packed)
    torch.save({"text_projection": torch.zeros(1).expand(1 << 36)}, tmp_path / "view.pt")
    with pytest.raises(ValueError, match="shape does not fit"):
        read_weights(tmp_path / "view.pt")
    state = dict(torch.load(weights_file, weights_only=True))
    state["ln_final.weight"] = torch.ones(200_000)  # sets the width of the text tower: 480 GB a layer
    torch.save(state, tmp_path / "wide.pt")
    with pytest.raises(ValueError, match="does not hold the weights of an OpenAI CLIP"):
        load_clip(str(tmp_path / "wide.pt"))


@pytest.fixture
def weights_file(clip, tmp_path):
    """A state dict."""
    torch.save(clip.state_dict(), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def test_other_files(weights_file, tmp_path):
    """Catches: tar archives, which old torch runs code from; a traceback for other and damaged files."""
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("readme.txt", "x")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "page.pt").write_text("<html>login</html>")
    (tmp_path / "pickle.pt").write_bytes(b"\x80\x02" + b"(" * 100_000)
    lacks = rewritten(weights_file, tmp_path / "lacks.pt", lambda n, c: None if n.endswith("data/0") else c)
    short = rewritten(weights_file, tmp_path / "short.pt", lambda n, c: c[:-4] if n.endswith("data/0") else c)
    cases = [("x.tar", "tar archive"), ("x.zip", "none of weights"), ("empty.pt", "empty"), ("page.pt", "begins with")]
    cases += [("pickle.pt", "damaged"), (lacks.name, "damaged"), (short.name, "bytes in place of")]
    for name, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            read_weights(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="not a regular file"):
        weights.load_data("/dev/zero")


def test_hostile_files_are_hostile(tmp_path):
    """Catches: hostile files of these tests that would do no harm to a program that trusts them."""
    archive = evil_script(tmp_path / "script.pt", tmp_path / "first")
    torch.jit.load(str(archive))
    assert (tmp_path / "first").read_bytes() == b"!!!!!!"
    torch.load(evil_pickle(tmp_path / "pickle.pt", tmp_path / "second"), weights_only=False)
    assert (tmp_path / "second").exists()
