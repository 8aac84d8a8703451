"""A user's own images: folders and tables, the split that is made once, what is wrong with them, names and descriptions
of classes.
"""

import csv
import errno
import json
import os
import re
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clusterprompt.commands import train
from clusterprompt.datasets import own_images
from clusterprompt.datasets.image_csv import ImageCSV
from clusterprompt.datasets.image_folder import ImageFolder

CHECKOUT = Path(__file__).resolve().parents[2]
BLUEBIRD, GROWN, FRENCH = "blaue Meise", "Grünspecht", "Pic épeiche"
CLASSES = (BLUEBIRD, GROWN, FRENCH)
SPLIT = "split_clusterprompt.json"


def decomposed(text):
    """As macOS writes names of files."""
    return unicodedata.normalize("NFD", text)


def picture(path, mode="RGB", colour=120):
    """Write a small picture; its suffix says in which format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((20, 16), 60).point(lambda value: (value + colour) // 2).convert(mode).save(path)


def write_birds(root, classes=CLASSES, images=10):
    """Write folders of classes."""
    for number, name in enumerate(classes):
        for i in range(images):
            picture(root / name / f"photo {i}.jpg", colour=60 * number)
    return root


@pytest.fixture
def birds(tmp_path):
    """Three classes of ten images."""
    return write_birds(tmp_path / "my birds")


@pytest.fixture
def load(cfg_for):
    """A function that loads a folder or a table."""

    def load(place, **settings):
        dataset = {key: settings.pop(key) for key in ("CSV", "DESCRIPTIONS", "GREY_RANGE") if key in settings}
        table = str(place).endswith(".csv")
        cfg = cfg_for("/no/such/root" if table else place, **settings)
        for key, value in {**dataset, **({"CSV": str(place)} if table else {})}.items():
            cfg.DATASET[key] = value if key == "GREY_RANGE" else str(value)
        return (ImageCSV if table else ImageFolder)(cfg)

    return load


def names(items, root):
    return {os.path.relpath(item.impath, root) for item in items}


def sizes(dataset):
    return [len(part) for part in (dataset.train_x, dataset.val, dataset.test)]


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


# ------------------------------------------------------------------ folders


def test_odd_names_and_formats(tmp_path, load, caplog):
    """Catches: a suffix, a colour mode, a blank or an umlaut that is not taken; a damaged image taken, or left out
    without its name.
    """
    root = write_birds(tmp_path / "Vögel 2024", images=4)
    odd = root / decomposed(GROWN) if (root / decomposed(GROWN)).is_dir() else root / GROWN
    modes = {
        "a.png": "L",
        "b.PNG": "RGBA",
        "c.webp": "RGB",
        "d.JPG": "CMYK",
        "e.gif": "P",
        "f.bmp": "1",
        "g.TIF": "I;16",
        "im Nest/h.jpeg": "RGB",
    }
    for name, mode in modes.items():
        if mode == "I;16":
            (odd / "im Nest").mkdir(parents=True, exist_ok=True)
            Image.fromarray((np.arange(320).reshape(16, 20) * 200).astype("uint16")).save(odd / name)
        else:
            picture(odd / name, mode)
    whole = (root / BLUEBIRD / "photo 1.jpg").read_bytes()
    (root / BLUEBIRD / "photo 1.jpg").write_bytes(whole[: len(whole) // 2])
    (root / FRENCH / "no image.png").write_text("<html>")
    (root / FRENCH / "._photo 1.jpg").write_text("macOS")
    (root / FRENCH / "Thumbs.db").write_text("Windows")
    (root / ".git").mkdir()
    with caplog.at_level("INFO"):
        dataset = load(root)
    assert dataset.classnames == [GROWN, FRENCH, BLUEBIRD]  # sorted: capitals first
    used = [name for part in (dataset.train_x, dataset.val, dataset.test) for name in names(part, root)]
    assert len(used) == 3 * 4 + len(modes) - 1
    assert all(os.path.join(odd.name, *name.split("/")) in used for name in modes)
    (said,) = [message for message in caplog.messages if "Damaged" in message]
    assert (
        "(2)" in said and f"{BLUEBIRD}/photo 1.jpg (" in said and f"{FRENCH}/no image.png (not an image (JPEG, " in said
    )
    assert [row[0] for row in read(root / SPLIT)["damaged"]] == [f"{FRENCH}/no image.png", f"{BLUEBIRD}/photo 1.jpg"]
    assert "1 *.db" in caplog.text
    caplog.clear()
    load(root)
    assert "photo 1.jpg" in caplog.text  # later runs say it, too
    (root / FRENCH / "no image.png").unlink()
    load(root)  # a damaged image may go


def test_a_pipe_is_left_out(tmp_path, load, caplog):
    """Catches: a named pipe among the images, at which the first run hangs for ever."""
    root = write_birds(tmp_path / "birds")
    os.mkfifo(root / BLUEBIRD / "pipe.png")
    assert len(load(root).classnames) == 3 and "pipe.png (not a regular file)" in caplog.text


def test_floating_images_need_a_range(tmp_path, load):
    """Catches: all images black, or all left out as damaged, where black and white are not known."""
    root = write_birds(tmp_path / "birds")
    Image.fromarray(np.ones((8, 8), np.float32)).save(root / BLUEBIRD / "a.tif")
    with pytest.raises(ValueError, match=r"1 of 31 images, first .*a\.tif: holds floating-point .*DATASET.GREY_RANGE"):
        load(root)
    assert not (root / SPLIT).exists()
    load(root, GREY_RANGE=[0, 1])
    assert not read(root / SPLIT)["damaged"]


def test_classes_called_by_numbers(tmp_path, load, caplog):
    """Catches: class names that say nothing to CLIP, without a hint at classes.txt."""
    load(write_birds(tmp_path / "birds", ["0", "1", "02"]))
    assert "All class names are numbers (0, 02, 1)" in caplog.text and "classes.txt" in caplog.text


def test_decomposed_umlauts(tmp_path, load):
    """Catches: class names or a split of macOS that do not match on another disk."""
    root = write_birds(tmp_path / "birds", [decomposed(GROWN), "Amsel"])
    (root / "classes.txt").write_text(f"{GROWN} = green woodpecker\n", encoding="utf-8")
    first = load(root)
    assert first.classnames == ["green woodpecker", "Amsel"]
    split = read(root / SPLIT)
    for rows in split.values():
        for row in rows:
            row[0] = unicodedata.normalize("NFC", row[0])
    (root / SPLIT).write_text(json.dumps(split), encoding="utf-8")
    assert names(load(root).train_x, root) == names(first.train_x, root)
    write_birds(root, [GROWN])
    if len(os.listdir(root)) == 5:  # this disk keeps both spellings apart
        with pytest.raises(ValueError, match="10 names occur in both"):
            load(root)


def test_split_is_the_same_everywhere_and_written_once(birds, tmp_path, load, caplog):
    """Catches: a split that depends on place, seed, order on disk or other classes; an own seed that moves it; a split
    made twice.
    """
    with caplog.at_level("INFO"):
        first = load(birds)
    assert "this split was written to" in caplog.text and SPLIT in caplog.text
    assert sizes(first) == [15, 6, 9]
    for part, size in (("train", 5), ("val", 2), ("test", 3)):
        assert Counter(row[1] for row in read(birds / SPLIT)[part]) == {0: size, 1: size, 2: size}
    before = (birds / SPLIT).stat().st_mtime_ns
    again = load(birds, seed=2)
    assert (birds / SPLIT).stat().st_mtime_ns == before
    other = write_birds(tmp_path / "elsewhere", ["Amsel", *reversed(CLASSES)])
    moved = load(other, seed=3)
    for part in ("train_x", "val", "test"):
        assert names(getattr(first, part), birds) == names(getattr(again, part), birds)
        assert names(getattr(first, part), birds) == {
            name for name in names(getattr(moved, part), other) if not name.startswith("Amsel")
        }
    parts = [names(part, birds) for part in (first.train_x, first.val, first.test)]
    assert len(set.union(*parts)) == 30
    assert not [name for name in os.listdir(birds) if name.startswith(".")]


@pytest.mark.parametrize(
    "images, expected", [(3, [1, 1, 1]), (4, [2, 1, 1]), (5, [2, 1, 2]), (7, [4, 1, 2]), (20, [10, 4, 6])]
)
def test_small_classes(tmp_path, load, images, expected):
    """Catches: a class without training or test image after rounding."""
    assert sizes(load(write_birds(tmp_path, ["Amsel", "Drossel"], images))) == [2 * size for size in expected]


def test_too_few_images(tmp_path, load):
    """Catches: a class that cannot be tested; damaged images counted; the split written all the same."""
    root = write_birds(tmp_path, images=3)
    (root / GROWN / "photo 0.jpg").write_text("")
    with pytest.raises(ValueError, match=rf"(?s)Too few images in 1 of 3 classes of .*: '{GROWN}' \(2\).*photo 0\.jpg"):
        load(root)
    assert not (root / SPLIT).exists()


def test_base_and_new_and_shots(birds, load):
    """Catches: halves or few-shot samples that own images do not have; a shortage that does not say which number would
    do.
    """
    base, new = (load(birds, shots=2, subsample=half) for half in ("base", "new"))
    assert base.classnames + new.classnames == sorted(CLASSES)
    assert [sizes(base), sizes(new)] == [[4, 4, 6], [2, 2, 3]]
    with pytest.raises(ValueError, match="NUM_SHOTS 16 .*Lower it to 5"):
        load(birds, shots=16)


def test_changed_folder(birds, load):
    """Catches: a silent new split, images that are silently not used, a message that does not name them or says no way
    out.
    """
    load(birds)
    before = (birds / SPLIT).read_bytes()
    picture(birds / GROWN / "late.jpg")
    picture(birds / "Amsel" / "photo 1.jpg")
    gone = birds / BLUEBIRD / "photo 3.jpg"
    gone.unlink()
    with pytest.raises(ValueError, match="new images: 2") as said:
        load(birds)
    for words in (
        f"{GROWN}/late.jpg",
        "Amsel/photo 1.jpg",
        f"missing images: 1 ({BLUEBIRD}/photo 3.jpg)",
        SPLIT,
        "delete the file",
    ):
        assert words in str(said.value)
    assert (birds / SPLIT).read_bytes() == before
    (birds / SPLIT).unlink()
    for i in range(2, 4):
        picture(birds / "Amsel" / f"photo {i}.jpg")
    assert load(birds).num_classes == 4


def test_folder_that_cannot_be_written(birds, load, monkeypatch, tmp_path, caplog):
    """Catches: data on a read-only disk that cannot be used, or are split again by every run; another disk error taken
    for that.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    original = own_images.write_split

    def refuse(content, path):
        if path.startswith(str(birds)):
            raise PermissionError(errno.EROFS, "Read-only file system")
        original(content, path)

    monkeypatch.setattr(own_images, "write_split", refuse)
    with caplog.at_level("INFO"):
        first = load(birds)
    assert "goes into your cache" in caplog.text and not (birds / SPLIT).exists()
    (written,) = (tmp_path / "cache").rglob(SPLIT)
    assert str(written) in caplog.text
    before = written.stat().st_mtime_ns
    assert names(load(birds).test, birds) == names(first.test, birds) and written.stat().st_mtime_ns == before
    written.unlink()
    monkeypatch.setattr(
        own_images, "write_split", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left"))
    )
    with pytest.raises(OSError, match="No space"):
        load(birds)


def test_interrupted_writing(birds, load, monkeypatch):
    """Catches: half a split file, read by the next run, or left beside the images."""
    monkeypatch.setattr("clusterprompt.record.files.os.replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load(birds)
    assert sorted(os.listdir(birds)) == sorted(CLASSES)


@pytest.mark.parametrize("content", ['{"train": [', "{}", '{"train": [], "val": [], "test": [], "damaged": ["a.jpg"]}'])
def test_damaged_split(birds, load, content):
    """Catches: a traceback, or advice to download what only this program writes."""
    (birds / SPLIT).write_text(content)
    with pytest.raises(ValueError, match=f"{SPLIT} is damaged.*Delete it"):
        load(birds)


def test_names_of_old_archives(birds, load):
    """Catches: umlauts in Latin-1, which no JSON can hold, as a UnicodeEncodeError without a name."""
    try:
        os.rename(os.fsencode(birds / BLUEBIRD), os.fsencode(birds) + b"/M\xf6we")
    except OSError:
        pytest.skip("this disk takes UTF-8 only")
    with pytest.raises(ValueError, match=r"10 names .* not UTF-8.*M\\udcf6we"):
        load(birds)


@pytest.mark.parametrize("val", [None, "valid"])
def test_given_parts(tmp_path, load, val):
    """Catches: train and test taken for classes, images moved between the user's parts, test images that validate."""
    root = tmp_path
    for part, images in (("train", 4), ("Test", 3), (val, 2)):
        if part:
            write_birds(root / part, images=images)
    dataset = load(root)
    assert dataset.classnames == sorted(CLASSES)
    assert sizes(dataset) == [12, 6 if val else 0, 9]
    assert all(name.startswith("Test") for name in names(dataset.test, root))
    (root / "train" / GROWN / "photo 0.jpg").rename(root / "Test" / GROWN / "photo 9.jpg")
    with pytest.raises(ValueError, match="have changed"):
        load(root)


def broken_folders(root):
    """Folders that cannot be used: (what to write, what is said)."""

    def parts(*names):
        return lambda: [write_birds(root / name, ["Amsel", "Drossel"], 1) for name in names]

    def class_of_test():
        parts("train", "test")()
        write_birds(root / "test", ["Star"], 1)

    def of_heic():
        write_birds(root, ["Amsel", "Drossel"], 3)
        (root / "Star").mkdir()
        (root / "Star" / "a.HEIC").write_text("")

    def of_sets():
        write_birds(root / "caltech-101", ["images"], 1)
        (root / "caltech-101" / "split_zhou_Caltech101.json").write_text("{}")

    return {
        "no root": (lambda: root.rmdir(), "Folder of images not found.*--root"),
        "empty": (lambda: None, r"No folder of a class.*docs/own_images\.md"),
        "one class": (lambda: write_birds(root, ["Amsel"], 3), "only one class in .*, 'Amsel'"),
        "no test": (parts("train", "val"), "no folder 'test'"),
        "two vals": (parts("train", "test", "val", "valid"), "more than one folder of val images: val, valid"),
        "parts and classes": (parts("train", "test", "Amsel"), "also Amsel"),
        "class without training": (class_of_test, r"'Star' \(1\); every class needs an image to train on"),
        "no image": (of_heic, r"'Star' \(it holds \*\.heic\)"),
        "data sets": (of_sets, "holds whole data sets .*split_zhou_Caltech101"),
        "same name": (lambda: write_birds(root, ["sea_horse", "Sea Horse"], 3), "'Sea Horse' and 'sea_horse'"),
    }


@pytest.mark.parametrize("what", broken_folders(None))
def test_folders_that_cannot_be_used(tmp_path, load, what):
    """Catches: numbers of nothing, or a traceback, where something is missing or can be understood in two ways."""
    write, message = broken_folders(tmp_path)[what]
    write()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load(tmp_path)
    assert not (tmp_path / SPLIT).exists()


def test_a_class_may_be_called_train(tmp_path, load):
    """Catches: vehicles taken for parts."""
    assert load(write_birds(tmp_path, ["train", "car"], 3)).classnames == ["car", "train"]


# ------------------------------------------------------------------ names of classes


def test_classes_file(birds, load):
    """Catches: names, their order, comments or blank lines not understood; a change after the split that goes
    unnoticed.
    """
    text = f"\ufeff# my birds\n\n{FRENCH} = great spotted woodpecker\n  {GROWN}  \n"
    (birds / "classes.txt").write_text(text, encoding="utf-8")
    first = load(birds)
    assert first.classnames == ["great spotted woodpecker", GROWN, BLUEBIRD]
    (birds / "classes.txt").unlink()
    with pytest.raises(ValueError, match="another name or number of the class: 20"):
        load(birds)
    (birds / SPLIT).unlink()
    plain = load(birds)
    assert names(plain.train_x, birds) == names(first.train_x, birds)  # other names, the same images


@pytest.mark.parametrize(
    "line, message",
    [
        ("Grünspech = x", "line 2: there is no class 'Grünspech'. Did you mean 'Grünspecht'"),
        (f"{BLUEBIRD} = y", "line 2: 'blaue Meise' has a line already"),
        (f"{GROWN} = ", "gets no name"),
        (f"{GROWN} = Blue_tit", "same name for CLIP: 'blaue Meise' and 'Grünspecht'"),
    ],
)
def test_bad_classes_file(birds, load, line, message):
    """Catches: a line without effect, or two classes that no text tells apart."""
    (birds / "classes.txt").write_text(f"{BLUEBIRD} = blue tit\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load(birds)


# ------------------------------------------------------------------ descriptions


@pytest.mark.parametrize(
    "change, message",
    [
        ({}, None),
        ({"blaue Meise": None}, "no description for 1 of 3 classes: 'blaue Meise' .closest: blau Meise"),
        ({"Amsel": ["black."]}, "describes 1 that are no class of the data: 'Amsel'"),
        ({GROWN: []}, f"{GROWN}' .an empty list"),
        ({GROWN: "green."}, f"{GROWN}' .not a list but a str"),
        ({GROWN: ["green.", 3]}, f"{GROWN}' .not all of it sentences"),
    ],
)
def test_descriptions(birds, load, tmp_path, change, message):
    """Catches: a misspelt class found hours later, or by a traceback; names in another Unicode form not found."""
    table = {BLUEBIRD: ["blue."], decomposed(GROWN): ["green."], FRENCH: ["black and white."], **change}
    if change.get(BLUEBIRD, ()) is None:
        table["blau Meise"] = table.pop(BLUEBIRD) or ["blue."]
    if GROWN in change:
        table.pop(decomposed(GROWN))
    (tmp_path / "d.json").write_text(json.dumps(table), encoding="utf-8")
    if message is None:
        assert load(birds, DESCRIPTIONS=tmp_path / "d.json", subsample="base").num_classes == 2
        assert load(birds, DESCRIPTIONS="templates", subsample="base").num_classes == 2  # no file of that name
    else:
        with pytest.raises(ValueError, match=message):
            load(birds, DESCRIPTIONS=tmp_path / "d.json", subsample="base")


# ------------------------------------------------------------------ tables


def write_table(folder, rows, header=("path", "label"), name="labels.csv", encoding="utf-8", delimiter=","):
    with open(folder / name, "w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return folder / name


def listed(birds):
    return [[path.relative_to(birds).as_posix(), path.parent.name] for path in sorted(birds.glob("*/*.jpg"))]


@pytest.mark.parametrize(
    "form", [{}, {"encoding": "utf-8-sig", "delimiter": ";"}, {"delimiter": "\t", "header": (" Path", "LABEL ")}]
)
def test_table(birds, load, form):
    """Catches: a spreadsheet's file that is not understood; another split than that of the same folders."""
    table = write_table(birds, listed(birds), **form)
    dataset = load(table)
    assert dataset.classnames == sorted(CLASSES) and sizes(dataset) == [15, 6, 9]
    assert (birds / "split_clusterprompt_labels.json").is_file()
    assert names(dataset.test, birds) == names(load(birds).test, birds)


def test_table_with_split(birds, load, tmp_path):
    """Catches: the user's split not kept; paths of Windows, of elsewhere, or in another Unicode form not found; a
    changed table unnoticed.
    """
    rows = [[path, label, ("train", "Training", "val", "TEST")[i % 4]] for i, (path, label) in enumerate(listed(birds))]
    rows[0][0] = str(birds / rows[0][0])
    rows[1][0] = decomposed(rows[1][0]).replace("/", "\\")
    (tmp_path / "lists").mkdir()
    for row in rows[2:]:
        row[0] = f"../my birds/{row[0]}"
    rows[1][0] = f"..\\my birds\\{rows[1][0]}"
    header = ("path", "label", "split")
    table = write_table(tmp_path / "lists", rows, header)
    dataset = load(table)
    assert sizes(dataset) == [16, 7, 7]
    (tmp_path / "lists" / "classes.txt").write_text(f"{GROWN} = green woodpecker", encoding="utf-8")
    with pytest.raises(ValueError, match="another name or number of the class: 10"):
        load(table)
    (tmp_path / "lists" / "classes.txt").unlink()
    rows[0][2] = "test"
    write_table(tmp_path / "lists", rows, header)
    with pytest.raises(ValueError, match="another part: 1 "):
        load(table)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "columns path, label"),
        ("file,label\na.jpg,x\n", "lacks path: 'file,label'"),
        ("path,label,Label\na.jpg,x,3\n", "the column label more than once"),
        ("path,label\n", "lists no image"),
        ("path,label\nA/photo 0.jpg,A\nA/photo 1.jpg,A\nA/photo 2.jpg,A\n", "only one class in .*, 'A'"),
        ("path,label\nA/photo 0.jpg,A\nA/none.jpg,A\n", r"1 of 2 images do not exist: A/none.jpg \(line 3\)"),
        (
            "path,label\nA/photo 0.jpg,A\nB/photo 0.jpg,B\nA/../A/photo 0.jpg,B\n",
            "line 4: .* is already listed in line 2",
        ),
        ("path,label\nA/photo 0.jpg,\n", "line 2: no label"),
        ("path,label\nA/photo 0.jpg,tit, blue\n", "line 2: more fields than columns"),
        ("path,label,split\nA/photo 0.jpg,A,train\nB/photo 0.jpg,B,trial\n", "line 3: the split is 'trial'"),
        ("path,label,split\nA/photo 0.jpg,A,train\nB/photo 0.jpg,B,\n", "line 3: the split is ''"),
        ("path,label,split\nA/photo 0.jpg,A,train\nB/photo 0.jpg,B,train\n", "No image to test on"),
        (
            "path,label,split\nA/photo 0.jpg,A,train\nB/photo 0.jpg,B,test\n",
            r"'B' \(1\); every class needs an image to train on",
        ),
        ("path,label\nA/photo 0.jpg,Grün\n".encode("latin-1"), "not UTF-8"),
    ],
)
def test_bad_table(tmp_path, load, text, message):
    """Catches: an error without file, line or name; a row without effect."""
    write_birds(tmp_path, ["A", "B"], 3)
    (tmp_path / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises((ValueError, FileNotFoundError), match=message) as said:
        load(tmp_path / "labels.csv")
    assert str(tmp_path) in str(said.value)
    assert not list(tmp_path.glob("split_*"))


def test_no_table(tmp_path, load, cfg_for):
    """Catches: a table that is not named, or not there."""
    with pytest.raises(FileNotFoundError, match="none.csv .DATASET.CSV"):
        load(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="DATASET.CSV is empty"):
        ImageCSV(cfg_for(tmp_path))


# ------------------------------------------------------------------ runs


@pytest.fixture
def base2new(monkeypatch, clip_file, tmp_path):
    """`clusterprompt base2new` in an environment for a run of a second."""
    for key, value in {"BACKBONE": clip_file, "EPOCHS": 1, "SHOTS": 2, "OUTPUT": tmp_path / "out", "DATA": ""}.items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.delenv("CFG", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    from clusterprompt.commands import base2new

    return base2new


def write_yaml(path, **settings):
    path.write_text(
        "DATASET:\n" + "".join(f"  {key}: {json.dumps(str(value))}\n" for key, value in settings.items()),
        encoding="utf-8",
    )
    return path


@pytest.mark.slow
def test_a_yaml_of_ones_own(birds, base2new, tmp_path, capsys, monkeypatch):
    """Catches: a yaml outside of the checkout, its root, its template or its descriptions without effect; another
    folder's results passed off.
    """
    monkeypatch.setenv("BACKBONE", "tiny")
    (tmp_path / "d.json").write_text(json.dumps({name: [f"{name}, a bird."] for name in CLASSES}), encoding="utf-8")
    template = "a photo of a {}, a type of bird."
    own = write_yaml(
        tmp_path / "mybirds.yaml", NAME="ImageFolder", ROOT=birds, TEMPLATE=template, DESCRIPTIONS=tmp_path / "d.json"
    )
    words = ["--trainer", "TAC", "--dataset", str(own), "--seed", "1", "DATALOADER.NUM_WORKERS", "0"]
    assert base2new.main(words) == 0
    said = capsys.readouterr().out
    assert re.search(r"TAC +mybirds +1( +\d+\.\d\d){3}", said)  # base, new, HM
    run = tmp_path / "out" / "base2new" / "train_base" / "mybirds" / "shots_2" / "TAC" / "basetonovel" / "seed1"
    result = read(run / "result.json")
    assert result["classnames"] == [GROWN, FRENCH] and result["n_test"] == 6
    assert result["config"]["DATASET"]["TEMPLATE"] == template
    assert "hand-written templates" not in said  # the descriptions were used
    assert base2new.main([*words[:-2], "--root", str(write_birds(tmp_path / "others")), *words[-2:]]) == 2
    assert "DATASET.ROOT" in capsys.readouterr().err


def zero_shot(root, output, *more):
    """The command line of a zero-shot test of a folder of images."""
    return [
        "--trainer",
        "ZeroshotCLIP",
        "--config-file",
        "configs/trainers/ZeroshotCLIP/basetonovel.yaml",
        "--dataset-config-file",
        "configs/datasets/image_folder.yaml",
        "--root",
        str(root),
        "--eval-only",
        "--backbone",
        os.environ["BACKBONE"],
        "--output-dir",
        str(output),
        "DATALOADER.NUM_WORKERS",
        "0",
        *more,
    ]


def root_of(words):
    """The data root that a command line of `clusterprompt train` takes."""
    from clusterprompt.running.train import make_cfg

    return make_cfg(train.train_options(train.parse(words))).DATASET.ROOT


def test_root_of_a_yaml(tmp_path, monkeypatch):
    """Catches: a yaml's root lost to DATA or data/, or stronger than --root."""
    monkeypatch.setenv("DATA", "/from/environment")
    yaml = write_yaml(tmp_path / "mine.yaml", NAME="ImageFolder", ROOT="/from/yaml")
    words = [
        "--trainer",
        "CoOp",
        "--config-file",
        "configs/trainers/CoOp/basetonovel.yaml",
        "--dataset-config-file",
        str(yaml),
    ]
    assert root_of(words) == "/from/yaml"
    assert root_of([*words, "--root", "/from/option"]) == "/from/option"
    write_yaml(yaml, NAME="ImageFolder")
    assert root_of(words) == "/from/environment"


@pytest.mark.parametrize(
    "template, works", [("a {} bird.", True), ("a bird.", False), ("a {name}.", False), ("{} or {}", False)]
)
def test_template(birds, base2new, capsys, template, works, tmp_path):
    """Catches: a template of the config without effect, or one that fails deep inside."""
    words = zero_shot(birds, tmp_path / "zs", "DATASET.TEMPLATE", template)
    assert train.main(words) == (0 if works else 2)
    if works:
        assert read(tmp_path / "zs" / "result.json")["template"] == template
    else:
        assert "a sentence that holds {} once" in capsys.readouterr().err


def test_an_image_that_breaks_later(birds, base2new, capsys):
    """Catches: a file that was fine when the split was made, broke since, and is not named."""
    words = zero_shot(birds, birds.parent / "o")
    train.main([*words, "--no-train"])
    for path in (birds / GROWN).iterdir():
        path.write_bytes(path.read_bytes()[:300])
    assert train.main([*words, "--overwrite"]) == 2
    assert f"{GROWN}{os.sep}photo" in capsys.readouterr().err
