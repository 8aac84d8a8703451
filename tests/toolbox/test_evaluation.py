"""Numbers and lines of the evaluator."""

import json
import re

import pytest
import torch
from dassl.evaluation import EVALUATOR_REGISTRY, Classification, EvaluatorBase, build_evaluator
from toolbox_toys import toolbox_only

TRUE = [0, 0, 0, 2, 2, 1]
PRED = [0, 0, 1, 2, 3, 3]


def evaluated(cfg):
    evaluator = build_evaluator(cfg, lab2cname={0: "a", 1: "b", 2: "c", 3: "d"})
    logits = torch.nn.functional.one_hot(torch.tensor(PRED), 4).float()
    evaluator.reset()
    evaluator.process(logits[:4], torch.tensor(TRUE[:4]))
    evaluator.process(logits[4:], torch.tensor(TRUE[4:]))
    return evaluator.evaluate()


def test_results(cfg, capsys):
    """Fault: F1 over predicted classes too; class means weighted by size; results that json or torch cannot hold."""
    results = evaluated(cfg("TEST.PER_CLASS_RESULT", True))
    # F1: class 0: 2*2/(2+3) = 0.8; class 1: 0; class 2: 2/3; class 3 is not in the truth
    want = {
        "accuracy": 50.0,
        "error_rate": 50.0,
        "macro_f1": 100 * (0.8 + 0 + 2 / 3) / 3,
        "perclass_accuracy": (200 / 3 + 0 + 50) / 3,
    }
    assert list(results) == list(want) and dict(results) == pytest.approx(want)
    assert type(results["accuracy"]) is float
    out = capsys.readouterr().out
    assert "=> result" in out.splitlines()
    for line in (
        "* total: 6",
        "* correct: 3",
        "* accuracy: 50.0%",
        "* error: 50.0%",
        "* macro_f1: 48.9%",
        "* average: 38.9%",
    ):
        assert line in out.splitlines(), line
    rows = [line.split("\t") for line in out.splitlines() if line.startswith("* class:")]
    assert [len(row) for row in rows] == [4] * 3 and rows[0][0] == "* class: 0 (a)"
    assert len(re.findall(r"\* accuracy: ([\.\deE+-]+)%", out)) == 1, "parsers take the last match"


def test_per_class_only_when_asked(cfg):
    """Fault: a longer result than Dassl's."""
    assert list(evaluated(cfg())) == ["accuracy", "error_rate", "macro_f1"]


def test_registry_and_base(cfg):
    """Fault: a missing method of one's own evaluator goes unnoticed."""
    assert EVALUATOR_REGISTRY.get("Classification") is Classification
    for method, args in (("reset", ()), ("process", (None, None)), ("evaluate", ())):
        with pytest.raises(NotImplementedError):
            getattr(EvaluatorBase(cfg()), method)(*args)
    with pytest.raises(ValueError, match="Classification"):
        build_evaluator(cfg("TEST.EVALUATOR", "Clasification"))


@toolbox_only
def test_confusion_matrix(cfg, tmp_path):
    """Fault: a file that torch's default loading refuses."""
    evaluated(cfg("TEST.COMPUTE_CMAT", True))
    cmat = torch.load(tmp_path / "out" / "cmat.pt", weights_only=True)
    assert cmat[0].tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0])


@toolbox_only
def test_confusion_matrix_has_all_classes(cfg, tmp_path):
    """Fault: a class without a test image has no row, and all later rows belong to other labels than their number."""
    evaluator = build_evaluator(cfg("TEST.COMPUTE_CMAT", True), lab2cname=dict(enumerate("abcd")))
    evaluator.process(torch.eye(4)[[0, 2, 2]], torch.tensor([0, 2, 2]))
    evaluator.evaluate()
    cmat = torch.load(tmp_path / "out" / "cmat.pt", weights_only=True)
    assert cmat.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


@toolbox_only
def test_nothing_to_evaluate(cfg):
    """Fault: division by zero."""
    with pytest.raises(ValueError, match="Nothing to evaluate"):
        build_evaluator(cfg()).evaluate()


@toolbox_only
def test_records_are_appended_and_a_broken_file_is_kept(cfg, tmp_path):
    """Fault: results.json in places no trainer chose; an edited file ends a finished run, or is lost."""
    evaluated(cfg())
    path = tmp_path / "out" / "results.json"
    assert not path.exists()
    evaluator = build_evaluator(cfg())
    evaluator.context = {"split": "val", "epoch": 3, "checkpoint": "x"}
    for _ in range(2):
        evaluator.reset()
        evaluator.process(torch.tensor([[1.0, 0], [1, 0], [1, 0]]), torch.tensor([0, 1, 1]))
        evaluator.evaluate()
    records = json.loads(path.read_text())
    assert len(records) == 2 and records[0]["accuracy"] == 100 / 3
    assert (records[1]["split"], records[1]["epoch"], records[1]["checkpoint"]) == ("val", 3, "x")
    path.write_text("not json")
    evaluator.evaluate()
    assert (
        len(json.loads(path.read_text())) == 1 and (tmp_path / "out" / "results.json.broken").read_text() == "not json"
    )
