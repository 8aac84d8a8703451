"""Decode images in batches: from paths, folders and pictures in memory, in order, while the model runs."""

from __future__ import annotations

import io
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..record.files import IMAGE_ENDINGS, as_rgb, is_image_name, read_image

PATIENCE = 0.1  # seconds that a batch which is not full waits for a slow source before it is classified as it is
Source = str | os.PathLike | Image.Image | np.ndarray
WANTED = "a path, a PIL image, an array (H, W, 3) of uint8 in RGB order, or an iterable of these"


class Decoded(NamedTuple):
    """An image ready for the model, or why it is not.

    Attributes:
        path: As it was given; empty for a picture in memory.
        tensor: (3, H, W); None for a broken image.
        error: What is wrong with it, else empty.
    """

    path: str
    tensor: Tensor | None
    error: str = ""


def sources_of(images: Source | Iterable[Source]) -> Iterable[Source]:
    """Return the pictures that a user gives, one or many, as an iterable.

    Raises:
        TypeError: It is neither, though Python may be able to iterate over it: a tensor, bytes, an open file, a dict.
    """
    if isinstance(images, np.ndarray) and images.dtype.kind in "bcfiu":
        if images.ndim != 4:
            return [_picture_of(images)]
        return [_picture_of(array) for array in images]
    if isinstance(images, (str, os.PathLike, Image.Image)):
        return [images]
    if isinstance(images, (Tensor, bytes, bytearray, memoryview, io.IOBase, Mapping)) or not isinstance(
        images, Iterable
    ):
        raise TypeError(f"a {type(images).__name__} is given; wanted is {WANTED}")
    return images


def _picture_of(array: Any) -> Image.Image:
    """Return an array as a picture; raise TypeError for one that is none."""
    colour = array.ndim == 3 and array.shape[2] in (3, 4) and array.dtype == np.uint8
    if not colour and not (array.ndim == 2 and array.dtype in (np.uint8, np.uint16)):
        raise TypeError(f"an array of {array.dtype} with shape {array.shape} is given; wanted is {WANTED}")
    return Image.fromarray(array)


def find(sources: Iterable[Source]) -> Iterator[Source]:
    """Yield every picture and path; in the place of a folder all images in it and below, sorted."""
    for source in sources:
        if isinstance(source, (str, os.PathLike)) and os.path.isdir(source):
            yield from _walk(os.fspath(source))
        else:
            yield source


def _walk(folder: str) -> Iterator[str]:
    """Yield all images of a folder and below; the folder itself where there is none."""
    found = False
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if is_image_name(name):
                found = True
                yield os.path.join(place, name)
    if not found:
        yield folder  # where an image should be: reported like any other that cannot be read


def decode(source: Source, transform: Callable[[Image.Image], Tensor], grey_range: Sequence[float] = ()) -> Decoded:
    """Open an image and prepare it for the model; errors of files are returned, not raised.

    Raises:
        TypeError: ``source`` is no picture and no path.
    """
    path = "" if isinstance(source, (np.ndarray, Image.Image)) else str(source)
    if isinstance(source, np.ndarray):
        source = _picture_of(source)
    elif not isinstance(source, (str, os.PathLike, Image.Image)):
        raise TypeError(f"a {type(source).__name__} is among the images; wanted is {WANTED}")
    try:
        picture = as_rgb(source, grey_range) if isinstance(source, Image.Image) else read_image(source, grey_range)
        return Decoded(path, transform(picture))
    except FileNotFoundError:
        return Decoded(path, None, "no such file")
    except IsADirectoryError:
        return Decoded(path, None, f"the folder holds no image ({', '.join(IMAGE_ENDINGS)})")
    except Exception as error:  # the other images are to go on
        reason = (str(error) or type(error).__name__).removeprefix(f"{path}: ")
        return Decoded(path, None, f"not a readable image: {reason}")


def decoded_batches(
    sources: Iterable[Source],
    transform: Callable[[Image.Image], Tensor],
    size: int,
    workers: int,
    grey_range: Sequence[float] = (),
) -> Iterator[list[Decoded]]:
    """Decode images in threads, at most two batches ahead of the one asked for.

    Args:
        sources: Read by a thread, item by item; it may be endless, and it may be slow: a batch does not wait until it
            is full.
        transform: From an RGB picture to (3, H, W).
        size: Images in a batch.
        workers: Threads that decode.
        grey_range: Of the run's data set, see :func:`..record.files.as_rgb`.

    Yields:
        Batches of 1 to ``size`` images in the order of ``sources``.
    """
    ahead: queue.Queue[Any] = queue.Queue(maxsize=2 * size)
    stop = threading.Event()
    # One torch thread each, as in a DataLoader's workers; the setting is the thread's own.
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))

    def feed() -> None:
        try:
            for source in find(sources):
                if stop.is_set():
                    return
                ahead.put(pool.submit(decode, source, transform, grey_range).result)
            ahead.put(None)
        except BaseException as error:  # of the caller's iterable: raised where the batches are read
            ahead.put(_raiser(error))

    threading.Thread(target=feed, daemon=True).start()  # a daemon, because nothing wakes it from a read of stdin
    try:
        task = ahead.get()
        while task is not None:
            batch = [task]
            try:
                while len(batch) < size and task is not None:
                    task = ahead.get(timeout=PATIENCE)
                    batch.append(task)
            except queue.Empty:
                pass
            yield [result() for result in batch if result is not None]
            task = None if task is None else ahead.get()
    finally:
        stop.set()
        while not ahead.empty():  # makes room for the thread, should it wait for a full queue
            ahead.get_nowait()
        pool.shutdown(wait=False, cancel_futures=True)


def _raiser(error: BaseException) -> Callable[[], Any]:
    """Return a function that raises an error."""

    def fail() -> None:
        raise error

    return fail
