"""Methods that saw unlabelled images of the new classes are marked wherever their numbers are."""

import json
import re

import made_runs
import pytest

from clusterprompt.commands import results
from clusterprompt.record.result import RunRecord
from clusterprompt.results import formats
from clusterprompt.results.runs import collect_runs
from clusterprompt.results.tables import build


@pytest.fixture
def output(tmp_path):
    """Runs of a transductive method and of another one; of other samples, as all images are none."""
    made_runs.base2new(tmp_path, "CoOp", "Caltech101", {1: (50.0, 60.0)}, fewshot_digest="a" * 64)
    made_runs.base2new(
        tmp_path, "PromptKD", "Caltech101", {1: (70.0, 80.0)}, fewshot_digest="b" * 64, transductive=True
    )
    return tmp_path


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "csv"])
def test_every_format(form, output, capsys):
    """Catches: a table in which numbers of a transductive method stand beside others without a word."""
    assert results.main([str(output), "--format", form]) == 0
    said = capsys.readouterr().out
    rows = [line for line in said.splitlines() if "PromptKD" in line and re.search(r"[78]0\.0", line)]
    assert rows and all("PromptKD (transductive)" in line for line in rows)
    assert not any("transductive" in line for line in said.splitlines() if "CoOp" in line and "50.0" in line)
    if form != "csv":
        assert "trained on all training images of all classes without labels" in said
        assert "different few-shot samples" not in said


def test_page_and_short_tables(output):
    """Catches: the mark missing on the page, or in what compare prints and writes."""
    pytest.importorskip("matplotlib")
    assert results.main([str(output), "--html", str(output / "page.html")]) == 0
    assert "PromptKD (transductive)" in (output / "page.html").read_text()
    (table,) = (table for table in build(collect_runs(output).runs, None, "std") if table.data == "Caltech101")
    columns = ("base", "new", "HM")
    _, lines = formats.compact(table, columns, seeds=(1,))
    names = {line[0] for line in lines}
    assert names == {"CoOp", "PromptKD (transductive)"}
    assert {line["trainer"] for line in formats.flat(table, columns)} == names


def test_record(output):
    """Catches: a mark that the record loses, or that older records have."""
    folder = next(output.rglob("PromptKD/*/seed1"))
    assert RunRecord.read(folder).transductive and not RunRecord.read(next(output.rglob("CoOp/*/seed1"))).transductive
    content = json.loads((folder / "result.json").read_text())
    content["transductive"] = "yes"
    with pytest.raises(ValueError, match=r"damaged \(without transductive\)"):
        RunRecord.of_json(content)
