"""Draw the images of the embedded world: figures with a shape, a colour and a texture on 64 x 64 pixels.

A picture is fully determined by (dataset, split, index) through :func:`rng_for`. A :class:`Style` says how hard it is
to see what was drawn; the pretraining images of the embedded CLIP and the data sets made from this module differ in
style and in seeds.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 64  # pixels a side
SUPERSAMPLING = 3  # figures are drawn this much larger and averaged down, which smooths their edges

COLOURS = {
    "red": (220, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (240, 220, 50),
    "green": (50, 170, 70),
    "cyan": (60, 205, 215),
    "blue": (45, 80, 215),
    "purple": (135, 55, 180),
    "pink": (245, 130, 190),
    "brown": (125, 75, 40),
    "white": (245, 245, 245),
}
TEXTURES = ("plain", "striped", "dotted", "checkered")
PATTERNS = TEXTURES + ("zigzag", "gridded")  # the last two only ever fill a whole picture


@dataclass(frozen=True)
class Figure:
    """What there is to see: one kind of figure, ``count`` times; without a shape, a pattern that fills the picture."""

    shape: str | None
    colour: str
    texture: str
    count: int = 1


@dataclass(frozen=True)
class Style:
    """How it is drawn. Every pair is a range from which each picture takes its own value."""

    radius: tuple[float, float] = (17, 26)  # of the figure, in pixels
    rotation: float = 20  # degrees either way
    jitter: float = 14  # of the figure's colour, grey levels
    clutter: float = 0.0  # probability of a patterned background
    outline: float = 0.0  # share of the fill that is lost, leaving the contour
    blotches: tuple[float, float] = (0, 0)  # amplitude of a low-frequency colour field, grey levels
    hue: tuple[float, float] = (0, 0)  # degrees by which every colour is turned
    wash: float = 0.0  # share of the colour that is washed out
    weave: float = 1.0  # width of the textures, as a multiple
    gain: tuple[float, float] = (1, 1)  # below 1 the picture is dimmed
    blur: tuple[float, float] = (0, 0)  # sigma in pixels
    resolution: int = SIZE  # pixels a side that survive
    noise: tuple[float, float] = (0, 4)  # standard deviation in grey levels


def rng_for(dataset: str, split: str, index: int) -> np.random.Generator:
    """Return the generator of one picture, the same on every machine and in every process."""
    digest = hashlib.sha256(f"{dataset}/{split}/{index}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def draw(figure: Figure, style: Style, rng: np.random.Generator) -> Image.Image:
    """Draw one picture.

    Args:
        figure: What to draw.
        style: How to draw it.
        rng: Where all that is left to chance comes from; see :func:`rng_for`.

    Returns:
        An RGB image of 64 x 64 pixels.
    """
    colour, background, second = _palette(figure.colour, style, rng)
    canvas = _background(background, style, rng)
    if figure.shape is None:
        mask = np.ones(canvas.shape[:2])
        contour = np.zeros_like(mask)
        unit = SIZE / 2
    else:
        mask, contour, unit = _figures(figure, style, rng)
    weave = _pattern(figure.texture, rng, period=style.weave * np.clip(unit / 2.6, 4.5, 9.5))
    fill = colour + weave[..., None] * (second - colour)
    canvas += (mask * (1 - style.outline))[..., None] * (fill - canvas)
    if style.outline:
        canvas += contour[..., None] * (colour - canvas)
    small = canvas.reshape(SIZE, SUPERSAMPLING, SIZE, SUPERSAMPLING, 3).mean((1, 3))
    return _degrade(small, style, rng)


# ----------------------------------------------------------------------------------------------------------------
# geometry


def _regular(n: int, radius: float = 1.0, start: float = -90) -> np.ndarray:
    angles = np.radians(start + 360 / n * np.arange(n))
    return radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def _star() -> np.ndarray:
    points = np.empty((10, 2))
    points[0::2], points[1::2] = _regular(5), _regular(5, 0.42, -54)
    return points


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, -y], 1) / 17


@cache
def _outlines() -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Return each shape's outer polygon and its hole, inside the unit circle, y downwards."""
    circle, a = _regular(48), 0.34
    cross = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]
    arrow = [(0, -1), (0.75, -0.1), (0.3, -0.1), (0.3, 1), (-0.3, 1), (-0.3, -0.1), (-0.75, -0.1)]
    return {
        "circle": (0.9 * circle, None),
        "square": (_regular(4, 1.1, -45), None),
        "triangle": (_regular(3), None),
        "star": (_star(), None),
        "cross": (np.array(cross), None),
        "heart": (_heart(), None),
        "diamond": (np.array([(0, -1), (0.6, 0), (0, 1), (-0.6, 0)]), None),
        "hexagon": (_regular(6, start=0), None),
        "ring": (0.95 * circle, 0.5 * circle),
        "crescent": (circle, 0.85 * circle + (0.5, 0)),
        "arrow": (np.array(arrow), None),
        "pentagon": (_regular(5), None),
    }


SHAPES = tuple(_outlines())


def _figures(figure: Figure, style: Style, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the mask of all figures, that of their contours, and the radius of a figure in pixels."""
    if figure.count == 1 and style.radius[1] > 12:
        radius = rng.uniform(*style.radius)
        slack = max(SIZE / 2 - radius - 2, 0)
        centres = SIZE / 2 + rng.uniform(-slack, slack, (1, 2))
    else:  # several, or small: cells of a 3 x 3 board
        radius = rng.uniform(7.5, 9.5)
        cells = rng.permutation(9)[: figure.count]
        centres = (np.stack([cells % 3, cells // 3], 1) + 0.5) * SIZE / 3 + rng.uniform(-1.5, 1.5, (figure.count, 2))
    assert figure.shape is not None  # a pattern without a shape has no figure
    side = SIZE * SUPERSAMPLING
    mask, contour = Image.new("L", (side, side)), Image.new("L", (side, side))
    outer, hole = _outlines()[figure.shape]
    for centre in centres:
        angle = math.radians(rng.uniform(-style.rotation, style.rotation))
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        paint, pen = ImageDraw.Draw(mask), ImageDraw.Draw(contour)
        polygons = [outer] if hole is None else [outer, hole]
        for polygon, value in zip(polygons, (255, 0)):
            points = [tuple(p) for p in SUPERSAMPLING * (centre + radius * polygon @ turn)]
            paint.polygon(points, fill=value)
            pen.line(points + points[:2], fill=255, width=2 * SUPERSAMPLING, joint="curve")
    inside = np.asarray(mask) / 255.0
    grown = np.asarray(Image.fromarray((255 * inside).astype(np.uint8)).filter(ImageFilter.MaxFilter(3))) / 255.0
    return inside, np.asarray(contour) / 255.0 * grown, radius  # a hole's contour may leave the figure: cut it off


# ----------------------------------------------------------------------------------------------------------------
# surfaces


def _palette(name: str, style: Style, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a figure's colour, a background and a second colour, both of which differ from it clearly."""
    colour = np.clip(COLOURS[name] + rng.uniform(-style.jitter, style.jitter, 3), 0, 255)

    def unlike(sample, distance: float) -> np.ndarray:
        for _ in range(20):
            other = sample()
            if np.linalg.norm(other - colour) > distance:
                break
        return other

    def grey() -> np.ndarray:
        return np.clip(rng.choice([rng.uniform(15, 100), rng.uniform(150, 235)]) + rng.uniform(-18, 18, 3), 0, 255)

    background = unlike(grey, 110)
    second = unlike(lambda: np.full(3, rng.choice([20.0, 240.0])), 150)
    return colour, background, second


def _background(colour: np.ndarray, style: Style, rng: np.random.Generator) -> np.ndarray:
    side = SIZE * SUPERSAMPLING
    slope = rng.uniform(-25, 25, 2)
    ramp = np.linspace(-0.5, 0.5, side)
    canvas = colour + (slope[0] * ramp[:, None] + slope[1] * ramp)[..., None]
    if rng.random() < style.clutter:
        other = np.clip(colour + rng.uniform(-70, 70, 3), 0, 255)
        weave = _pattern(PATTERNS[rng.integers(1, len(PATTERNS))], rng, period=rng.uniform(5, 16))
        canvas = canvas + weave[..., None] * (other - canvas)
    return canvas


def _pattern(texture: str, rng: np.random.Generator, period: float) -> np.ndarray:
    """Return where the second colour goes: 0 or 1 for each supersampled pixel. ``period`` is in pixels."""
    angle, shift = rng.uniform(0, math.pi), rng.uniform(0, 1, 2)
    period = period * rng.uniform(0.9, 1.15)
    axis = (np.arange(SIZE * SUPERSAMPLING) + 0.5) / SUPERSAMPLING / period
    u = math.cos(angle) * axis - math.sin(angle) * axis[:, None] + shift[0]
    v = math.sin(angle) * axis + math.cos(angle) * axis[:, None] + shift[1]
    if texture == "plain":
        weave = np.zeros_like(u)
    elif texture == "striped":
        weave = u % 1 < 0.45
    elif texture == "dotted":
        weave = (u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.31**2
    elif texture == "checkered":
        weave = (np.floor(1.6 * u) + np.floor(1.6 * v)) % 2 < 0.5
    elif texture == "zigzag":
        weave = (u + np.abs(v / 1.5 % 1 - 0.5)) % 1 < 0.45
    elif texture == "gridded":
        weave = (u % 1 < 0.25) | (v % 1 < 0.25)
    else:
        raise ValueError(f"Unknown texture '{texture}'; there are {', '.join(PATTERNS)}.")
    return weave.astype(float)


# ---------------------------------------------------------------------------------------------------------------- the
# camera


def _degrade(pixels: np.ndarray, style: Style, rng: np.random.Generator) -> Image.Image:
    """Turn a clean drawing, (64, 64, 3) grey levels, into the picture a bad camera takes of it."""
    if style.wash or any(style.hue):
        pixels = pixels @ _colour_shift(math.radians(rng.uniform(*style.hue)), style.wash).T
    field = rng.normal(0, 1, (5, 5, 3)) * rng.uniform(*style.blotches)
    pixels = pixels + _upsample(field)
    pixels = pixels * rng.uniform(*style.gain)
    image = _to_image(pixels)
    if style.resolution < SIZE:
        image = image.resize((style.resolution,) * 2, Image.Resampling.BOX).resize(
            (SIZE, SIZE), Image.Resampling.BILINEAR
        )
    sigma = rng.uniform(*style.blur)
    if sigma:
        image = image.filter(ImageFilter.GaussianBlur(sigma))
    noise = rng.normal(0, 1, (SIZE, SIZE, 3)) * rng.uniform(*style.noise)
    return _to_image(np.asarray(image) + noise)


def _colour_shift(angle: float, wash: float) -> np.ndarray:
    """Return the 3 x 3 map of colours that turns them about the grey axis and draws them towards it."""
    grey = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    return grey + (1 - wash) * (math.cos(angle) * (np.eye(3) - grey) + math.sin(angle) * cross)


def _upsample(field: np.ndarray) -> np.ndarray:
    channels = [
        Image.fromarray(c.astype(np.float32)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        for c in np.moveaxis(field, -1, 0)
    ]
    return np.stack([np.asarray(c) for c in channels], -1)


def _to_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
