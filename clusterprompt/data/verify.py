"""Open every image of a data set, as training will."""

import os
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from PIL import Image
from tqdm import tqdm

PER_PROCESS = 1000  # images; fewer are not worth the start of another process


def damage(path: str) -> str:
    """Say why an image cannot be used; "" if it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata
            with Image.open(path) as image:
                image.convert("RGB")  # decodes all of it
    except Exception as error:  # a damaged file can raise nearly anything
        return str(error) or type(error).__name__
    return ""


def damaged(paths, desc: str) -> dict:
    """Open all images, in as many processes as there are cores.

    Args:
        paths: Of the images.
        desc: Label of the progress bar.

    Returns:
        Path -> what is wrong with it, for those that cannot be used.
    """
    paths = [str(path) for path in paths]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = min(cores, len(paths) // PER_PROCESS)
    if workers < 2:
        return _named(paths, map(damage, paths), desc)
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn")
    ) as pool:  # fork and torch's threads do not go together
        return _named(paths, pool.map(damage, paths, chunksize=64), desc)


def _named(paths, reasons, desc: str) -> dict:
    bar = tqdm(zip(paths, reasons), total=len(paths), desc=desc, unit="image", disable=None, leave=False)
    return {path: reason for path, reason in bar if reason}
