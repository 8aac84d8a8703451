"""The embedded world: small drawn data sets, written below the data root on first use.

`Shapes` is the main one; four shifted copies of its classes are for domain generalisation, three sets whose classes
read differently for cross-dataset evaluation. `ShapesSelect` and `ShapesSelectFew` are for choosing settings, so that
no table's images are looked at for it. A small synthetic world that exercises the code: not a benchmark.
"""

import json
import logging
import os
import shutil
from dataclasses import replace

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..record.scratch import scratch_folder
from .base import PromptDataset
from .drawing import COLOURS, SHAPES, TEXTURES, Figure, Style, draw, rng_for

logger = logging.getLogger(__name__)

# Unlike the clean drawings that the embedded CLIP was pretrained on: colours are turned and washed out, textures are
# wider, and a bad camera adds blur, noise and blotches. The first three are the same in all pictures, so there is
# something to learn that new classes share.
STYLE = Style(
    radius=(14, 24),
    rotation=35,
    jitter=20,
    clutter=0.15,
    hue=(20, 28),
    wash=0.3,
    weave=1.4,
    blotches=(8, 30),
    gain=(0.65, 1),
    blur=(0.2, 0.8),
    noise=(8, 22),
)
# Of the set that settings are chosen by: colours turned the other way, narrower textures, more blur, less noise.
SELECT_STYLE = Style(
    radius=(13, 26),
    rotation=45,
    jitter=18,
    clutter=0.3,
    hue=(-24, -16),
    wash=0.35,
    weave=0.8,
    blotches=(15, 40),
    gain=(0.7, 1),
    blur=(0.6, 1.1),
    noise=(4, 16),
)
# Raise it whenever a picture changes: pictures of two versions give different numbers under the same names.
VERSION = "1"
NUMBERS = ("one thing", "two things", "three things", "four things", "five things")


# Drawn by lot among all combinations so that each half holds every texture 5 times, every colour twice, every shape
# once or twice.
BASE = (
    "striped yellow star",
    "striped brown pentagon",
    "dotted white diamond",
    "striped yellow ring",
    "plain cyan crescent",
    "dotted purple star",
    "plain cyan triangle",
    "dotted brown ring",
    "checkered purple heart",
    "striped red diamond",
    "dotted green triangle",
    "dotted red heart",
    "striped blue pentagon",
    "plain white arrow",
    "checkered pink cross",
    "checkered pink arrow",
    "plain orange crescent",
    "plain orange hexagon",
    "checkered green circle",
    "checkered blue square",
)
NEW = (
    "checkered pink ring",
    "checkered brown pentagon",
    "plain brown heart",
    "checkered red star",
    "checkered orange ring",
    "dotted blue triangle",
    "dotted purple diamond",
    "checkered pink triangle",
    "plain yellow pentagon",
    "striped yellow arrow",
    "striped cyan circle",
    "striped green cross",
    "striped white arrow",
    "dotted orange circle",
    "dotted white square",
    "striped purple crescent",
    "dotted blue hexagon",
    "plain cyan heart",
    "plain green hexagon",
    "plain red diamond",
)
CLASSES = BASE + NEW
# Drawn by lot so that each half holds every shape once and every colour once or twice.
SELECT_BASE = (
    "orange ring",
    "white triangle",
    "purple cross",
    "blue arrow",
    "green square",
    "yellow crescent",
    "white pentagon",
    "purple diamond",
    "pink hexagon",
    "brown star",
    "cyan circle",
    "red heart",
)
SELECT_NEW = (
    "orange arrow",
    "purple triangle",
    "pink pentagon",
    "white circle",
    "brown square",
    "blue heart",
    "green cross",
    "red star",
    "blue crescent",
    "green diamond",
    "yellow ring",
    "cyan hexagon",
)


# Each half holds every texture, and both together every shape once.
SELECT_FEW = (
    "striped ring",
    "plain arrow",
    "dotted cross",
    "checkered star",
    "striped pentagon",
    "dotted heart",
    "checkered triangle",
    "plain circle",
    "striped square",
    "dotted diamond",
    "plain crescent",
    "checkered hexagon",
)


class DrawnDataset(PromptDataset):
    """A data set that draws itself.

    Attributes:
        names: Class names in order of their labels; the first half is base.
        sizes: Images of a class in each split.
        style: How hard it is to see.
    """

    images = "images"
    drawn = True
    names: tuple[str, ...] = ()
    sizes = {"train": 32, "val": 8, "test": 40}
    style = STYLE

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.n_classes = len(cls.names)
        cls.counts = {part: len(cls.names) * size for part, size in cls.sizes.items()}

    @classmethod
    def figure(cls, classname: str, rng: np.random.Generator) -> Figure:
        """Return the content of a picture of a class; what the class leaves open is drawn by lot."""
        raise NotImplementedError

    @classmethod
    def picture(cls, classname: str, split: str, index: int) -> Image.Image:
        """Draw one picture; it is fixed by data set, class, split and index."""
        rng = rng_for(cls.folder, f"{split}/{classname}", index)
        return draw(cls.figure(classname, rng), cls.style, rng)

    def prepare(self, root_dir: str) -> None:
        """Write images and split file unless they are there; all or nothing, and safe when two runs start at once."""
        target = os.path.join(root_dir, self.folder)
        if os.path.isfile(os.path.join(target, self.split_file)):
            self._check_version(target)
            return
        os.makedirs(root_dir, exist_ok=True)
        logger.info(
            "Drawing the %d images of %s into %s (once; takes up to a minute)",
            len(self.names) * sum(self.sizes.values()),
            self.folder,
            target,
        )
        try:
            with scratch_folder(root_dir, f".{self.folder}-") as work:
                self._write(str(work))
                os.chmod(work, 0o755)  # a scratch folder is for its owner alone
                os.rename(work, target)
        except OSError as error:
            if not os.path.isfile(os.path.join(target, self.split_file)):  # no other run was faster
                raise OSError(
                    f"{target} cannot be written ({error.strerror}); if it is left over from something else, remove it"
                ) from error

    def _check_version(self, folder: str) -> None:
        """Raise ValueError unless this version of the program drew the images."""
        try:
            with open(os.path.join(folder, "version.txt"), encoding="utf-8") as file:
                version = file.read().strip()
        except FileNotFoundError:
            version = "none"
        if version != VERSION:
            raise ValueError(
                f"{folder} was drawn by another version of this program (version {version}, wanted {VERSION}); its "
                "numbers would not "
                "compare. Remove that folder and it is drawn again, or name another data root"
            )

    def _write(self, folder: str) -> None:
        """Draw all images, and write the split file."""
        split: dict[str, list] = {part: [] for part in self.sizes}
        jobs = [
            (label, name, part, i)
            for label, name in enumerate(self.names)
            for part, size in self.sizes.items()
            for i in range(size)
        ]
        columns = shutil.get_terminal_size().columns  # tqdm shows nothing on a terminal that does not know its width
        for label, name, part, i in tqdm(jobs, f"drawing {self.folder}", disable=None, ncols=columns, unit="image"):
            path = f"{name.replace(' ', '_')}/{part}_{i:03d}.jpg"
            os.makedirs(os.path.join(folder, self.images, os.path.dirname(path)), exist_ok=True)
            self.picture(name, part, i).save(os.path.join(folder, self.images, path), quality=90)
            split[part].append([path, label, name])
        with open(os.path.join(folder, "version.txt"), "w", encoding="utf-8") as file:
            file.write(VERSION)
        with open(os.path.join(folder, self.split_file), "w", encoding="utf-8") as file:
            json.dump(split, file)


class Shapes(DrawnDataset):
    """40 classes such as "striped red star", 20 base and 20 new."""

    folder = "shapes"
    split_file = "split_shapes.json"
    template = "a drawing of a {}."
    names = CLASSES

    @classmethod
    def figure(cls, classname: str, rng: np.random.Generator) -> Figure:
        """See :meth:`DrawnDataset.figure`."""
        texture, colour, shape = classname.split(" ")
        return Figure(shape, colour, texture)


class _ShiftedShapes(Shapes):
    """The classes of `Shapes`, drawn another way; test images only."""

    folder = ""
    sizes = {"test": 10}
    test_only = True


class ShapesOutline(_ShiftedShapes):
    """Contours instead of filled figures."""

    folder = "shapes_outline"
    style = replace(STYLE, outline=0.6)


class ShapesNoise(_ShiftedShapes):
    """Heavy noise."""

    folder = "shapes_noise"
    style = replace(STYLE, noise=(45, 70))


class ShapesBackground(_ShiftedShapes):
    """Patterned backgrounds."""

    folder = "shapes_background"
    style = replace(STYLE, clutter=1.0)


class ShapesLowRes(_ShiftedShapes):
    """24 pixels a side, enlarged."""

    folder = "shapes_lowres"
    style = replace(STYLE, resolution=24)


class ShapesTextures(DrawnDataset):
    """Textures that fill the picture, whatever their colour."""

    folder = "shapes_textures"
    split_file = "split_textures.json"
    template = "a {} pattern."
    names = TEXTURES

    @classmethod
    def figure(cls, classname: str, rng: np.random.Generator) -> Figure:
        """See :meth:`DrawnDataset.figure`."""
        return Figure(None, str(rng.choice(list(COLOURS))), classname)


class ShapesColours(DrawnDataset):
    """Colours, whatever the shape and texture."""

    folder = "shapes_colours"
    split_file = "split_colours.json"
    template = "a {} thing."
    names = tuple(COLOURS)

    @classmethod
    def figure(cls, classname: str, rng: np.random.Generator) -> Figure:
        """See :meth:`DrawnDataset.figure`."""
        return Figure(str(rng.choice(SHAPES)), classname, str(rng.choice(TEXTURES)))


class ShapesCounts(DrawnDataset):
    """One to five figures of a kind."""

    folder = "shapes_counts"
    split_file = "split_counts.json"
    template = "a photo of {}."
    names = NUMBERS

    @classmethod
    def figure(cls, classname: str, rng: np.random.Generator) -> Figure:
        """See :meth:`DrawnDataset.figure`."""
        return Figure(
            str(rng.choice(SHAPES)),
            str(rng.choice(list(COLOURS))),
            str(rng.choice(TEXTURES)),
            NUMBERS.index(classname) + 1,
        )


class ShapesSelect(DrawnDataset):
    """24 classes such as "red star", 12 base and 12 new, for choosing settings: many validation images, in no table."""

    folder = "shapes_select"
    split_file = "split_select.json"
    template = "a picture of a {}."
    names: tuple[str, ...] = SELECT_BASE + SELECT_NEW
    sizes = {"train": 32, "val": 40, "test": 8}
    all_val = True
    style = SELECT_STYLE

    @classmethod
    def figure(cls, classname: str, rng: np.random.Generator) -> Figure:
        """See :meth:`DrawnDataset.figure`."""
        colour, shape = classname.split(" ")
        return Figure(shape, colour, str(rng.choice(TEXTURES)))


class ShapesSelectFew(ShapesSelect):
    """12 classes such as "striped ring", 6 base and 6 new: what suits many classes need not suit few."""

    folder = "shapes_select_few"
    split_file = "split_select_few.json"
    names = SELECT_FEW

    @classmethod
    def figure(cls, classname: str, rng: np.random.Generator) -> Figure:
        """See :meth:`DrawnDataset.figure`."""
        texture, shape = classname.split(" ")
        return Figure(shape, str(rng.choice(list(COLOURS))), texture)
