"""Open every image of a list, as training will."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import UnidentifiedImageError
from tqdm import tqdm

from .files import read_image

CHUNK = 64  # images that a thread takes at once; ImageNet has over a million of them


def damage(path: str | os.PathLike) -> str:
    """Say why an image cannot be used; "" if it can."""
    try:
        read_image(path)
    except UnidentifiedImageError:
        return "not an image"
    except Exception as error:  # decoders raise whatever they like on damaged data
        return str(error) or type(error).__name__
    return ""


def find_damaged(paths: Sequence[str | os.PathLike], desc: str = "checking images") -> dict[str, str]:
    """Open and decode images, in a thread for each core; decoders let other threads run.

    Args:
        paths: Of the images.
        desc: Label of the progress bar.

    Returns:
        Path -> what is wrong with it, in the order given, for those that cannot be used.
    """
    words = [os.fspath(path) for path in paths]
    chunks = [words[start : start + CHUNK] for start in range(0, len(words), CHUNK)]
    found: dict[str, str] = {}
    pool = ThreadPoolExecutor(os.cpu_count())
    bar = tqdm(total=len(words), desc=desc, unit="image", disable=None, leave=False)
    try:
        with bar, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # oddities that do not keep an image from being read
            for chunk, reasons in zip(chunks, pool.map(lambda chunk: [damage(path) for path in chunk], chunks)):
                found |= {path: reason for path, reason in zip(chunk, reasons) if reason}
                bar.update(len(chunk))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest
    return found
