"""The pictures: drawn from a run's folder, from numbers that are checked; what cannot be drawn is said."""

import importlib
import os
import re
import shutil
import sys

import pytest
import torch
from PIL import Image
from support import png

from clusterprompt.commands import pictures as command

pytestmark = pytest.mark.slow


def load():
    """Import the module that draws; it needs matplotlib."""
    pytest.importorskip("matplotlib")
    return importlib.import_module("clusterprompt.use.pictures")


@pytest.fixture
def run(build, tmp_path):
    """A function that leaves a run's folder, trained or not."""

    def make(name, *pairs, trained=True):
        folder = tmp_path / name
        trainer = build(name, *pairs, output=folder)
        if trained:
            trainer.save_model(0, str(folder))
        trainer.recorder.write()
        return folder

    return make


@pytest.mark.parametrize(
    "name, pictures",
    [("AttriPrompt", ["clusters", "pool_usage", "sharing"]), ("TAC", ["attention", "class_map", "mask"])],
)
def test_page(name, pictures, run, tmp_path, capsys, monkeypatch):
    """Every picture is a PNG of some size, and the page shows each with its caption; the data set is not asked for."""
    pytest.importorskip("matplotlib")
    Image.new("RGB", (50, 80), (200, 30, 90)).save(tmp_path / "own.png")
    folder = run(name)
    monkeypatch.setattr("dassl.data.datasets.build_dataset", lambda cfg: pytest.fail("the data set was opened"))
    assert command.main(["--run", str(folder), "--trust-record", "--images", str(tmp_path / "own.png")]) == 0
    page = folder / "pictures" / "index.html"
    assert f"Page: {page}" in capsys.readouterr().out
    assert sorted(p.name for p in page.parent.iterdir()) == sorted([*(f"{p}.png" for p in pictures), "index.html"])
    assert all(min(Image.open(p).size) > 200 for p in page.parent.glob("*.png"))
    text = page.read_text()
    assert text.count("<figcaption>") == len(pictures) and all(f'src="{p}.png"' in text for p in pictures)


def test_images_of_the_data_set(run, tmp_path):
    """Without --images, test images of different classes are shown, and all of them counted."""
    pytest.importorskip("matplotlib")
    folder = run("AttriPrompt")
    assert command.main(["--run", str(folder), "--trust-record", "--out", str(tmp_path / "page")]) == 0
    assert "test images" in (tmp_path / "page" / "index.html").read_text()


def test_clusters_are_the_trainers(build):
    """What is drawn is what the trainer retrieves."""
    pictures, trainer = load(), build("AttriPrompt", "TRAINER.ATTRIPROMPT.TOP_K", 2)
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels, chosen = pictures.retrieve(trainer, images)
        expected = trainer.learner(trainer.encode_images(images)[1]).chosen
    assert torch.equal(chosen.flatten(2), expected) and labels.shape == (3, 2, 16)
    sizes = torch.stack([(labels == c).sum(-1) for c in range(4)], -1)
    assert bool((sizes.sort(dim=-1, descending=True).values == sizes).all())


@pytest.mark.parametrize("masked", [True, False])
def test_attention_against_stock_blocks(masked, build):
    """The weights that CLIP's own attention gives, layer by layer, with prompts put in by hand."""
    pictures, trainer = load(), build("TAC", "TRAINER.TAC.MASK", masked)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        weights = pictures.precontext_attention(trainer, images)
        visual, prompts = trainer.clip.visual, trainer.learner()[1]
        x = visual.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.expand(2, 1, -1), x], dim=1) + visual.positional_embedding
        x = visual.ln_pre(torch.cat([x, prompts[0].expand(2, -1, -1)], dim=1))
        mask = torch.zeros(27, 27)
        if masked:
            mask[1:17, 17:22] = float("-inf")
        for layer, block in enumerate(visual.transformer.resblocks):
            if layer == 1:
                x = torch.cat([x[:, :17], prompts[1].expand(2, -1, -1)], dim=1)
            h = block.ln_1(x).transpose(0, 1)
            out, paid = block.attn(h, h, h, attn_mask=mask)
            torch.testing.assert_close(weights[layer, 0], paid[:, 0, 17:22].mean(0), rtol=0, atol=1e-5)
            torch.testing.assert_close(weights[layer, 1], paid[:, 22:, 17:22].mean((0, 1)), rtol=0, atol=1e-5)
            x = x + out.transpose(0, 1)
            x = x + block.mlp(block.ln_2(x))


def test_what_cannot_be_drawn(run, tmp_path, capsys, monkeypatch):
    """No run, damaged or no weights, no pictures of this method, no such file, no matplotlib: one line, code 2."""
    pytest.importorskip("matplotlib")
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "large.png").write_bytes(png(60000, 60000, 8, 2, b"0" * 99))
    os.symlink("/dev/zero", tmp_path / "zero.png")
    folder = run("AttriPrompt")
    damaged = run("TAC")
    (model,) = damaged.glob("*/model*")
    model.write_bytes(model.read_bytes()[:2000])
    for argv, message in (
        (["--run", str(tmp_path)], "holds no run"),
        (["--run", str(damaged)], "model"),
        (["--run", str(run("CoOp"))], "a run of CoOp; there are pictures of TAC"),
        (["--run", str(folder), "--images", str(tmp_path / "nowhere.jpg")], "no picture .*nowhere.jpg"),
        (["--run", str(folder), "--images", str(tmp_path / "text.jpg")], "not a picture"),
        (["--run", str(folder), "--images", str(tmp_path / "large.png")], r"large.png: too large \(Image size \(36000"),
        (["--run", str(folder), "--images", str(tmp_path / "zero.png")], "zero.png: not a regular file"),
    ):
        check_error(capsys, [*argv, "--trust-record"], message)
    shutil.rmtree(model.parent)
    check_error(capsys, ["--run", str(damaged), "--trust-record"], "holds no trained weights|no checkpoint")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    check_error(capsys, ["--run", str(folder)], "pip install matplotlib")


def check_error(capsys, argv, message):
    """One line on stderr, code 2."""
    capsys.readouterr()
    assert command.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert re.search(message, error), error
