"""The embedded world: what is drawn, and how it gets to disk."""

import io
import json
import multiprocessing
import os
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from clusterprompt.datasets import drawing, shapes
from clusterprompt.datasets.drawing import Figure, Style, draw, rng_for


class FewShapes(shapes.Shapes):
    """`Shapes` with few classes and images, so that a test need not draw them all."""

    folder = "few_shapes"
    names = shapes.BASE[:3] + shapes.NEW[:3]
    sizes = {"train": 4, "val": 2, "test": 2}


def config(root, **changes):
    """What a data set reads of a config."""
    values = dict(ROOT=str(root), NUM_SHOTS=2, SUBSAMPLE_CLASSES="base")
    dataset = SimpleNamespace(
        **{**values, **changes}, get=lambda key, default=None: {**values, **changes}.get(key, default)
    )
    return SimpleNamespace(DATASET=dataset, SEED=1, VERBOSE=False)


def test_drawing_is_fixed_by_dataset_split_and_index():
    """A picture must be the same in every process and differ between sets, splits and indices."""

    def pixels(*place):
        return np.asarray(draw(Figure("star", "red", "striped"), shapes.STYLE, rng_for(*place)))

    first = pixels("a", "train", 0)
    assert first.shape == (64, 64, 3) and first.dtype == np.uint8
    assert np.array_equal(first, pixels("a", "train", 0))
    others = [pixels("b", "train", 0), pixels("a", "test", 0), pixels("a", "train", 1)]
    assert all(np.abs(first.astype(int) - other).mean() > 5 for other in others)


@pytest.mark.parametrize("shape", drawing.SHAPES)
@pytest.mark.parametrize("texture", drawing.TEXTURES)
def test_figures_show(shape, texture):
    """In clean style a figure's colour must cover a fair part of the picture, and not all of it."""
    style = Style(jitter=0, noise=(0, 0), rotation=0)
    image = np.asarray(draw(Figure(shape, "red", texture), style, rng_for("t", "t", 0))).astype(int)
    share = (np.abs(image - drawing.COLOURS["red"]).sum(-1) < 60).mean()
    assert 0.02 < share < 0.6


@pytest.mark.parametrize("terminal", [True, False])
def test_drawing_tells_how_far_it_is(terminal, tmp_path, monkeypatch, caplog):
    """Catches: a minute of silence at the first run: no bar on a terminal, no line elsewhere, or a bar in a log."""
    stderr = io.StringIO()
    stderr.isatty = lambda: terminal
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setattr("os.get_terminal_size", lambda *_: os.terminal_size((0, 0)))  # as in containers
    with caplog.at_level("INFO"):
        FewShapes(config(tmp_path))
    assert "Drawing the 48 images of few_shapes" in caplog.text
    bar = stderr.getvalue().split("\r")[-1]
    assert ("drawing few_shapes: 100%" in bar and "48/48" in bar) if terminal else not bar


def test_unknown_texture():
    """The textures there are are listed."""
    with pytest.raises(ValueError, match="plain, striped"):
        draw(Figure("star", "red", "woolly"), Style(), rng_for("t", "t", 0))


def test_classes_are_spread_over_both_halves():
    """Base and new must both hold every colour, shape and texture: otherwise new classes would test words, not
    combinations.
    """
    assert len(set(shapes.CLASSES)) == 40
    for half in (shapes.BASE, shapes.NEW):
        textures, colours, figures = (Counter(name.split()[part] for name in half) for part in range(3))
        assert (
            set(textures) == set(drawing.TEXTURES)
            and set(colours) == set(drawing.COLOURS)
            and set(figures) == set(drawing.SHAPES)
        )


def test_selection_set_is_of_its_own():
    """Settings that are chosen on classes, pictures or a style of the test sets would be chosen by the tables."""
    sets = [cls for cls in vars(shapes).values() if isinstance(cls, type) and issubclass(cls, shapes.DrawnDataset)]
    others = [cls for cls in sets if cls.folder and not issubclass(cls, shapes.ShapesSelect)]
    few = shapes.SELECT_FEW
    chosen_by = {*shapes.ShapesSelect.names, *few}
    assert len(others) == 8 and all(chosen_by.isdisjoint(cls.names) for cls in others)
    assert all(cls.style != shapes.SELECT_STYLE and "select" not in cls.folder for cls in others)
    assert sorted(name.split()[1] for name in shapes.SELECT_FEW) == sorted(drawing.SHAPES)
    assert all({n.split()[0] for n in half} == set(drawing.TEXTURES) for half in (few[:6], few[6:]))
    for half in (shapes.SELECT_BASE, shapes.SELECT_NEW):
        assert sorted(name.split()[1] for name in half) == sorted(drawing.SHAPES)
        assert {name.split()[0] for name in half} == set(drawing.COLOURS)
    assert len({*shapes.SELECT_BASE, *shapes.SELECT_NEW}) == 24


def test_selection_set_validates_on_all_its_images(tmp_path, monkeypatch):
    """Settings are chosen by validation images: CoOp's 4 a class would leave the choice to chance."""
    monkeypatch.setattr(shapes.ShapesSelect, "sizes", {"train": 3, "val": 6, "test": 1})
    data = shapes.ShapesSelect(config(tmp_path, SUBSAMPLE_CLASSES="new"))
    assert data.classnames == list(shapes.SELECT_NEW) and len(data.train_x) == 12 * 2
    assert Counter(item.classname for item in data.val) == dict.fromkeys(shapes.SELECT_NEW, 6)


@pytest.mark.slow
def test_written_on_first_use_and_read_again(tmp_path):
    """The first use writes; the second must read the very same files; sizes and halves are as documented."""
    base = FewShapes(config(tmp_path))
    assert (
        len(base.train_x) == 6
        and len(base.val) == 6
        and len(base.test) == 6
        and base.classnames == list(shapes.BASE[:3])
    )
    stamp = (tmp_path / "few_shapes" / "split_shapes.json").stat().st_mtime_ns
    new = FewShapes(config(tmp_path, SUBSAMPLE_CLASSES="new"))
    assert new.classnames == list(shapes.NEW[:3])
    assert (tmp_path / "few_shapes" / "split_shapes.json").stat().st_mtime_ns == stamp
    assert Image.open(base.train_x[0].impath).format == "JPEG"
    assert [p.name for p in tmp_path.iterdir()] == ["few_shapes"], "a working folder is left over"


def test_full_size():
    """The documented sizes: enough for 16 shots, and 40 test images a class."""
    assert shapes.Shapes.sizes == {"train": 32, "val": 8, "test": 40} and len(shapes.Shapes.names) == 40


def prepare(root):
    """Entry point of a process of its own."""
    FewShapes(config(root))


@pytest.mark.slow
def test_two_runs_at_once(tmp_path):
    """Two processes that start together must both end with the complete set."""
    processes = [multiprocessing.get_context("fork").Process(target=prepare, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list((tmp_path / "few_shapes").rglob("*.jpg"))) == 6 * 8 and len(list(tmp_path.iterdir())) == 1


def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    """A half-written set must not be taken for a whole one."""
    calls = iter(range(10**6))

    def fail_later(*args):
        if next(calls) > 20:
            raise KeyboardInterrupt
        return draw(*args)

    monkeypatch.setattr(shapes, "draw", fail_later)
    with pytest.raises(KeyboardInterrupt):
        FewShapes(config(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_folder_in_the_way(tmp_path):
    """Somebody else's folder of that name is neither used nor removed."""
    (tmp_path / "few_shapes").mkdir()
    (tmp_path / "few_shapes" / "mine.txt").write_text("keep")
    with pytest.raises(OSError, match="remove it"):
        FewShapes(config(tmp_path))
    assert (tmp_path / "few_shapes" / "mine.txt").read_text() == "keep"


@pytest.mark.slow
@pytest.mark.parametrize(
    "cls", [shapes.ShapesOutline, shapes.ShapesNoise, shapes.ShapesBackground, shapes.ShapesLowRes]
)
def test_shifted_copies(cls, tmp_path, monkeypatch):
    """The classes of `Shapes` in another look, test images only."""
    monkeypatch.setattr(cls, "sizes", {"test": 1})
    shifted = cls(config(tmp_path, SUBSAMPLE_CLASSES="all", NUM_SHOTS=-1))
    assert shifted.classnames == list(shapes.CLASSES) and not shifted.val and len(shifted.test) == 40
    assert cls.folder != "shapes" and cls.style != shapes.STYLE
    assert set(json.loads((tmp_path / cls.folder / cls.split_file).read_text())) == {"test"}


@pytest.mark.parametrize(
    "cls, count", [(shapes.ShapesTextures, 4), (shapes.ShapesColours, 10), (shapes.ShapesCounts, 5)]
)
def test_cross_targets(cls, count, tmp_path, monkeypatch):
    """Classes that read differently from those of `Shapes`."""
    monkeypatch.setattr(cls, "sizes", {"train": 1, "val": 1, "test": 1})
    target = cls(config(tmp_path, SUBSAMPLE_CLASSES="all", NUM_SHOTS=-1))
    assert target.num_classes == count and set(target.classnames).isdisjoint(shapes.CLASSES) and "{}" in cls.template


@pytest.mark.slow
def test_pictures_of_another_version_are_refused(tmp_path):
    """Pictures drawn by an older version have the same names and give other numbers."""
    FewShapes(config(tmp_path))
    (tmp_path / "few_shapes" / "version.txt").write_text("0")
    with pytest.raises(ValueError, match="version 0, wanted"):
        FewShapes(config(tmp_path))


def test_colour_shift_keeps_greys():
    """Colours are turned about the grey axis; greys, and brightness, must stay."""
    shift = drawing._colour_shift(0.4, 0.3)
    assert np.allclose(shift @ np.full(3, 100.0), 100) and np.isclose((shift @ np.array([200.0, 50, 50])).sum(), 300)
