"""The tables of results: which runs belong together, the numbers, the published values, the four formats."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import made_runs
import pytest

from clusterprompt.commands import results as results_command
from clusterprompt.record import protocols
from clusterprompt.record.protocols import Leg, all_protocols
from clusterprompt.results.runs import collect_runs
from clusterprompt.results.tables import build

CHECKOUT = Path(__file__).resolve().parents[2]
ELEVEN = (
    "ImageNet",
    "Caltech101",
    "OxfordPets",
    "StanfordCars",
    "OxfordFlowers",
    "Food101",
    "FGVCAircraft",
    "SUN397",
    "DescribableTextures",
    "EuroSAT",
    "UCF101",
)
SEEDS = {1: (90.0, 70.0), 2: (94.0, 60.0), 3: (89.0, 74.0)}


@pytest.fixture
def results():
    """The command as a module."""
    return results_command


@pytest.fixture
def rows(results, tmp_path, capsys):
    """A function that returns the lines of the CSV of what lies in tmp_path."""

    def run(*words):
        assert results.main([str(tmp_path), "--format", "csv", *words]) == 0
        return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))

    return run


@pytest.fixture
def lines(rows):
    """The same for one protocol, as {(data, column, trainer, shots, folder): line}."""

    def run(*words):
        found = rows(*words)
        assert len({row["protocol"] for row in found}) == 1
        return {(row["data"], row["column"], row["trainer"], row["shots"], row["folder"]): row for row in found}

    return run


@pytest.fixture
def printed(results, tmp_path, capsys):
    """A function that returns what is printed for tmp_path."""

    def run(*words):
        assert results.main([str(tmp_path), *words]) == 0
        return capsys.readouterr().out

    return run


def slow_hm(base, new):
    return 1 / ((1 / base + 1 / new) / 2)


# ------------------------------------------------------------------ numbers


def test_spread_and_both_harmonic_means(lines, tmp_path):
    """Catches: a sample instead of the population deviation, a normal instead of Student's interval, one HM convention
    under the other's name.
    """
    made_runs.base2new(tmp_path, "TAC", "Caltech101", SEEDS)
    base = [pair[0] for pair in SEEDS.values()]
    mean = sum(base) / 3
    squares = sum((value - mean) ** 2 for value in base)
    found = lines()["Caltech101", "base", "TAC", "16", ""]
    assert float(found["mean"]) == pytest.approx(mean) and float(found["spread"]) == pytest.approx((squares / 3) ** 0.5)
    interval = lines("--interval", "ci95")["Caltech101", "base", "TAC", "16", ""]
    assert float(interval["spread"]) == pytest.approx(
        4.302652730 * (squares / 2) ** 0.5 / 3**0.5
    )  # t of 2 degrees of freedom, from a printed table
    assert interval["spread_is"] == "ci95"
    assert float(lines()["Caltech101", "HM", "TAC", "16", ""]["mean"]) == pytest.approx(slow_hm(91.0, 68.0))
    of_seeds = sum(slow_hm(*pair) for pair in SEEDS.values()) / 3
    assert float(lines()["Caltech101", "mean of HMs", "TAC", "16", ""]["mean"]) == pytest.approx(of_seeds)
    assert abs(of_seeds - slow_hm(91.0, 68.0)) > 0.05  # else the test could not tell them apart


def test_average_over_data_sets(lines, tmp_path):
    """Catches: the mean of HMs as the average HM, an average over the data sets that happen to be there, drawn data
    averaged with real ones.
    """
    made_runs.base2new(tmp_path, "TAC", "Caltech101", {1: (90.0, 70.0), 2: (92.0, 72.0)})
    made_runs.base2new(tmp_path, "TAC", "EuroSAT", {1: (80.0, 40.0), 2: (84.0, 42.0)})
    made_runs.base2new(tmp_path, "TAC", "Shapes", {1: (10.0, 10.0)})
    made_runs.base2new(tmp_path, "CoOp", "EuroSAT", {1: (80.0, 40.0)})
    found = lines()
    assert float(found["average", "base", "TAC", "16", ""]["mean"]) == pytest.approx((91 + 82) / 2)
    assert float(found["average", "base", "TAC", "16", ""]["spread"]) == pytest.approx(
        1.5
    )  # of 85 and 88, the averages of the seeds
    assert float(found["average", "HM", "TAC", "16", ""]["mean"]) == pytest.approx(slow_hm(86.5, 56.0))
    assert float(found["average", "mean of HMs", "TAC", "16", ""]["mean"]) == pytest.approx(
        (slow_hm(91, 71) + slow_hm(82, 41)) / 2
    )
    assert ("average", "base", "CoOp", "16", "") not in found


def test_one_seed_has_no_spread(lines, printed, tmp_path):
    """Catches: "+- 0.00" after a single run, as if it had been repeated."""
    made_runs.base2new(tmp_path, "TAC", "Caltech101", {1: (90.0, 70.0)})
    assert lines()["Caltech101", "base", "TAC", "16", ""]["spread"] == ""
    assert "90.00 +-" not in printed()


# --------------------------------------------------- what belongs together


def test_transfer(rows, tmp_path):
    """Catches: targets in the wrong protocol, the source in the average, zero-shot runs lost, the source run counted as
    few-shot.
    """
    accuracies = {
        "Shapes": 50.0,
        "ShapesTextures": 30.0,
        "ShapesColours": 40.0,
        "ShapesCounts": 50.0,
        "ShapesNoise": 20.0,
        "ShapesLowRes": 30.0,
    }
    for trainer, off in (("TAC", 0), ("ZeroshotCLIP", -10)):
        made_runs.transfer(
            tmp_path, trainer, "Shapes", {name: value + off for name, value in accuracies.items()}, backbone="tiny"
        )
    found = rows()
    seen = {(row["protocol"], row["column"], row["trainer"]): float(row["mean"]) for row in found}
    assert seen["cross_dataset", "average", "TAC"] == pytest.approx(40) and seen[
        "cross_dataset", "average", "ZeroshotCLIP"
    ] == pytest.approx(30)
    assert (
        seen["domain_generalisation", "average", "TAC"] == pytest.approx(25)
        and seen["domain_generalisation", "Shapes", "TAC"] == 50
    )
    assert ("cross_dataset", "ShapesNoise", "TAC") not in seen and not any(
        row["protocol"] == "few_shot" for row in found
    )


def test_targets_go_by_content(rows, tmp_path):
    """Catches: protocols read off the folders alone: here runs lie in folders of any name."""
    for name, accuracy in (("Shapes", 50.0), ("ShapesNoise", 20.0)):
        made_runs.write(
            tmp_path / f"run {name}", made_runs.record("TAC", name, "all", 1, accuracy, trained_on="Shapes")
        )
    made_runs.write(tmp_path / "another", made_runs.record("CoOp", "Shapes", "all", 1, 44.0, shots=4))
    assert {(row["protocol"], row["trainer"]) for row in rows()} == {
        ("domain_generalisation", "TAC"),
        ("few_shot", "CoOp"),
    }


def test_own_images_are_several_data_sets(lines, rows, tmp_path):
    """Catches: all own images taken for one data set, as their class has one name: the base half of one beside the new
    half of another.
    """
    for name, halves in (("birds", (90.0, 70.0)), ("cars", (60.0, 30.0))):
        for part, step, accuracy in zip(("base", "new"), ("train_base", "test_new"), halves):
            folder = tmp_path / "base2new" / step / name / "shots_16" / "TAC" / "basetonovel" / "seed1"
            made_runs.write(folder, made_runs.record("TAC", "ImageFolder", part, 1, accuracy))
    found = lines()
    assert {
        (data, column): float(row["mean"])
        for (data, column, *_), row in found.items()
        if data != "average" and column in ("base", "new")
    } == {("birds", "base"): 90, ("birds", "new"): 70, ("cars", "base"): 60, ("cars", "new"): 30}
    for step, name, accuracy in (("train", "birds", 80.0), ("test", "cars", 40.0), ("test", "cats", 20.0)):
        folder = tmp_path / "xd" / step / name / "shots_16" / "TAC" / "crossdatasets" / "seed1"
        made_runs.write(folder, made_runs.record("TAC", "ImageFolder", "all", 1, accuracy))
    assert {row["column"]: float(row["mean"]) for row in rows() if row["protocol"] == "cross_dataset"} == {
        "ImageFolder": 80,
        "cars": 40,
        "cats": 20,
        "average": 30,
    }


def test_unknown_origin(lines, tmp_path):
    """Catches: an official checkpoint, whose training set is not known, counted as zero-shot or few-shot; a model
    trained on all classes as base-to-new.
    """
    made_runs.base2new(tmp_path, "TAC", "Shapes", SEEDS)
    unknown = {**made_runs.record("TAC", "Shapes", "all", 1, 50.0), "trained_on": None}
    made_runs.write(tmp_path / "official", unknown)
    on_all = made_runs.record("TAC", "Shapes", "new", 1, 99.0)
    on_all["trained_on"]["subsample"] = "all"
    made_runs.write(tmp_path / "on all", on_all)
    assert {row["spread_is"] for row in lines().values()} == {"std", ""}
    assert [note.split(":")[0] for note in collect_runs(tmp_path).notes] == [
        "Left out, it is not known what it was trained on",
        "Left out, of no known protocol (trained on all classes, tested on new)",
    ]


def test_few_shot(printed, lines, tmp_path):
    """Catches: numbers of shots in one row's mean, columns sorted as words (1, 16, 2)."""
    for shots, accuracy in ((1, 50.0), (2, 55.0), (16, 70.0)):
        for seed in (1, 2):
            folder = Leg("few_shot", "caltech101", "all", shots, "").folder(tmp_path, "TAC", "fewshot", seed)
            made_runs.write(folder, made_runs.record("TAC", "Caltech101", "all", seed, accuracy + seed, shots=shots))
    table = printed()
    assert re.search(r"1 shot +2 shots +16 shots", table) and re.search(
        r"TAC +1, 2 +51.50 \+- 0.50 +56.50 \+- 0.50 +71.50", table
    )
    assert float(lines()["Caltech101", "16 shots", "TAC", "16", ""]["mean"]) == 71.5


def test_old_records(printed, tmp_path):
    """Catches: runs from before trained_on and history that are no longer found."""
    made_runs.base2new(tmp_path, "CoOp", "Shapes", {1: (50.0, 60.0)})
    made_runs.base2new(tmp_path, "ZeroshotCLIP", "Shapes", {1: (40.0, 45.0)})
    for file in tmp_path.rglob("result.json"):
        content = json.loads(file.read_text())
        del content["trained_on"], content["history"]
        file.write_text(json.dumps(content))
    assert re.search(r"ZeroshotCLIP +1 .*\nCoOp +1 +50.00 +60.00 +54.55", printed())


def test_folders_of_results_are_rows_of_their_own(lines, tmp_path):
    """Catches: a variant of an ablation averaged with the full method."""
    for name, accuracy in (("full", 60.0), ("without", 50.0)):
        made_runs.base2new(tmp_path / "ablation" / name, "TAC", "Shapes", {1: (accuracy, accuracy)})
    found = lines()
    assert float(found["Shapes", "base", "TAC", "16", "ablation/full"]["mean"]) == 60
    assert float(found["Shapes", "base", "TAC", "16", "ablation/without"]["mean"]) == 50


def test_warnings(printed, tmp_path):
    """Catches: silence about seeds of other settings, about other few-shot samples, seeds that are missing, and a run
    that lies there twice.
    """
    made_runs.base2new(tmp_path, "TAC", "Shapes", SEEDS)
    made_runs.base2new(tmp_path, "CoOp", "Shapes", {1: (50.0, 50.0)}, fewshot_digest="another")
    part = tmp_path / "base2new" / "train_base" / "shapes" / "shots_16" / "TAC" / "basetonovel"
    content = json.loads((part / "seed2" / "result.json").read_text())
    content["config"]["OPTIM"]["MAX_EPOCH"], content["config"]["TRAINER"]["COOP"]["N_CTX"] = (
        7,
        8,
    )  # the second is another method's
    (part / "seed2" / "result.json").write_text(json.dumps(content))
    shutil.copytree(part / "seed1", part / "seed1_copy")
    text = printed()
    assert "Mixed settings, TAC on Shapes: OPTIM.MAX_EPOCH: 2 (seeds 1-3), 7 (seed 2)." in text and "COOP" not in text
    assert (
        "different few-shot samples: Shapes, 16 shots, seed 1" in text
        and "Not all numbers are of the same seeds" in text
    )
    assert text.count("Duplicates: TAC on Shapes, seed 1 (base)") == 1


def test_tests_older_than_their_model(printed, tmp_path):
    """Catches: silence about tests of a model that is no more; a note about the others, or about zero-shot, where
    nothing is trained.
    """
    made_runs.base2new(tmp_path, "TAC", "Shapes", SEEDS)
    made_runs.base2new(tmp_path, "ZeroshotCLIP", "Shapes", SEEDS)
    made_runs.transfer(tmp_path, "TAC", "Shapes", {"Shapes": 60.0, "ShapesTextures": 50.0, "ShapesColours": 40.0})
    for file in tmp_path.rglob("result.json"):
        os.utime(file, (1000, 1000))
    assert "trained anew" not in printed()
    for file in (
        *tmp_path.glob("base2new/train_base/*/*/*/*/seed2/result.json"),
        *tmp_path.glob("xd/test/shapescolours/*/*/*/*/result.json"),
    ):
        os.utime(file, (2000, 2000))
    assert printed().count("trained anew since, to be run again: TAC on Shapes, seed 2.") == 1
    (model,) = tmp_path.glob("xd/train/*/*/*/*/*/result.json")
    os.utime(model, (1500, 1500))
    assert "trained anew since, to be run again: TAC on ShapesTextures, seed 1." in printed()


def test_predictions_of_file_names_that_are_not_utf8(tmp_path):
    """Catches: a whole test that counts as damaged for one image of an old archive."""
    made_runs.base2new(tmp_path, "TAC", "Shapes", {1: (90.0, 70.0)})
    run = collect_runs(tmp_path).runs[0]
    (run.path / "predictions.csv").write_bytes(b"path,label,prediction,confidence\ncaf\xe9.jpg,0,1,0.5\n")
    assert run.record.predictions(run.path) == [("caf\\xe9.jpg", 0, 1, 0.5)]


# ---------------------------------------------------------------- published


def test_published_file():
    """Catches: a row without a source, of a method that has no trainer, a misprint: HMs and averages that do not
    recompute.
    """
    rows = list(csv.DictReader((CHECKOUT / "clusterprompt" / "results" / "published.csv").open()))
    trainers = {path.name for path in (CHECKOUT / "configs" / "trainers").iterdir()}
    assert {row["trainer"] for row in rows} <= trainers
    assert {row["protocol"] for row in rows} == set(all_protocols())
    assert all(row["source"] and row["backbone"] == "ViT-B/16" for row in rows)
    assert all("second-hand" in row["note"] for row in rows if row["trainer"] == "TAC")
    pairs = [row for row in rows if row["protocol"] == "base2new"]
    assert all(
        float(row["hm"]) == pytest.approx(slow_hm(float(row["base"]), float(row["new"])), abs=0.011) for row in pairs
    )
    for protocol, column in (
        ("base2new", "base"),
        ("base2new", "new"),
        ("cross_dataset", "accuracy"),
        ("domain_generalisation", "accuracy"),
    ):
        for trainer in {row["trainer"] for row in rows}:
            own = {
                row["dataset"]: float(row[column])
                for row in rows
                if (row["protocol"], row["trainer"]) == (protocol, trainer)
            }
            average = own.pop("Average", None)
            if protocol != "base2new":
                own.pop("ImageNet", None)
            if average and own and not (trainer == "MMA" and protocol == "base2new"):  # a row is left out, see the page
                assert average == pytest.approx(sum(own.values()) / len(own), abs=0.011), (protocol, trainer, column)


def test_difference_to_the_published_value(lines, printed, tmp_path):
    """Catches: ours minus theirs the wrong way round; a published value of other shots, another backbone, another
    average beside ours.
    """
    made_runs.base2new(tmp_path, "TAC", "Caltech101", {1: (99.57, 94.27)})
    made_runs.base2new(tmp_path, "TAC", "Caltech101", {1: (97.0, 90.0)}, shots=4)
    made_runs.base2new(tmp_path / "b32", "TAC", "Caltech101", {1: (97.0, 90.0)}, backbone="ViT-B/32")
    found = lines()
    row = found["Caltech101", "base", "TAC", "16", ""]
    assert (
        float(row["published"]) == 98.57 and float(row["difference"]) == pytest.approx(1.0) and "CAPT" in row["source"]
    )
    assert float(found["Caltech101", "new", "TAC", "16", ""]["difference"]) == pytest.approx(-1.0)
    assert (
        found["Caltech101", "base", "TAC", "4", ""]["published"]
        == ""
        == found["Caltech101", "base", "TAC", "16", "b32"]["published"]
    )
    text = printed()
    assert (
        re.search(r"published .*98.57 +95.27 +96.89", text)
        and re.search(r"difference .*\+1.00 +-1.00", text)
        and "second-hand" in text
    )


def test_published_average_needs_all_eleven(lines, tmp_path):
    """Catches: an average over some data sets compared with the papers' over eleven; zero-shot CLIP found under a
    number of shots only.
    """
    for name in ELEVEN[:-1]:
        made_runs.base2new(tmp_path, "ZeroshotCLIP", name, {1: (70.0, 70.0)})
    assert lines()["average", "base", "ZeroshotCLIP", "0", ""]["published"] == ""
    made_runs.base2new(tmp_path, "ZeroshotCLIP", ELEVEN[-1], {1: (70.0, 70.0)})
    row = lines()["average", "HM", "ZeroshotCLIP", "0", ""]
    assert float(row["published"]) == 71.70 and float(row["difference"]) == pytest.approx(-1.7)


def test_transfer_beside_the_published(lines, tmp_path):
    """Catches: names of data sets that do not meet (DescribableTextures, dtd; ImageNetV2, imagenetv2), the published
    average beside some targets'.
    """
    ours = dict.fromkeys((*ELEVEN, "ImageNetV2", "ImageNetSketch"), 60.0)
    made_runs.transfer(tmp_path, "CoOp", "ImageNet", ours)
    cross, domains = lines("--protocol", "cross_dataset"), lines("--protocol", "domain_generalisation")
    assert float(cross["ImageNet", "DescribableTextures", "CoOp", "16", ""]["published"]) == 41.92
    assert float(domains["ImageNet", "ImageNetV2", "CoOp", "16", ""]["published"]) == 64.20
    assert (
        cross["ImageNet", "average", "CoOp", "16", ""]["published"] == "63.88"
        and domains["ImageNet", "average", "CoOp", "16", ""]["published"] == ""
    )


def test_embedded_world_says_so(printed, tmp_path):
    """Catches: numbers of the drawn data that could be taken for real ones."""
    made_runs.base2new(tmp_path, "TAC", "Shapes", SEEDS, backbone="tiny")
    for name in ("text", "markdown", "latex"):
        assert "small synthetic world" in printed("--format", name)
    assert "published " not in printed().split("synthetic")[0]


# ------------------------------------------------------------------ formats


def test_formats_say_the_same(printed, lines, tmp_path):
    """Catches: a column shifted in one of the formats, another rounding, the best in bold in the wrong row."""
    made_runs.base2new(tmp_path, "CoOp", "Shapes", {1: (50.0, 61.0), 2: (51.0, 60.0)})
    made_runs.base2new(tmp_path, "TAC", "Shapes", SEEDS)
    numbers = {
        trainer: [
            f"{float(lines()['Shapes', column, trainer, '16', '']['mean']):.2f}"
            for column in ("base", "new", "HM", "mean of HMs")
        ]
        for trainer in ("CoOp", "TAC")
    }
    for name, split in (("text", r" {2,}"), ("markdown", r" *\| *"), ("latex", r" *& *|\\\\")):
        text = printed("--format", name)
        for trainer in numbers:
            (line,) = [line for line in text.splitlines() if line.strip("| ").startswith(trainer)]
            cells = [cell for cell in re.split(split, line.strip()) if cell.strip()][2:]
            assert [re.search(r"[\d.]+", cell).group() for cell in cells] == numbers[trainer]
            bold = [("**" in cell or "textbf" in cell) for cell in cells]
            assert not any(bold) if trainer == "CoOp" or name == "text" else all(bold)


def test_latex_and_markdown_escapes(printed, tmp_path):
    """Catches: names with _, %, & and | that break the table they stand in."""
    made_runs.base2new(tmp_path / "a_b & 5% {x}|$", "My_Trainer", "Data_Set#1", {1: (50.0, 60.0)})
    made_runs.base2new(tmp_path / "other", "My_Trainer", "Data_Set#1", {1: (50.0, 60.0)})
    latex = printed("--format", "latex")
    assert r"My\_Trainer & a\_b \& 5\% \{x\}\textbar{}\$ & 1" in latex and r"Data\_Set\#1" in latex
    (row,) = [line for line in printed("--format", "markdown").splitlines() if "5%" in line and line.startswith("|")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 8


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex here")
def test_latex_compiles(results, tmp_path, capsys):
    """Catches: what a look at the source does not show."""
    made_runs.base2new(tmp_path / "runs" / "a_b & c", "TAC", "Caltech101", SEEDS)
    made_runs.base2new(tmp_path / "runs", "TAC", "Caltech101", SEEDS)
    made_runs.transfer(tmp_path / "runs", "CoOp", "ImageNet", dict.fromkeys(ELEVEN, 60.0))
    assert results.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "tables.txt",
        "tables.md",
        "tables.tex",
        "tables.csv",
    }
    (tmp_path / "page.tex").write_text(
        r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs}\usepackage{graphicx}"
        r"\begin{document}\input{out/tables.tex}\end{document}"
    )
    ran = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0 and (tmp_path / "page.pdf").is_file(), ran.stdout[-2000:]


# ----------------------------------------------------------------- bad input


def test_what_cannot_be_used_is_named(printed, tmp_path):
    """Catches: one damaged file that ends it all, or that is passed over in silence; half a pair in a mean."""
    made_runs.base2new(tmp_path, "TAC", "Shapes", {1: (60.0, 62.0), 2: (10.0, 12.0), 3: (10.0, 12.0)})
    part = tmp_path / "base2new" / "train_base" / "shapes" / "shots_16" / "TAC" / "basetonovel"
    (part / "seed2" / "result.json").write_text('{"status": "fin')
    content = json.loads((part / "seed3" / "result.json").read_text())
    (part / "seed3" / "result.json").write_text(json.dumps({**content, "status": "training"}))
    made_runs.write(tmp_path / "nan", {**content, "accuracy": float("nan")})
    made_runs.write(tmp_path / "list", [1])
    made_runs.write(tmp_path / "short", {"status": "finished", "trainer": "TAC"})
    text = printed()
    assert (
        "60.00" in text
        and "10.00" not in text
        and re.search(r"damaged \(.*\): .*seed2", text)
        and re.search(r"Not finished, left out \(1\): .*seed3", text)
    )
    assert len(re.findall(r"without its base half: .*test_new.*seed[23]", text)) == 2
    assert "accuracy nan" in text and "no record of a run" in text and "without dataset, subsample" in text


@pytest.mark.parametrize(
    "words, message", [([], "no result.json below"), (["--protocol", "few_shot"], "there are runs of: base2new")]
)
def test_nothing_to_show(results, tmp_path, capsys, words, message):
    """Catches: a traceback, or an empty table, where there is nothing to show."""
    if words:
        made_runs.base2new(tmp_path, "TAC", "Shapes", SEEDS)
    assert results.main([str(tmp_path), *words]) == 2
    assert message in capsys.readouterr().err
    assert results.main([str(tmp_path / "missing")]) == 2
    assert "no such folder" in capsys.readouterr().err


# ------------------------------------------------------------ folders of others


def test_runs_of_a_host_go_by_content(rows, tmp_path):
    """Catches: runs that a host's checkout wrote to folders of its own, with data sets of its own, passed over or taken
    for few-shot.
    """
    host = tmp_path / "CoOp" / "evaluation"
    for seed in (1, 2):
        for part, accuracy in (("base", 80.0), ("new", 60.0)):
            content = made_runs.record("TAC", "HostPets", part, seed, accuracy + seed, root="/host/data")
            made_runs.write(host / "my_tac" / f"{part}-s{seed}", content)
    made_runs.write(tmp_path / "src", made_runs.record("TAC", "ImageNet", "all", 1, 70.0))
    made_runs.write(tmp_path / "tgt", made_runs.record("TAC", "HostPets", "all", 1, 50.0, trained_on="ImageNet"))
    found = {(row["protocol"], row["data"], row["column"]): float(row["mean"]) for row in rows()}
    assert found["base2new", "HostPets", "base"] == 81.5 and found["base2new", "HostPets", "new"] == 61.5
    assert found["cross_dataset", "ImageNet", "HostPets"] == 50 and found["cross_dataset", "ImageNet", "ImageNet"] == 70
    assert "few_shot" not in {protocol for protocol, *_ in found}


def test_some_folders_only(tmp_path):
    """Catches: a short table that counts runs nobody asked for, or that stops because one of them is not there yet."""
    made_runs.base2new(tmp_path, "TAC", "Shapes", SEEDS)
    asked = {folder.parent for folder in tmp_path.rglob("seed[12]/result.json")} | {tmp_path / "not yet"}
    assert {run.seed for run in collect_runs(tmp_path, only=asked).runs} == {1, 2}
    assert collect_runs(tmp_path, only={tmp_path / "not yet"}).runs == []


def test_default_folder(results, tmp_path, capsys, monkeypatch):
    """Catches: a command that asks for the folder although all runs are written to one place."""
    made_runs.base2new(tmp_path, "TAC", "Shapes", SEEDS)
    monkeypatch.setenv("OUTPUT", str(tmp_path))
    assert results.main([]) == 0 and "Base to new, Shapes" in capsys.readouterr().out


def test_tables_open_fast():
    """Catches: seconds of imports, of torch and what needs it, before a table."""
    code = "import sys, clusterprompt.commands.results as r; r.build_parser(); print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split())
    assert "clusterprompt.results.tables" in loaded
    assert not loaded & {"torch", "sklearn", "matplotlib", "dassl", "clip", "clusterprompt.trainers"}


# ------------------------------------------------------------- a new protocol

TOY = '''
from clusterprompt.record.protocols import Derived, Leg, Protocol
from clusterprompt.record.statistics import Summary


class Toy(Protocol):
    """Trained and tested on the rare classes only."""

    name = "toy"
    title = "Rare classes"
    convention = "Twice is twice the accuracy."
    order = 2.5
    headline = "twice"
    charts = ("bars",)

    def legs(self, request):
        return [Leg("toy/rare", request.dataset, "rare", request.shots, "rare")]

    def source_of(self, run):
        return run.dataset if run.classes == "rare" else None

    def column(self, dataset, classes, shots):
        return classes

    def derived(self, columns, data):
        return [Derived("twice", lambda values, interval: Summary(2 * sum(values["rare"].values()) / 2))]
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A protocol in a file of its own, and two runs of it."""
    (tmp_path / "protocol").mkdir()
    (tmp_path / "protocol" / "toy_protocol.py").write_text(TOY)
    monkeypatch.setattr(protocols, "__path__", [*protocols.__path__, str(tmp_path / "protocol")])
    for seed, accuracy in ((1, 20.0), (2, 30.0)):
        folder = Leg("toy/rare", "birds", "rare", 16, "").folder(tmp_path, "TAC", "toycfg", seed)
        made_runs.write(folder, made_runs.record("TAC", "Birds", "rare", seed, accuracy))
    yield tmp_path
    sys.modules.pop("clusterprompt.record.protocols.toy_protocol", None)
    vars(protocols).pop("toy_protocol", None)


def test_a_protocol_is_one_file(toy, printed, rows):
    """Catches: a protocol that needs a line in the tables, the formats or the command besides its own file."""
    table = printed()
    assert "Rare classes, Birds, 16 shots, ViT-B/16" in table and "Twice is twice the accuracy." in table
    assert re.search(r"method +seeds +rare +twice\n.*\nTAC +1, 2 +25.00 \+- 5.00 +50.00\n", table)
    (row, _) = rows("--protocol", "toy")
    assert (row["protocol"], row["column"], row["cfg"], float(row["mean"])) == ("toy", "rare", "toycfg", 25.0)


def test_charts_of_a_protocol(toy):
    """Catches: charts chosen by the names of known protocols."""
    pytest.importorskip("matplotlib")
    from clusterprompt.results.charts import main_charts

    (chart,) = main_charts(build(collect_runs(toy).runs, None)[0])
    assert chart.name == "toy_birds_twice" and "50.00" in chart.svg


ODD = {
    "a dot in a key": {"config": {"A.B": 1}},
    "config is text": {"config": "x"},
    "config nested deep": {"config": json.loads('{"a":' * 400 + "1" + "}" * 400)},
    "per_class is a list": {"per_class": [1, 2]},
    "per_class holds text": {"per_class": {"red star": "high"}},
    "learned_parameters is text": {"learned_parameters": "many"},
    "a number beyond bounds": {"shots": 10**400},
    "not a number": {"seconds_per_epoch": float("nan")},
    "seconds hold text": {"seconds": {"train": "long"}},
    "classnames hold numbers": {"classnames": [1, 2, 3]},
    "half a character": {"classnames": ["\ud800", "b", "c"]},
    "terminal codes in a name": {"backbone": "\x1b[2Jtiny"},
    "lines in a name": {"trainer": "TAC\nCoOp 99.9"},
    "versions hold a list": {"versions": {"torch": [2]}},
    "history without epochs": {"history": [{"loss": 1.0}]},
    "endless epoch": {"history": [{"epoch": 10**400, "loss": 1.0}]},
}


@pytest.mark.parametrize("case", ODD)
def test_one_odd_record_stops_nothing(case, printed, tmp_path):
    """Catches: one record of many, with one odd field, that ends the report of all runs in a traceback."""
    made_runs.base2new(tmp_path, "CoOp", "OxfordPets", {1: (90.0, 80.0), 2: (92.0, 82.0)})
    made_runs.base2new(tmp_path, "TAC", "OxfordPets", {1: (95.0, 85.0), 2: (95.0, 85.0)})
    odd = next(path for path in sorted(tmp_path.rglob("result.json")) if "TAC" in str(path))
    odd.write_text(json.dumps({**json.loads(odd.read_text()), **ODD[case]}))
    said = printed()
    assert (
        "91.00 +- 1.00" in said and f"damaged ({'odd' if 'odd ' in said else 'without'} {next(iter(ODD[case]))}" in said
    )
    assert str(odd) in said and "\x1b" not in said


@pytest.mark.parametrize("content", ["[" * 100_000, "{}", "null", '{"status": 1e999}'])
def test_damaged_files_stop_nothing(content, printed, tmp_path):
    """Catches: a traceback for a result.json that is nested without end; a pipe of that name that is waited for."""
    made_runs.base2new(tmp_path, "CoOp", "OxfordPets", {1: (90.0, 80.0)})
    for name in ("odd", "pipe"):
        (tmp_path / name).mkdir()
    (tmp_path / "odd" / "result.json").write_text(content)
    os.mkfifo(tmp_path / "pipe" / "result.json")
    said = printed()
    assert "90.00" in said and "Left out, damaged (n" in said and "not a regular file" in said


def test_names_stay_text(printed, tmp_path):
    """Catches: a link in a Markdown table, or a formula in a CSV, from the name of a folder or a backbone."""
    for trainer, backbone in (("CoOp", "![x](javascript:alert(1))"), ("TAC", "=cmd|' /C calc'!A0")):
        made_runs.base2new(tmp_path, trainer, "OxfordPets", {1: (90.0, 80.0)}, backbone=backbone)
    assert "!\\[x](javascript" in printed("--format", "markdown")
    assert not re.search(r"(?<!\\)\[x\]", printed("--format", "markdown"))
    rows = list(csv.DictReader(io.StringIO(printed("--format", "csv"))))
    assert {row["backbone"][:5] for row in rows} == {"![x](", "'=cmd"}
