"""What leaves this program: class texts that plain CLIP can use, and image towers as ONNX, or a reason why not."""

import ast
import json
import os
import re
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

import clusterprompt
from clusterprompt.clip_patches.loading import load_clip, tokenize
from clusterprompt.commands import export as command
from clusterprompt.registration import own_trainers
from clusterprompt.use import export

pytestmark = pytest.mark.slow
load_run = partial(clusterprompt.load_run, trust_record=True)  # the runs here are of a CLIP of our own

METHODS = [cls.__name__ for cls in own_trainers()]
CONDITIONED = {"CoCoOp", "AttriPrompt"}
PROMPTED = {"VPT", "IVLP", "MaPLe", "PromptSRC", "TAC", "CLIPAdapter", "CLIPLoRA"}
PLAIN = {"CoOp", "KgCoOp", "ProGrad", "TCP", "TaskRes", "ZeroshotCLIP"}
DOC = (Path(__file__).parent.parent.parent / "docs" / "use.md").read_text(encoding="utf-8")


def block(marker):
    """The code block of docs/use.md that holds ``marker``."""
    return next(code for code in re.findall(r"```\w*\n(.*?)```", DOC, re.DOTALL) if marker in code)


def cli(capsys, *words):
    """Run a command line in this process: exit code, stdout, stderr."""
    capsys.readouterr()
    code = command.main(["--trust-record", *(str(word) for word in words)])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("name", METHODS)
def test_methods_say_what_they_are(name, finished_run):
    """Catches: a method that says its texts need no image, or leaves the image tower alone, and does otherwise: exports
    would be wrong.
    """
    trainer = finished_run(name)[1]
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    if (
        name in CONDITIONED | PROMPTED | PLAIN
    ):  # others are somebody's own: only what they say of themselves can be checked
        assert trainer.text_needs_image == (name in CONDITIONED)
    with torch.no_grad():
        if not trainer.text_needs_image and not trainer.more_than_similarity:
            assert name not in PROMPTED | PLAIN or export.changes_images(trainer) == (name in PROMPTED)
            together = trainer.logits(trainer.image_features(images), trainer.text_features())
            torch.testing.assert_close(trainer.classify(images), together, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["CoOp", "TCP", "TaskRes", "ZeroshotCLIP", "TAC", "CLIPLoRA", "AttriPrompt"])
def test_class_texts(name, finished_run, tmp_path, capsys):
    """Catches: texts exported for an image tower that plain CLIP lacks; a refusal without reason or way out; a
    half-written file.
    """
    folder, trainer = finished_run(name)
    out = tmp_path / "deep" / "classifier.safetensors"
    code, said, err = cli(capsys, "--run", folder, out)
    if name in CONDITIONED | PROMPTED:
        reason, way_out = (
            ("for every image", "clusterprompt predict")
            if name in CONDITIONED
            else ("changes the image features", "ends in .onnx")
        )
        assert (
            code == 2 and reason in err and way_out in err and err.count("\n") == 1 and not list(tmp_path.rglob("*.*"))
        )
        return
    assert code == 0 and not err and "8 classes x 128" in said
    with safe_open(out, "pt") as file, torch.no_grad():
        torch.testing.assert_close(file.get_tensor("text_features"), trainer.text_features(), rtol=0, atol=1e-5)
        about = file.metadata()
        assert file.get_tensor("logit_scale") == pytest.approx(float(trainer.clip.logit_scale.exp()))
    assert (
        json.loads(about["classes"]) == list(trainer.classnames)
        and about["method"] == name
        and about["dataset"] == "Caltech101"
    )
    assert json.loads(about["preprocessing"])["crop"] == [64, 64]


def test_the_lines_of_the_docs(finished_run, backbone, tmp_path, capsys, monkeypatch):
    """Catches: lines in docs/use.md that do not run with plain CLIP, or answer otherwise than the run itself."""
    folder, trainer = finished_run("CoOp")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        archive = torch.jit.trace(
            load_clip(str(backbone)), (torch.zeros(1, 3, 64, 64), tokenize(["a cat"]))
        )  # as OpenAI publishes its own
        archive.save(tmp_path / "clip.pt")
    assert cli(capsys, "--run", folder, tmp_path / "classifier.safetensors", "--backbone", tmp_path / "clip.pt")[0] == 0
    item = trainer.dm.dataset.test[5]
    Image.open(item.impath).save(tmp_path / "cat.jpg", quality=95)
    code = block('classifier.safetensors", "pt"')
    steps = [step for step in ast.parse(code).body if not isinstance(step, (ast.Import, ast.ImportFrom))]
    assert len(steps) == 5, "five lines are promised; a formatter may have broken them"
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CLIP's own
        exec(code, {})
    assert capsys.readouterr().out.strip() == load_run(folder).predict("cat.jpg")[0].classes[0]
    (tmp_path / "photos").mkdir()
    names = {}
    monkeypatch.setattr("clusterprompt.load_run", lambda path: load_run(folder))
    exec(block("from clusterprompt import load_run"), names)
    assert names["model"].classnames == list(trainer.classnames)


def test_new_classes_and_other_preprocessing(finished_run, tmp_path, capsys):
    """Catches: --classes that is passed over; images that plain CLIP would prepare otherwise, without a word."""
    folder, _ = finished_run("CoOp", "INPUT.INTERPOLATION", "bilinear")
    code, said, _ = cli(capsys, "--run", folder, tmp_path / "x.safetensors", "--classes", "sea horse", "stop sign")
    assert code == 0 and "2 classes" in said and "not prepared as CLIP's own" in said
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert json.loads(file.metadata()["classes"]) == ["sea horse", "stop sign"]
    assert (
        cli(capsys, "--run", folder, tmp_path / "x.pt")[2].startswith("error: ")
        and cli(capsys, "--run", tmp_path, tmp_path / "x.onnx")[0] == 2
    )


def test_no_part_of_fused_logits(finished_run, tmp_path, capsys):
    """Catches: class texts or an image tower exported alone, where the logits hold more."""
    for name in ("texts.safetensors", "tower.onnx"):
        code, _, err = cli(capsys, "--run", finished_run("TipAdapter")[0], tmp_path / name)
        assert code == 2 and "a cache of training images is added" in err and "clusterprompt predict" in err
        assert err.count("\n") == 1 and not os.listdir(tmp_path)


def test_no_onnx_of_what_needs_the_image(finished_run, tmp_path, capsys):
    """Catches: an image tower exported with class texts that are not the method's."""
    assert "class texts for every image" in cli(capsys, "--run", finished_run("CoCoOp")[0], tmp_path / "tower.onnx")[
        2
    ] and not os.listdir(tmp_path)


def test_onnx(finished_run, tmp_path, capsys, monkeypatch):
    """Catches: prompts, the mask or the class texts lost on the way; a batch size that is baked in; a graph that is not
    compared.
    """
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder, trainer = finished_run("TAC")
    path = tmp_path / "tower.onnx"
    code, said, err = cli(capsys, "--run", folder, path)
    assert code == 0 and "onnxruntime and torch agree" in said and not err and os.listdir(tmp_path) == ["tower.onnx"]
    session = onnxruntime.InferenceSession(str(path))
    batches = list(trainer.test_loader)
    for images in (torch.cat([batch["img"] for batch in batches]), batches[0]["img"][:1]):
        features, logits = session.run(["image_features", "logits"], {"images": images.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(features), trainer.image_features(images), rtol=0, atol=1e-4)
            torch.testing.assert_close(
                torch.from_numpy(logits), trainer.classify(images), rtol=0, atol=1e-2
            )  # a scale of 100
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == list(trainer.classnames) and about["method"] == "TAC"
    with torch.no_grad(), pytest.raises(ValueError, match="nothing was written"):  # another model than the file's
        export.compare(export.Tower(finished_run("IVLP")[1]), path, batches[0]["img"][:2])


def test_missing_onnx(finished_run, tmp_path, capsys, monkeypatch):
    """Catches: a traceback of somebody else's where an optional package is missing."""
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, found=export.importlib.util.find_spec: None if name == "onnxscript" else found(name),
    )
    code, _, err = cli(capsys, "--run", finished_run("CoOp")[0], tmp_path / "tower.onnx")
    assert (
        code == 2
        and "onnxscript: pip install" in err
        and err.startswith("error: ONNX export needs")
        and err.count("\n") == 1
    )
