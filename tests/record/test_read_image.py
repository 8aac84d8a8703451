"""The one reader of images: equal values look equal, nothing hangs, nothing starts a program."""

import os
import struct

import numpy as np
import pytest
from PIL import Image
from support import png

from clusterprompt.record import files
from clusterprompt.record.files import ImageError, UnknownRange, as_rgb, needs_remark, read_image
from clusterprompt.record.image_check import damage

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
TWELVE = (GREY.astype(np.uint32) * 4095 // 255).astype(np.uint16)


@pytest.fixture(autouse=True)
def _no_remarks_yet(monkeypatch):
    monkeypatch.setattr(files, "_remarks", type(files._remarks)())


def saved(folder, name, values):
    Image.fromarray(values).save(folder / name)
    return folder / name


def tiff(folder, values, bits, kind, order):
    """Write an uncompressed TIFF by hand: Pillow writes none that is big-endian or signed."""
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    height, width = values.shape
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    tags += [(279, len(data)), (339, kind)]
    entries = b"".join(struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    head = (b"MM" if order == ">" else b"II") + struct.pack(f"{order}HI", 42, 8 + len(data))
    path = folder / f"{bits}{kind}{'B' if order == '>' else 'L'}.tif"
    path.write_bytes(head + data + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0))
    return path


def grey(path, *grey_range):
    pixels = np.asarray(read_image(path, grey_range))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "RGBA", "LA"])
def test_eight_bits_are_pillows(tmp_path, mode):
    """Catches: an ordinary picture, opaque ones with an alpha channel included, whose pixels change."""
    noise = Image.effect_noise((20, 16), 80).convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    noise.save(path)
    with Image.open(path) as image:
        assert read_image(path).tobytes() == image.convert("RGB").tobytes() == as_rgb(image).tobytes()
    Image.effect_noise((20, 16), 80).convert("RGB").save(
        tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    )
    assert read_image(tmp_path / "a.jpg").size == (20, 16)  # the note that it lies on its side has no effect


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bits(tmp_path, name):
    """Catches: 16 bits shown as white."""
    path = saved(tmp_path, name, GREY.astype(np.uint16) * 257)
    assert (grey(path) == GREY).all()
    assert (np.asarray(as_rgb(Image.open(path)))[..., 0] == GREY).all()


@pytest.mark.parametrize("order", ["<", ">"])
def test_byte_orders(tmp_path, order):
    """Catches: big-endian 16-bit TIFF called damaged; TIFF that says that it holds 12 bits read as dark."""
    assert (grey(tiff(tmp_path, GREY.astype(np.uint16) * 257, 16, 1, order)) == GREY).all()
    if order == "<":
        assert not damage(tmp_path / "161L.tif")


def test_twelve_bits(tmp_path, caplog):
    """Catches: a divisor guessed from each image's own maximum; an image that is nearly black, without a word."""
    path = saved(tmp_path, "twelve.png", TWELVE)
    assert (grey(path, 0, 4095) == GREY).all()
    assert not caplog.messages
    dark = saved(tmp_path, "dark.png", np.full((4, 4), 200, np.uint16))
    assert (grey(dark) == 0).all() and (grey(dark, 0, 4095) == 12).all()  # never by the single image
    assert (grey(path) == TWELVE >> 8).all()
    assert "twelve.png: of its 16 bits only the lower 12 are used" in caplog.text
    assert 'DATASET.GREY_RANGE, such as "[0, 4095]"' in caplog.text


def test_remarks_are_few(tmp_path, caplog):
    """Catches: a line of log for each image of a data set."""
    paths = [saved(tmp_path, f"{i}.png", TWELVE) for i in range(5)]
    for path in paths:
        grey(path)
    assert len(caplog.messages) == 3 and caplog.messages[-1].endswith("further ones are not named")
    assert all(needs_remark(path) for path in paths)
    assert not needs_remark(saved(tmp_path, "8.png", GREY)) and not needs_remark(tmp_path / "none.png")


@pytest.mark.parametrize(
    "values, bits, kind, black, white",
    [
        (GREY.astype(np.int16) * 16 - 1024, 16, 2, -1024, 3071),
        (GREY.astype(np.int32) * 1000, 32, 2, 0, 255999),
        (GREY.astype(np.float32) / 255, 32, 3, 0, 1),
        (GREY.astype(np.int16).astype(np.int8), 8, 2, -128, 127),
    ],
)
def test_signed_and_floating_values(tmp_path, values, bits, kind, black, white):
    """Catches: negative values cut to black, or 0.0 to 1.0 all black, without a word."""
    path = tiff(tmp_path, values, bits, kind, "<")
    with pytest.raises(UnknownRange, match=r"\.tif: holds .* values, .*set DATASET\.GREY_RANGE"):
        read_image(path)
    assert "DATASET.GREY_RANGE" in damage(path) and not damage(path, (black, white))
    wanted = (GREY.astype(int) + 128) % 256 if bits == 8 else GREY
    assert (grey(path, black, white) == wanted).all()


def test_dark_colours_of_sixteen_bits(tmp_path, caplog):
    """Catches: 12 bits in a 16-bit colour PNG, of which Pillow keeps the upper 8 bits: black."""
    rows = b"".join(b"\0" + struct.pack(">12H", *[100 + i] * 12) for i in range(4))
    (tmp_path / "a.png").write_bytes(png(4, 4, 16, 2, rows))
    read_image(tmp_path / "a.png")
    assert "a.png: of its 16 bits a colour only the lowest are used" in caplog.text


def test_transparent_pixels_are_white(tmp_path, caplog):
    """Catches: an icon drawn in the alpha channel alone, all black; a palette's transparent colour."""
    alpha = np.zeros((8, 8, 4), np.uint8)
    alpha[2:4, :, 3] = 255
    icon = read_image(saved(tmp_path, "icon.png", alpha))
    assert icon.getpixel((0, 0)) == (255, 255, 255) and icon.getpixel((0, 2)) == (0, 0, 0)
    assert "icon.png: has transparent pixels; they are shown on white" in caplog.text
    Image.new("P", (4, 4), 3).save(tmp_path / "a.gif", transparency=3)
    assert read_image(tmp_path / "a.gif").getpixel((0, 0)) == (255, 255, 255)


def refusals(folder):
    """Write files that are to be refused; return each with the words to expect."""
    os.mkfifo(folder / "pipe.png")
    (folder / "eps.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    (folder / "text.jpg").write_text("<html>")
    (folder / "large.png").write_bytes(png(60000, 60000, 8, 2, b"0" * 99))
    Image.new("L", (1, 20000)).save(folder / "narrow.png")
    Image.effect_noise((64, 64), 50).save(folder / "cut.png")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:1000])
    os.symlink("/dev/zero", folder / "zero.png")
    return {
        "pipe.png": "not a regular file",
        "zero.png": "not a regular file",
        "eps.png": "not an image (JPEG, PNG, WEBP",
        "text.jpg": "not an image (JPEG, PNG, WEBP",
        "large.png": "too large (Image size (3600000000 pixels)",
        "narrow.png": "1 x 20000 pixels; one side may be at most 200 times the other",
        "cut.png": "truncated",
    }


def test_refused(tmp_path, monkeypatch):
    """Catches: a pipe or /dev/zero read for ever; PostScript handed to Ghostscript; a bomb's traceback; the gigabytes
    that resizing a narrow image takes; a message without the file's name.
    """
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *args, **kwargs: pytest.fail("Ghostscript is started"))
    for name, words in refusals(tmp_path).items():
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ") and words in str(caught.value), name
        assert damage(tmp_path / name).startswith(words) or words in damage(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError):
        read_image(tmp_path)


def test_the_limit_of_pixels_can_be_raised(tmp_path, monkeypatch):
    """Catches: a large image called damaged, with no way to use it."""
    (tmp_path / "large.png").write_bytes(png(20000, 10000, 1, 0, b"\0" * 2501 * 10000))
    assert "CLUSTERPROMPT_MAX_PIXELS" in damage(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    monkeypatch.setenv("CLUSTERPROMPT_MAX_PIXELS", "200000000")
    with pytest.warns(Image.DecompressionBombWarning):
        assert not damage(tmp_path / "large.png")
    monkeypatch.setenv("CLUSTERPROMPT_MAX_PIXELS", "many")
    with pytest.raises(ValueError, match="CLUSTERPROMPT_MAX_PIXELS is 'many'; give a number"):
        read_image(tmp_path / "large.png")
