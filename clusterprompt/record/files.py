"""Files that others may read while we write them, and image files."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import shutil
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from .scratch import scratch_file

logger = logging.getLogger(__name__)
# Files with these endings are images, wherever a folder is searched for them.
IMAGE_ENDINGS = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# What is opened, whatever a file is called: others start programs (EPS), or were never tried.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "MPO")
MAX_RATIO = 200  # of the sides; resizing the shorter one to 224 pixels makes a narrow image huge
DARK = 2**14  # a 16-bit image whose values are all below it may hold fewer bits
NAMED = 3  # images that a kind of remark is made on
PIXELS_VARIABLE = "CLUSTERPROMPT_MAX_PIXELS"
_remarks: Counter[str] = Counter()


def is_image_name(name: str | os.PathLike) -> bool:
    """Tell whether a file's name is that of a visible image."""
    base = os.path.basename(os.fspath(name))
    return base.lower().endswith(IMAGE_ENDINGS) and not base.startswith(".")


class ImageError(OSError):
    """An image file that cannot be used; the message names it and says why."""


class UnknownRange(ImageError):
    """An image whose values have no known black and white; DATASET.GREY_RANGE says them."""


def read_image(path: str | os.PathLike, grey_range: Sequence[float] = ()) -> Image.Image:
    """Decode an image file to RGB, 8 bits a colour: the one reader for training, test, prediction and pictures.

    Photos are not turned by their EXIF note, as in Dassl. Of several frames the first counts.

    Args:
        path: The file, in one of ``FORMATS`` whatever its name.
        grey_range: See :func:`as_rgb`.

    Raises:
        FileNotFoundError: No such file.
        IsADirectoryError: It is a folder.
        UnknownRange: Its values have no known black and white.
        ImageError: It is no regular file, no image in one of ``FORMATS``, damaged, too large or too narrow.
    """
    mode = os.stat(path).st_mode  # a named pipe or a device could be read for ever
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{os.fspath(path)} is a folder, not an image")
    if not stat.S_ISREG(mode):
        raise ImageError(f"{os.fspath(path)}: not a regular file")
    _raise_limit()
    try:
        with Image.open(path, formats=_formats()) as image:
            return as_rgb(image, grey_range, os.fspath(path))
    except (FileNotFoundError, ImageError):
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{os.fspath(path)}: not an image ({', '.join(FORMATS)} are read)") from None
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{os.fspath(path)}: too large ({error}); make it smaller, or raise the limit with the environment's "
            f"{PIXELS_VARIABLE}"
        ) from None
    except Exception as error:  # decoders raise whatever they like on damaged data
        raise ImageError(f"{os.fspath(path)}: {str(error) or type(error).__name__}") from error


def as_rgb(image: Image.Image, grey_range: Sequence[float] = (), name: str = "the image") -> Image.Image:
    """Convert an image to RGB, 8 bits a colour.

    How bright a value is follows from the file's mode or from ``grey_range``, never from the values of one image, so
    that equal values look equal in all images of a data set. Transparent pixels are shown on white.

    Args:
        image: Any mode.
        grey_range: The values that are black and white in images of more than 8 bits; empty: 0 and the highest value of
            the file's mode, 65535 for 16 bits. Without effect on images of 8 bits.
        name: Of the image, for messages.

    Raises:
        UnknownRange: ``grey_range`` is empty, and the values are signed, floating or of 32 bits.
        ImageError: One side is more than ``MAX_RATIO`` times the other.
    """
    short, long = sorted(image.size)
    if long > MAX_RATIO * max(short, 1):
        raise ImageError(
            f"{name}: {image.width} x {image.height} pixels; one side may be at most {MAX_RATIO} times the other"
        )
    deep_colour = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()) if len(tile) > 3)
    if image.mode in ("I", "F") or image.mode.startswith("I;16") or _is_signed(image):
        return _grey_to_rgb(image, grey_range, name)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _on_white(image, name)
    rgb = image.convert("RGB")
    if deep_colour and np.asarray(rgb).max() < DARK >> 8:
        remark("dark", f"{name}: of its 16 bits a colour only the lowest are used, so it is nearly black; write 8 bits")
    return rgb


def _is_signed(image: Image.Image) -> bool:
    """Tell whether a TIFF holds signed numbers of 8 bits, which Pillow reads as unsigned ones."""
    return image.mode == "L" and 2 in _tiff_tag(image, 339)


def _tiff_tag(image: Image.Image, number: int) -> tuple:
    """Return the values of a TIFF's tag; none for other formats."""
    values = getattr(image, "tag_v2", {}).get(number, ())
    return values if isinstance(values, tuple) else (values,)


def _grey_to_rgb(image: Image.Image, grey_range: Sequence[float], name: str) -> Image.Image:
    """Convert grey values of more than 8 bits, signed or floating ones."""
    unsigned = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    bits = _tiff_tag(image, 258)[0] if unsigned and _tiff_tag(image, 258) else 16
    if not grey_range and not unsigned:
        kind = "floating-point" if image.mode == "F" else "signed or 32-bit"
        raise UnknownRange(
            f"{name}: holds {kind} values, and no rule says which are black and white; set DATASET.GREY_RANGE, "
            'such as "[-1024, 3071]"'
        )
    values = np.asarray(image)
    values = values.view(np.int8) if image.mode == "L" else values
    black, white = grey_range or (0, 2**bits - 1)
    if not grey_range and bits == 16 and values.size and values.max() < DARK:
        remark(
            "dark",
            f"{name}: of its 16 bits only the lower {max(int(values.max()).bit_length(), 1)} are used, and 65535 "
            'counts as white. If the whole data set is like that, set DATASET.GREY_RANGE, such as "[0, 4095]" for '
            "12 bits",
        )
    span = white - black + (values.dtype.kind != "f")  # 65536 steps of 16 bits: the upper 8 bits are kept
    levels = np.floor((np.nan_to_num(values.astype(np.float64), nan=black) - black) * (256 / span))
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8)).convert("RGB")


def _on_white(image: Image.Image, name: str) -> Image.Image:
    """Convert an image with an alpha channel; one that is opaque everywhere keeps its colours exactly."""
    rgba = image.convert("RGBA")
    if np.asarray(rgba.getchannel("A")).min() == 255:
        return image.convert("RGB")
    remark("transparent", f"{name}: has transparent pixels; they are shown on white")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def needs_remark(path: str | os.PathLike) -> bool:
    """Tell from an image's header, without decoding it, whether its conversion may call for a remark."""
    try:
        with Image.open(path, formats=_formats()) as image:
            deep = any(";16" in str(tile[3]) for tile in image.tile if len(tile) > 3)
            return deep or image.mode not in ("1", "L", "P", "RGB", "CMYK", "YCbCr") or "transparency" in image.info
    except Exception:  # the reader says what is wrong
        return False


def remark(kind: str, text: str) -> None:
    """Log a remark on an image, for the first few images of a kind; loaders' processes leave it to the main one."""
    _remarks[kind] += 1
    if multiprocessing.parent_process() is None and _remarks[kind] <= NAMED:
        more = "; further ones are not named" if _remarks[kind] == NAMED else ""
        logger.warning("%s%s", text, more)


def _formats() -> list[str]:
    """Return the formats that this Pillow can read."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _raise_limit() -> None:
    """Let Pillow open images of as many pixels as the environment says."""
    if pixels := os.environ.get(PIXELS_VARIABLE):
        if not pixels.isdigit() or not int(pixels):
            raise ValueError(f"{PIXELS_VARIABLE} is {pixels!r}; give a number of pixels, such as 400000000")
        Image.MAX_IMAGE_PIXELS = (int(pixels) + 1) // 2  # Pillow refuses twice this number


# How torch.save says that a file could not be written to its end.
TORCH_WRITE_ERRORS = ("unexpected pos", "PytorchStreamWriter", "inline_container", "file write failed")


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file whole or not at all.

    Yields the path of an empty temporary file in the same folder. When the block ends, that file is flushed to the disk
    and takes the place of ``path``; when it raises, it is removed and ``path`` keeps its content. What a killed process
    left of an earlier try is removed first.

    Args:
        path: File to write; its folder must exist.

    Raises:
        OSError: It cannot be written; names the file, and the room on its disk if that is the reason.
    """
    path = Path(path)
    try:
        with scratch_file(path) as temporary:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        raise write_error(error, path) from error


def write_error(error: OSError | RuntimeError, path: Path) -> OSError | RuntimeError:
    """Return the error of a failed write with the file's name; torch hides a full disk behind a RuntimeError."""
    if isinstance(error, RuntimeError) and not any(words in str(error) for words in TORCH_WRITE_ERRORS):
        return error
    if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return error if error.filename or not error.errno else type(error)(error.errno, error.strerror, str(path))
    reason = error.strerror if isinstance(error, OSError) else "the write failed; is the disk full, or a quota used up?"
    number = error.errno if isinstance(error, OSError) and error.errno else errno.ENOSPC
    try:
        free = f" ({shutil.disk_usage(path.parent).free / 2**20:.1f} MiB are free there)"
    except OSError:
        free = ""
    return OSError(number, f"{reason}{free}", str(path))


def _sync_folder(folder: Path) -> None:
    """Put a rename on the disk; some network file systems refuse it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a UTF-8 text file whole or not at all; see :func:`atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write a binary file whole or not at all; see :func:`atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
