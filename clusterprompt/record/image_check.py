"""Open every image of a list, as training will."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from .files import ImageError, read_image

CHUNK = 64  # images that a thread takes at once; ImageNet has over a million of them


def damage(path: str | os.PathLike, grey_range: Sequence[float] = ()) -> str:
    """Say why an image cannot be used; "" if it can."""
    try:
        read_image(path, grey_range)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        return error.strerror or str(error)
    except ImageError as error:
        return str(error).removeprefix(f"{os.fspath(path)}: ")
    return ""


def find_damaged(
    paths: Sequence[str | os.PathLike], desc: str = "checking images", grey_range: Sequence[float] = ()
) -> dict[str, str]:
    """Open and decode images, in a thread for each core; decoders let other threads run.

    Args:
        paths: Of the images.
        desc: Label of the progress bar.
        grey_range: Of the data set, see :func:`.files.as_rgb`.

    Returns:
        Path -> what is wrong with it, in the order given, for those that cannot be used.
    """
    words = [os.fspath(path) for path in paths]
    chunks = [words[start : start + CHUNK] for start in range(0, len(words), CHUNK)]
    found: dict[str, str] = {}

    def check(chunk: list[str]) -> list[str]:
        return [damage(path, grey_range) for path in chunk]

    pool = ThreadPoolExecutor(os.cpu_count())
    bar = tqdm(total=len(words), desc=desc, unit="image", disable=None, leave=False)
    try:
        with bar, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # oddities that do not keep an image from being read
            for chunk, reasons in zip(chunks, pool.map(check, chunks)):
                found |= {path: reason for path, reason in zip(chunk, reasons) if reason}
                bar.update(len(chunk))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest
    return found
