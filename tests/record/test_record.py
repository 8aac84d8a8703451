"""The files of a run: result.json's history and origin, predictions.csv, Weights & Biases."""

import csv
import json
import os
import shutil
import subprocess
import sys
import types

import pytest
import torch
from recordings import start, write_official

from clusterprompt import convert
from clusterprompt.record import measure
from clusterprompt.record.predictions import Predictions, read_predictions
from clusterprompt.trainers.parts.origin import methods_by_names

pytestmark = pytest.mark.slow


def result(folder):
    return json.loads((folder / "result.json").read_text())


def rows_of(folder):
    with open(folder / "predictions.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_history(build, tmp_path):
    """Catches: an epoch lost or miscounted, the last batch in place of the means, the next epoch's learning rate."""
    trainer, summaries = build("KgCoOp", output=tmp_path), []
    step = trainer.forward_backward

    def forward_backward(batch):
        if trainer.batch_idx == 0:  # what is on disk while an epoch runs
            assert [entry["epoch"] for entry in result(tmp_path)["history"]] == list(range(1, trainer.epoch + 1))
        summaries.append((trainer.epoch + 1, step(batch)))
        return summaries[-1][1]

    trainer.forward_backward = forward_backward
    trainer.train()
    history = result(tmp_path)["history"]
    assert [entry["epoch"] for entry in history] == [1, 2] and [entry["lr"] for entry in history] == [1e-5, 0.0025]
    for entry in history:
        mine = [summary for epoch, summary in summaries if epoch == entry["epoch"]]
        assert len(mine) == 4
        seen = {name: sum(summary[name] for summary in mine) / 4 for name in mine[0]}
        assert seen == pytest.approx(
            {"loss": entry["loss"], "acc": entry["accuracy"], **{f"loss_{k}": v for k, v in entry["losses"].items()}},
            abs=1e-5,
        )
        assert entry["loss"] == pytest.approx(sum(entry["losses"].values()), abs=1e-5) and set(entry["losses"]) == {
            "ce",
            "text",
        }
        assert entry["seconds"] >= 0


def test_predictions(build, data, tmp_path):
    """Catches: rows out of order, a wrong confidence, labels of other classes, a file that validation overwrites."""
    trainer = build("CoOp", "DATASET.SUBSAMPLE_CLASSES", "new", output=tmp_path)
    trainer.test("val")
    assert not (tmp_path / "predictions.csv").exists()
    accuracy = trainer.test()
    rows, record = rows_of(tmp_path), result(tmp_path)
    assert list(rows[0]) == ["path", "label", "prediction", "confidence"] and len(rows) == record["n_test"] == 14
    assert [row["path"] for row in rows] == [item.impath.removeprefix(f"{data}/") for item in trainer.dm.dataset.test]
    assert [record["classnames"][int(row["label"])] for row in rows] == [
        item.classname for item in trainer.dm.dataset.test
    ]
    assert 100 * sum(row["label"] == row["prediction"] for row in rows) / 14 == pytest.approx(accuracy)
    with torch.no_grad():
        batch = next(iter(trainer.test_loader))
        best = trainer.classify(batch["img"]).softmax(dim=1).max(dim=1)
    assert [int(row["prediction"]) for row in rows[: len(best.indices)]] == best.indices.tolist()
    assert [float(row["confidence"]) for row in rows[: len(best.indices)]] == pytest.approx(
        best.values.tolist(), abs=1e-5
    )


def test_trained_on(build, tmp_path):
    """Catches: an evaluation recorded as trained on its test data; older, converted or foreign files not loaded."""
    trainer = build("CoOp", "OPTIM.MAX_EPOCH", 1, output=tmp_path / "run")
    trainer.train()
    own = {"dataset": "Caltech101", "subsample": "base", "shots": 4, "seed": 1}
    assert result(tmp_path / "run")["trained_on"] == own

    other = build("CoOp", "DATASET.SUBSAMPLE_CLASSES", "new", "SEED", 2, output=tmp_path / "new")
    other.load_model(str(tmp_path / "run"))
    other.test()
    record = result(tmp_path / "new")
    assert (record["trained_on"], record["subsample"], record["seed"], record["history"]) == (own, "new", 2, [])

    convert.main([str(tmp_path / "run"), str(tmp_path / "small")])
    convert.main([str(tmp_path / "run"), str(tmp_path / "one.safetensors")])
    for place in ("small", "one.safetensors"):
        other.recorder.trained_on = None
        other.load_model(str(tmp_path / place))
        assert other.recorder.trained_on == own
    with pytest.raises(ValueError, match="epoch 7 cannot be chosen"):
        other.load_model(str(tmp_path / "one.safetensors"), epoch=7)

    old = result(tmp_path / "run")
    del old["trained_on"], old["history"]
    (tmp_path / "run" / "result.json").write_text(json.dumps(old))
    other.load_model(str(tmp_path / "run"))
    assert other.recorder.trained_on == own
    (tmp_path / "run" / "result.json").unlink()
    other.load_model(str(tmp_path / "run"))
    assert other.recorder.trained_on is None


def test_nothing_trained(build, tmp_path):
    """Catches: zero-shot CLIP that claims to be trained."""
    build("ZeroshotCLIP", output=tmp_path).train()
    record = result(tmp_path)
    assert record["trained_on"] is None and record["history"] == [] and len(rows_of(tmp_path)) == 16


# ------------------------------------------------------------------ checkpoints of others


def test_another_methods_checkpoint(build, tmp_path):
    """Catches: TCP's context taken for KgCoOp's, its meta-net dropped; an error that does not name the writer."""
    tcp, kgcoop = build("TCP", "TRAINER.COOP.N_CTX", 4, output=tmp_path), build("KgCoOp", "TRAINER.COOP.N_CTX", 4)
    tcp.save_model(0, str(tmp_path))
    with pytest.raises(ValueError, match=r"it also holds meta_net\.linear2.*it is of TCP, not of KgCoOp"):
        kgcoop.load_model(str(tmp_path), epoch=1)
    tcp.recorder.write()
    with pytest.raises(ValueError, match="was written by TCP, not by KgCoOp; load it with --trainer TCP"):
        kgcoop.load_model(str(tmp_path), epoch=1)
    build("TCP", "TRAINER.COOP.N_CTX", 4).load_model(str(tmp_path), epoch=1)


def test_an_official_file_of_another_method(build, tmp_path):
    """Catches: PromptSRC's file taken for IVLP's, with the same learned names; the copy of CLIP in it differs."""
    path = write_official(tmp_path, "promptsrc", start("promptsrc", build, "new")[0])
    with pytest.raises(ValueError, match="it is of PromptSRC, not of IVLP"):
        build("IVLP").load_model(str(path.parent.parent))


# ------------------------------------------------------------------ Weights & Biases


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in that writes down what it is asked to do."""

    class Run:
        def __init__(self, **words):
            self.words, self.rows, self.metrics, self.finished = words, [], {}, 0
            runs.append(self)

        def define_metric(self, name, step_metric):
            self.metrics[name] = step_metric

        def log(self, row):
            assert not self.finished
            self.rows.append(row)

        def finish(self):
            self.finished += 1

    runs, module = [], types.ModuleType("wandb")
    module.init = Run
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


def test_wandb(build, tmp_path, wandb):
    """Catches: missing terms, steps of training and tests mixed up, a run never finished or forced online."""
    trainer = build("KgCoOp", "TRAIN.WANDB", "prompts", "TEST.FINAL_MODEL", "best_val", output=tmp_path)
    trainer.train()
    (run,) = wandb
    assert (
        run.words["project"] == "prompts"
        and run.words["dir"] == str(tmp_path)
        and run.words["config"]["TRAINER"]["COOP"]["W"] == 8.0
    )
    assert "mode" not in run.words  # WANDB_MODE=offline decides
    steps = {}
    for row in run.rows:
        (tag, value), (step, count) = row.items()
        assert run.metrics[f"{step.split('/')[0]}/*"] == step and tag.split("/")[0] == step.split("/")[0]
        steps.setdefault(tag, []).append(count)
    assert all(steps[f"train/{name}"] == list(range(8)) for name in ("loss", "loss_ce", "loss_text", "acc", "lr"))
    assert steps["val/accuracy"] == [0, 1] and steps["test/accuracy"] == [1]
    assert run.rows[-1].get("test/macro_f1") == pytest.approx(result(tmp_path)["macro_f1"]) and run.finished == 1

    tested = build("KgCoOp", "TRAIN.WANDB", "prompts", output=tmp_path / "test")
    tested.test()
    assert len(wandb) == 2 and wandb[1].finished == 1 and any("test/accuracy" in row for row in wandb[1].rows)


def test_wandb_only_when_asked(build, monkeypatch):
    """Catches: an import nobody asked for; a run that finds out after its first epoch that wandb is not there."""
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if not installed
    build("CoOp").test()
    with pytest.raises(ValueError, match="TRAIN.WANDB is 'prompts'.*pip install wandb"):
        build("CoOp", "TRAIN.WANDB", "prompts")


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_commit_of_another_project(tmp_path, monkeypatch):
    """Catches: the commit of the project in whose virtual environment we are installed, recorded as ours."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run([*git, *words], check=True)
    for folder, expected in ((tmp_path, 40), (tmp_path / "venv" / "site-packages", 0)):
        (folder / "clusterprompt").mkdir(parents=True)
        monkeypatch.setattr(measure, "__file__", str(folder / "clusterprompt" / "record" / "measure.py"))
        assert len(measure.commit()) == expected


def test_a_meta_net_without_context():
    """Catches: a KeyError for a file that is neither CoCoOp's nor TCP's."""
    assert set(methods_by_names("prompt_learner", {"meta_net.linear2.weight": torch.zeros(2, 2)})) == {"CoCoOp", "TCP"}


def test_file_names_that_are_not_utf8(tmp_path):
    """Catches: a finished run lost to one image of an old archive."""
    seen = Predictions()
    seen.add_images(torch.tensor([0]), [os.fsdecode(b"/data/caf\xe9.jpg")])
    seen.add_logits(torch.eye(1))
    seen.write(tmp_path, "/data")
    assert b"\ncaf\xe9.jpg,0,0,1.000000\n" in (tmp_path / "predictions.csv").read_bytes()


@pytest.mark.parametrize("name", ["=cmd|calc.jpg", "+1.jpg", "-1+2.jpg", "@SUM(A1).jpg", "\tx.jpg", "\r=1.jpg"])
def test_file_names_that_look_like_formulas(name, tmp_path):
    """Catches: an image's or a class folder's name that a spreadsheet runs as a formula; a cell that, so changed, no
    longer names the file.
    """
    seen = Predictions()
    seen.add_images(torch.tensor([0, 0]), [f"/data/{name}", f"/data/{name}/a.jpg"])
    seen.add_logits(torch.eye(2)[[0, 0]])
    seen.write(tmp_path, "/data")
    rows = rows_of(tmp_path)
    assert [row["path"][0] for row in rows] == [".", "."] and rows[0]["label"] == "0"
    named = [os.path.normpath(f"/data/{row.path}") for row in read_predictions(tmp_path, 2)]
    assert named == [f"/data/{name}", f"/data/{name}/a.jpg"]


@pytest.mark.parametrize("seconds, expected", [((30.0, 50.0), 40.0), ((None, 50.0), 50.0), ((None, None), 0.0)])
def test_seconds_of_an_epoch_after_a_lost_test(build, tmp_path, seconds, expected):
    """Catches: a run stopped in its final test that, resumed, took no time, or ends in a KeyError where its history is
    of a version that kept no seconds.
    """
    build("CoOp", output=tmp_path).train()
    state = torch.load(tmp_path / "resume_state.pt", weights_only=True)
    for entry, value in zip(state["run"]["history"], seconds):
        del entry["seconds"]
        entry.update({"seconds": value} if value else {})
    torch.save(state, tmp_path / "resume_state.pt")
    (tmp_path / "result.json").unlink()  # the history does not depend on it
    resumed = build("CoOp", "RESUME", str(tmp_path), output=tmp_path)
    resumed.train()
    assert resumed.start_epoch == resumed.max_epoch == 2 and len(result(tmp_path)["history"]) == 2
    assert result(tmp_path)["seconds_per_epoch"] == expected


def test_classes_that_share_a_name():
    """Catches: an accuracy lost because two classes have one name, as ImageNet's missiles do."""
    seen = Predictions()
    seen.add_images(torch.tensor([0, 1, 2]), [])
    seen.add_logits(torch.eye(3)[[0, 2, 2]])
    assert seen.scores(["missile", "owl", "missile"])["per_class"] == {
        "missile (0)": 100.0,
        "owl": 0.0,
        "missile (2)": 100.0,
    }
