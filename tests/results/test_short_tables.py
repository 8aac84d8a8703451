"""The short tables that commands end with: cells, facts about the runs, the same numbers as files."""

import csv
import io

import made_runs
import pytest

from clusterprompt.commands import results
from clusterprompt.record.protocols import Leg
from clusterprompt.results import formats
from clusterprompt.results.runs import collect_runs
from clusterprompt.results.tables import build

HALVES = ("base", "new", "HM")
COSTS = ("parameters", "seconds", "s/epoch", "peak MB")


def tables_of(output):
    """Return the tables of a folder without published values, by what they are of."""
    return {table.data: table for table in build(collect_runs(output).runs, None, "std")}


def test_one_harmonic_mean_everywhere(tmp_path, capsys):
    """Catches: the mean of HMs, 54.5 here, under the heading of the papers' HM, 55.0, in one of the outputs."""
    made_runs.base2new(tmp_path, "TAC", "Caltech101", {1: (50.0, 60.0), 2: (60.0, 50.0)})
    assert results.main([str(tmp_path)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("TAC")]
    assert line.split()[-4:] == ["55.00", "+-", "0.00", "54.55"]
    assert results.main([str(tmp_path), "--format", "csv"]) == 0
    rows = {row["column"]: row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert float(rows["HM"]["mean"]) == pytest.approx(55.0)
    assert float(rows["mean of HMs"]["mean"]) == pytest.approx(54.545454)
    table = tables_of(tmp_path)["Caltech101"]
    _, lines = formats.compact(table, (*HALVES, "mean of HMs"), seeds=(1, 2))
    assert lines == [["TAC", "55.0 +- 5.0", "55.0 +- 5.0", "55.0 +- 0.0", "54.5 +- 0.0"]]
    (flat,) = formats.flat(table, HALVES)
    assert flat["HM_mean"] == pytest.approx(55.0) and flat["HM_std"] == pytest.approx(0.0)


def test_facts(tmp_path):
    """Catches: the seconds of one half only, a mean of memory, times of the tests in the seconds of an epoch."""
    for seed, seconds, memory in ((1, 4.0, 900.0), (2, 8.0, 1185.4)):
        for part, step, train, epoch in (("base", "train_base", seconds, seconds / 2), ("new", "test_new", 0.0, 0.0)):
            folder = Leg(f"base2new/{step}", "shapes", part, 16, "").folder(tmp_path, "TAC", "basetonovel", seed)
            costs = {
                "seconds": {"train": train, "test": 3.5},
                "seconds_per_epoch": epoch,
                "peak_memory_mb": memory if part == "new" else 100.0,
                "learned_parameters": 38144,
            }
            made_runs.write(folder, {**made_runs.record("TAC", "Shapes", part, seed, 60.0 + seed), **costs})
    table = tables_of(tmp_path)["Shapes"]
    headers, lines = formats.compact(table, HALVES, COSTS, seeds=(1, 2))
    assert headers == ["trainer", *HALVES, *COSTS]
    assert lines == [["TAC", "61.5 +- 0.5", "61.5 +- 0.5", "61.5 +- 0.5", "38,144", "13", "3.0", "1185"]]
    (flat,) = formats.flat(table, ("base",), COSTS)
    assert flat == {
        "trainer": "TAC",
        "base_mean": 61.5,
        "base_std": 0.5,
        "parameters": 38144,
        "seconds": 13.0,
        "seconds_per_epoch": 3.0,
        "peak_memory_mb": 1185.4,
    }


def test_missing_seeds_and_cells(tmp_path):
    """Catches: a mean of two seeds that looks like one of three, a crash at a cell that nobody has run."""
    for trainer, shots, seeds in (("TAC", 1, (1, 2, 3)), ("TAC", 2, (1, 2)), ("CoOp", 1, (1,))):
        for seed in seeds:
            folder = Leg("few_shot", "shapes", "all", shots, "").folder(tmp_path, trainer, "fewshot", seed)
            made_runs.write(folder, made_runs.record(trainer, "Shapes", "all", seed, 50.0, shots=shots))
    table = tables_of(tmp_path)["Shapes"]
    headers, lines = formats.compact(table, table.columns, seeds=(1, 2, 3))
    assert headers == ["trainer", "1 shot", "2 shots"]
    assert lines == [["CoOp", "50.0 +- 0.0 (1 of 3)", "-"], ["TAC", "50.0 +- 0.0", "50.0 +- 0.0 (2 of 3)"]]
    assert "2 shots_mean" not in formats.flat(table, table.columns)[0]


def test_best_and_order(tmp_path):
    """Catches: a tie of which one is marked, a best value of another column, the worst row first."""
    for trainer, base, new in (("CoOp", 60.0, 40.0), ("TAC", 60.0, 50.0), ("VPT", 10.0, 10.0)):
        made_runs.base2new(tmp_path, trainer, "Shapes", {1: (base, new)})
    table = tables_of(tmp_path)["Shapes"]
    _, lines = formats.compact(table, HALVES, seeds=(1,), best="<{}>".format, sort_by_headline=True)
    assert [line[0] for line in lines] == ["TAC", "CoOp", "VPT"]
    assert [[cell.startswith("<") for cell in line[1:]] for line in lines] == [
        [True] * 3,
        [True, False, False],
        [False] * 3,
    ]
    assert [line["trainer"] for line in formats.flat(table, HALVES, sort_by_headline=True)] == ["TAC", "CoOp", "VPT"]


def test_averages_over_data_sets(tmp_path):
    """Catches: a run over several data sets that has no average, or one over data sets that a method lacks."""
    made_runs.base2new(tmp_path, "TAC", "Caltech101", {1: (90.0, 70.0), 2: (92.0, 72.0)})
    made_runs.base2new(tmp_path, "TAC", "EuroSAT", {1: (80.0, 40.0), 2: (84.0, 42.0)})
    made_runs.base2new(tmp_path, "CoOp", "EuroSAT", {1: (80.0, 40.0)})
    made_runs.base2new(tmp_path, "VPT", "EuroSAT", {1: (80.0, 40.0)})
    made_runs.base2new(tmp_path, "VPT", "Caltech101", {1: (80.0, 40.0), 2: (80.0, 40.0)})
    found = tables_of(tmp_path)
    assert list(found) == ["average", "Caltech101", "EuroSAT"]
    _, lines = formats.compact(found["average"], HALVES, ("seconds",), seeds=(1, 2))
    assert lines == [
        ["VPT", *["80.0 +- 0.0 (1 of 2)", "40.0 +- 0.0 (1 of 2)", "53.3 +- 0.0 (1 of 2)"], "4.0"],
        ["TAC", "86.5 +- 1.5", "56.0 +- 1.0", "68.0 +- 1.2", "4.0"],
    ]


def test_transfer(tmp_path):
    """Catches: the source taken for a target."""
    made_runs.transfer(tmp_path, "TAC", "Shapes", {"Shapes": 50.0, "ShapesTextures": 30.0, "ShapesColours": 40.0})
    table = tables_of(tmp_path)["Shapes"]
    headers, lines = formats.compact(table, table.columns, seeds=(1,))
    assert headers == ["trainer", "Shapes (source)", "Textures", "Colours", "average"]
    assert lines == [["TAC", "50.0 +- 0.0", "30.0 +- 0.0", "40.0 +- 0.0", "35.0 +- 0.0"]]


def test_variants_of_one_method(tmp_path):
    """Catches: variants of an ablation in one row, a method's own facts lost, or taken from the test on new classes."""
    usage = {"pool_size": 8, "used": [8, 4], "dead": [0, 4], "top_share": [0.25, 0.5]}
    variants = {"full": {"retrieval": {"train": usage}}, "without": {}}
    for name, more in variants.items():
        accuracies = {1: (60.0, 60.0), 2: (80.0, 80.0)}
        made_runs.base2new(tmp_path / name, "AttriPrompt", "Shapes", accuracies, **more)
    headers, lines = formats.compact(
        tables_of(tmp_path)["Shapes"],
        ("HM",),
        ("prompts used", "top share"),
        seeds=(1, 2),
        label=lambda row: row.method.folder,
    )
    assert headers == ["trainer", "HM", "prompts used", "top share"]
    assert lines == [["full", "70.0 +- 10.0", "75%", "50%"], ["without", "70.0 +- 10.0", "-", "-"]]
    (full, without) = formats.flat(tables_of(tmp_path)["Shapes"], ("HM",), ("prompts used", "top share"))
    assert full["used"] == 0.75 and full["top share"] == 0.5 and "used" not in without


def test_only_texts_of_a_csv_are_quoted():
    """Catches: a name that a spreadsheet runs as a formula, or a negative number that it no longer takes for one."""
    lines = [{"trainer": "=HYPERLINK(1)", "hm": -1.5}, {"trainer": "-x", "hm": 2}, {"trainer": "TAC", "hm": None}]
    rows = list(csv.DictReader(io.StringIO(formats.csv_of(["trainer", "hm"], lines))))
    assert [row["trainer"] for row in rows] == ["'=HYPERLINK(1)", "'-x", "TAC"]
    assert [row["hm"] for row in rows] == ["-1.5", "2", ""]
