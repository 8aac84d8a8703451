"""Tables whose runs describe classes by texts of several sources."""

import csv
import io
import json

import made_runs

from clusterprompt.commands import results
from clusterprompt.record.result import RunRecord
from clusterprompt.results.runs import collect_runs
from clusterprompt.results.tables import build

MIXED = "Class texts are not all of one source, so these numbers compare in part only. "


def write(output, trainer, dataset, seed, source):
    """Write both halves of a run; a source of None is left out, as older versions did."""
    for part, step in (("base", "train_base"), ("new", "test_new")):
        content = made_runs.record(trainer, dataset, part, seed, 60.0)
        content.update({} if source is None else {"text_source": source})
        content["config"]["TRAINER"]["TAC"]["DESCRIPTIONS"] = ""
        content["config"]["DATASET"]["DESCRIPTIONS"] = f"/somewhere/{seed}" if source and "own" in source else ""
        folder = output / "base2new" / step / dataset.lower() / "shots_16" / trainer / "basetonovel" / f"seed{seed}"
        made_runs.write(folder, content)


def notes(output):
    """Return the notes of each table, by what it is of."""
    return {table.data: " ".join(table.notes) for table in build(collect_runs(output).runs, None)}


def test_methods_of_several_sources(tmp_path, capsys):
    """Catches: TAC with official descriptions beside a method with templates, and a format without a word of it."""
    write(tmp_path, "TAC", "Caltech101", 1, "official descriptions")
    write(tmp_path, "CoOp", "Caltech101", 1, "")
    assert MIXED not in notes(tmp_path)["Caltech101"]
    write(tmp_path, "AttriPrompt", "Caltech101", 1, "templates")
    words = "official descriptions: TAC on Caltech101; templates: AttriPrompt on Caltech101."
    assert MIXED + words in notes(tmp_path)["Caltech101"]
    for name in ("text", "markdown", "latex"):
        assert results.main([str(tmp_path), "--format", name]) == 0
        assert words in " ".join(capsys.readouterr().out.replace("%", " ").split())
    results.main([str(tmp_path), "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    found = {row["method"] if "method" in row else row["trainer"]: row["text_source"] for row in rows}
    assert found == {"TAC": "official descriptions", "CoOp": "", "AttriPrompt": "templates"}


def test_seeds_of_several_sources(tmp_path):
    """Catches: a mean over seeds with official descriptions and with templates, those of an older version included."""
    write(tmp_path, "TAC", "Caltech101", 1, "official descriptions")
    write(tmp_path, "TAC", "Caltech101", 2, None)
    said = notes(tmp_path)["Caltech101"]
    assert "Mixed settings, TAC on Caltech101: class texts: official descriptions (seed 1), templates (seed 2)." in said
    assert MIXED in said


def test_data_sets_of_several_sources(tmp_path):
    """Catches: an average over data sets with and without descriptions; own files, one a data set, called a mixture."""
    write(tmp_path, "TAC", "Caltech101", 1, "official descriptions")
    write(tmp_path, "TAC", "EuroSAT", 1, "templates")
    found = notes(tmp_path)
    assert MIXED in found["average"] and MIXED not in found["Caltech101"] + found["EuroSAT"]
    write(tmp_path, "TAC", "Caltech101", 1, "own file a.json (sha256 0123)")
    write(tmp_path, "TAC", "EuroSAT", 1, "own file b.json (sha256 4567)")
    assert MIXED not in " ".join(notes(tmp_path).values())
    write(tmp_path, "AttriPrompt", "EuroSAT", 1, "own file b.json (sha256 89ab)")
    assert MIXED in notes(tmp_path)["EuroSAT"] and MIXED not in notes(tmp_path)["Caltech101"]


def test_records_of_older_versions(tmp_path):
    """Catches: an old run with a file of its own taken for one with templates; one of a method without texts."""
    write(tmp_path, "TAC", "Caltech101", 1, None)
    (file,) = tmp_path.rglob("train_base/**/result.json")
    assert RunRecord.read(file.parent).text_source == "templates"
    content = json.loads(file.read_text())
    for key, node in (("TRAINER", "TAC"), ("DATASET", None)):
        changed = json.loads(json.dumps(content))
        (changed["config"][key][node] if node else changed["config"][key])["DESCRIPTIONS"] = "d.json"
        file.write_text(json.dumps(changed))
        assert RunRecord.read(file.parent).text_source == ""
    file.write_text(json.dumps({**content, "trainer": "CoOp"}))
    assert RunRecord.read(file.parent).text_source == ""
