"""Trained runs in use: the run's own logits without its data; order, streaming, broken images; errors in one line."""

import itertools
import json
import logging
import os
import random
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import clusterprompt
from clusterprompt.commands import predict
from clusterprompt.registration import own_trainers
from clusterprompt.use.images import decoded_batches, find

pytestmark = pytest.mark.slow
load_run = partial(clusterprompt.load_run, trust_record=True)  # the runs here are of a CLIP of our own

METHODS = [cls.__name__ for cls in own_trainers()]
NEW = ["sea horse", "stop sign", "yin yang"]


def images_of(trainer):
    return [item.impath for item in trainer.dm.dataset.test]


@pytest.fixture
def edited(finished_run, tmp_path):
    """A function that copies a run's folder with changes to its result.json; None removes an entry."""

    def make(name, weights=True, **changes):
        folder, _ = finished_run(name)
        record = {**json.loads((folder / "result.json").read_text()), **changes}
        copy = tmp_path / f"edited {len(os.listdir(tmp_path))}"
        copy.mkdir()
        if weights:
            os.symlink(folder / "prompt_learner", copy / "prompt_learner")
        (copy / "result.json").write_text(
            json.dumps({key: value for key, value in record.items() if value is not None})
        )
        return copy

    return make


def confidences(prediction, classnames):
    """A prediction's probabilities in the order of the classes."""
    return torch.tensor([prediction.confidences[prediction.classes.index(name)] for name in classnames])


def probabilities(trainer):
    """What the run's own test makes of its test images, (N, C)."""
    with torch.no_grad(), trainer.fixed_classes():
        return torch.cat(
            [trainer.model_inference(trainer.parse_batch_test(batch)[0]) for batch in trainer.test_loader]
        ).softmax(dim=1)


def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("name", METHODS)
def test_as_the_runs_own_test(name, finished_run, capsys, monkeypatch):
    """Catches: another transform, template, precision or checkpoint than the run's; a need for the data set; traces
    left behind.
    """
    folder, trainer = finished_run(name)
    wanted, before = probabilities(trainer), files_of(folder)
    monkeypatch.setattr("dassl.data.data_manager.build_dataset", lambda cfg: pytest.fail("the data set was opened"))
    capsys.readouterr()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    logs = logging.getLogger("clusterprompt")
    logging_before = logs.level, list(logs.handlers)
    model = load_run(folder)
    found = model.predict(images_of(trainer), topk=100)
    assert [prediction.path for prediction in found] == images_of(trainer)
    ours = torch.stack([confidences(prediction, trainer.classnames) for prediction in found])
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-4)
    assert all(list(p.confidences) == sorted(p.confidences, reverse=True) for p in found)
    assert files_of(folder) == before
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states
    assert (logs.level, list(logs.handlers)) == logging_before and capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["TAC", "TCP", "CoCoOp"])
def test_new_classes_as_in_a_test_on_them(name, finished_run, build):
    """Catches: class texts or centres of the training classes in the place of the new ones, or the other way round."""
    folder, _ = finished_run(name)
    other = build(name, "DATASET.SUBSAMPLE_CLASSES", "new", "SEED", 3)
    other.load_model(str(folder))
    other.set_model_mode("eval")
    found = load_run(folder, classes=other.classnames).predict(images_of(other), topk=100)
    ours = torch.stack([confidences(prediction, other.classnames) for prediction in found])
    torch.testing.assert_close(ours, probabilities(other), rtol=0, atol=1e-4)


def test_recluster(finished_run, build):
    """Catches: centres of TAC's RECLUSTER drawn from another seed than the test's; fewer classes than centres."""
    folder, _ = finished_run("TAC", "TRAINER.TAC.RECLUSTER", True)
    centers = load_run(folder).trainer.learner.centers
    torch.testing.assert_close(centers, finished_run("TAC", "TRAINER.TAC.RECLUSTER", True)[1].learner.centers)
    assert len(load_run(folder, classes=NEW).trainer.learner.centers) == 3
    assert len(load_run(finished_run("TAC")[0], classes=NEW).trainer.learner.centers) == 5  # the training task's


def test_descriptions_of_the_training_stop_nobody(finished_run, tmp_path, edited):
    """Catches: a file of class descriptions that has to be there, or has to describe new classes, though the checkpoint
    needs none.
    """
    folder, _ = finished_run("TAC")
    record = json.loads((folder / "result.json").read_text())
    record["config"]["TRAINER"]["TAC"]["DESCRIPTIONS"] = record["config"]["DATASET"]["DESCRIPTIONS"] = str(
        tmp_path / "gone.json"
    )
    (tmp_path / "run").mkdir()
    os.symlink(folder / "VLPromptLearner", tmp_path / "run" / "VLPromptLearner")
    (tmp_path / "run" / "result.json").write_text(json.dumps(record))
    assert load_run(tmp_path / "run", classes=NEW).classnames == NEW


def test_contexts_of_classes_serve_no_others(finished_run):
    """Catches: contexts of trained classes that are silently given to other classes, were their number the same."""
    folder, trainer = finished_run("CoOp", "TRAINER.COOP.CSC", True)
    assert load_run(folder, classes=trainer.classnames).classnames == list(trainer.classnames)
    with pytest.raises(ValueError, match="context of its own"):
        load_run(folder, classes=[f"{name} 2" for name in trainer.classnames])


def test_texts_are_computed_once(finished_run, monkeypatch):
    """Catches: class texts computed for every batch, or for every call."""
    folder, trainer = finished_run("CoOp")
    calls = []
    text_features = type(trainer).text_features
    monkeypatch.setattr(type(trainer), "text_features", lambda self: calls.append(1) or text_features(self))
    model = load_run(folder)
    images = images_of(trainer)[:5]
    first = model.predict(images, batch_size=2)
    assert len(calls) == 1 and model.predict(images, batch_size=2) == first and len(calls) == 1


def test_kinds_of_input(finished_run, tmp_path):
    """Catches: pictures in memory, grey, CMYK, with transparency, or of other formats, that are read differently or not
    at all.
    """
    folder, trainer = finished_run("CoOp")
    model = load_run(folder)
    picture = Image.open(images_of(trainer)[0]).convert("RGB")
    for mode, name in (
        ("RGB", "a.png"),
        ("L", "ü b.webp"),
        ("CMYK", "c.JPG"),
        ("RGBA", "d.png"),
        ("P", "e.gif"),
        ("I;16", "f.png"),
    ):
        (picture.convert("L") if mode == "I;16" else picture).convert(mode).save(tmp_path / name)
    from_folder = model.predict(tmp_path)
    assert [os.path.basename(p.path) for p in from_folder] == ["a.png", "c.JPG", "d.png", "e.gif", "f.png", "ü b.webp"]
    assert not any(p.error for p in from_folder)
    (in_memory,) = model.predict(picture)
    assert in_memory.path == "" and in_memory.confidences == pytest.approx(from_folder[0].confidences, abs=1e-5)
    assert (
        model.predict(str(tmp_path / "a.png"))[0].classes
        == model.predict([tmp_path / "a.png"])[0].classes
        == in_memory.classes
    )
    assert len(model.predict(picture, topk=2)[0].classes) == 2


def test_folders(tmp_path):
    """Catches: an order that depends on the disk, files that are no images, a folder that is passed over silently."""
    for name in ("b/2.jpg", "b/10.png", "a/z.JPEG", "c.webp", "a/.hidden.jpg", "notes.txt", "d/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [os.path.relpath(path, tmp_path) for path in find([tmp_path, tmp_path / "x.jpg", tmp_path / "d"])]
    assert found == ["c.webp", "a/z.JPEG", "b/10.png", "b/2.jpg", "x.jpg", "d"]


def number(image):
    """A transform that tells which picture it was; the first is slow."""
    value = image.getpixel((0, 0))[0]
    time.sleep(0.2 if value == 0 else 0)
    return torch.tensor([value])


def pictures(count):
    return (Image.new("RGB", (1, 1), (i % 256, 0, 0)) for i in range(count))


def test_order_and_few_at_a_time():
    """Catches: results in the order in which threads finish; a source read to its end before the first result."""
    read = []
    source = (read.append(1) or picture for picture in pictures(200))
    batches = decoded_batches(source, number, 4, 3)
    first = next(batches)
    assert [int(image.tensor) for image in first] == [0, 1, 2, 3] and len(read) <= 3 * 4 + 2
    assert [int(image.tensor) for batch in batches for image in batch] == list(range(4, 200))


def test_slow_source_gets_its_answers():
    """Catches: a batch that waits until it is full, while whoever feeds stdin waits for the answer."""
    answered = threading.Event()

    def source():
        yield from pictures(2)
        assert answered.wait(10), "no answer before the next question"
        yield from pictures(1)

    batches = decoded_batches(source(), number, 8, 2)
    assert len(next(batches)) == 2
    answered.set()
    assert [len(batch) for batch in batches] == [1]


def test_what_the_source_raises():
    """Catches: an error of the caller's generator that is swallowed by the thread, with the results cut short; threads
    left over.
    """

    def source():
        yield from pictures(2)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        list(decoded_batches(source(), number, 1, 1))
    endless = decoded_batches(itertools.cycle(pictures(3)), number, 2, 2)
    next(endless)
    endless.close()
    time.sleep(0.3)
    assert not [t for t in threading.enumerate() if "feed" in t.name]


def cli(capsys, *words):
    """Run a command line in this process: exit code, lines of stdout, stderr."""
    capsys.readouterr()
    code = predict.main(["--trust-record", *(str(word) for word in words)])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def test_broken_images_are_reported_and_the_rest_goes_on(finished_run, tmp_path, capsys):
    """Catches: one bad file that ends the run, goes unsaid, shifts the others' results, or leaves the exit code 0."""
    folder, trainer = finished_run("CoOp")
    good = images_of(trainer)[:3]
    whole = open(good[0], "rb").read()
    for name, content in (("cut.jpg", whole[: len(whole) // 2]), ("text.jpg", b"no picture"), ("empty.png", b"")):
        (tmp_path / name).write_bytes(content)
    words = [good[0], tmp_path / "cut.jpg", good[1], tmp_path / "text.jpg", tmp_path / "nowhere.jpg", good[2]]
    code, lines, err = cli(capsys, "--run", folder, *words, "--json", "--batch-size", 2)
    records = [json.loads(line) for line in lines]
    assert code == 1 and [r["path"] for r in records] == [str(word) for word in words]
    assert ["error" in r for r in records] == [False, True, False, True, True, False]
    assert (
        "truncated" in records[1]["error"]
        and "no such file" in records[4]["error"]
        and "3 of the images could not be read" in err
    )
    expected = load_run(folder).predict(good)
    for record, prediction in zip((records[0], records[2], records[5]), expected):
        assert [p["class"] for p in record["predictions"]] == prediction.classes
        assert [p["confidence"] for p in record["predictions"]] == pytest.approx(prediction.confidences, abs=1e-5)
    code, lines, err = cli(capsys, "--run", folder, *words, "--topk", 1)
    assert code == 1 and len(lines) == 3 and err.count("error: ") == 3
    path, answer = lines[1].split("\t")
    assert path == good[1] and answer.strip() == f"{100 * expected[1].confidences[0]:.1f}% {expected[1].classes[0]}"
    assert cli(capsys, "--run", folder, *good)[0] == 0


def test_conversation_over_pipes(finished_run, monkeypatch, capfd):
    """Catches: results that are held back until stdin ends; a traceback, or an exit code, when whoever reads stdout has
    seen enough.
    """
    folder, trainer = finished_run("ZeroshotCLIP")
    path = images_of(trainer)[0]
    (stdin, ask), (hear, stdout), old, codes = os.pipe(), os.pipe(), os.dup(0), []
    os.dup2(stdin, 0)
    monkeypatch.setattr(sys, "stdout", os.fdopen(stdout, "w"))
    answers = os.fdopen(hear)
    conversation = threading.Thread(
        target=lambda: codes.append(predict.main(["--run", str(folder), "--trust-record", "--json", "-"])), daemon=True
    )
    try:
        conversation.start()
        for _ in range(2):
            os.write(ask, f"{path}\n\n".encode())
            assert json.loads(answers.readline())["path"] == path
        answers.close()
        os.write(ask, f"{path}\n".encode())  # and stdin stays open: the end must not wait for it
        conversation.join(60)
        assert codes == [0] and capfd.readouterr().err == ""
    finally:
        os.dup2(old, 0)
        for fd in (ask, stdin, old):
            os.close(fd)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--topk", "0"], "topk is 0; allowed are 1 and more"),
        (["--device", "tpu"], "allowed are cpu and cuda"),
        (["--classes", "a", "b", "a"], "twice there are a"),
        (["--classes", " ", "b"], "class names must be words"),
        (["--backbone", "/no/such.pt"], "This run needs /no/such.pt; if it lies elsewhere"),
        (["--classes", "word " * 100], "too long"),
    ],
)
def test_errors_of_the_command_line(words, message, finished_run, capsys):
    """Catches: a traceback, or a message that does not name the value."""
    code, lines, err = cli(capsys, "--run", finished_run("CoOp")[0], "x.jpg", *words)
    assert code == 2 and not lines and err.startswith("error: ") and message in err, err


def test_folders_that_hold_no_model(finished_run, edited, tmp_path, capsys, caplog):
    """Catches: a traceback, or untrained weights, where there is no run, no finished run, or no checkpoint."""
    folder, trainer = finished_run("CoOp")
    image = images_of(trainer)[0]
    for place, message in (
        (tmp_path / "nowhere", "there is no folder"),
        (folder.parent, "there are runs in seed1"),
        (tmp_path, "holds no run"),
        (edited("CoOp", weights=False), "Give the folder of the training run"),
        (edited("CoOp", weights=False, status="training"), "has written no checkpoint yet"),
        (edited("CoOp", trainer="CoOpX"), "'CoOpX', which is no method"),
    ):
        code, lines, err = cli(capsys, "--run", place, image)
        assert code == 2 and not lines and message in err and err.count("\n") == 1, err
    with caplog.at_level(logging.WARNING):
        model = load_run(edited("CoOp", status="training", epoch=1))
    assert "is not finished (epoch 1 of 2)" in caplog.text and len(model.predict(image)) == 1
    with pytest.raises(FileNotFoundError, match="nowhere.jpg does not exist"):
        model.predict("nowhere.jpg")


def test_records_of_older_versions(edited, finished_run):
    """Catches: a run without `template` in its record, or with keys that this version does not know, that cannot be
    used any more.
    """
    record = json.loads((finished_run("TCP")[0] / "result.json").read_text())
    del record["config"]["DATASET"]["TEMPLATE"]
    record["config"]["TRAINER"]["THEIRS"] = {"A": 1}
    old = load_run(edited("TCP", template=None, config=record["config"]))
    assert old.trainer.template == finished_run("TCP")[1].template == "a photo of a {}."
