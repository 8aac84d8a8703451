"""Files, seeds and small things."""

import difflib
import json
import os
import random
import urllib.request
import warnings

import numpy as np
import PIL
import torch
from PIL import Image
from tqdm import tqdm

from .errors import ImageReadError, MissingFileError

MAX_RATIO = 200  # of an image's sides


def mkdir_if_missing(dirname: str) -> None:
    """Create a folder and its parents; an empty name is the current folder, which exists."""
    if dirname:
        os.makedirs(dirname, exist_ok=True)


def check_isfile(fpath: str) -> bool:
    """Say whether ``fpath`` is a file; warn if not."""
    isfile = os.path.isfile(fpath)
    if not isfile:
        warnings.warn(f"No file found at {fpath!r}", stacklevel=2)
    return isfile


def read_json(fpath: str):
    """Return what a JSON file holds."""
    with open(fpath, encoding="utf-8") as f:
        return json.load(f)


def write_json(obj, fpath: str) -> None:
    """Write ``obj`` as JSON, indented by 4, creating the folder."""
    mkdir_if_missing(os.path.dirname(fpath))
    with open(fpath, "w", encoding="utf-8") as f:
        json.dump(obj, f, indent=4, separators=(",", ": "))


def set_random_seed(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators, and those of all CUDA devices."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)


def get_most_similar_str_to_a_from_b(a: str, b) -> str | None:
    """Return the string of ``b`` most like ``a``, upper and lower case alike; None if ``b`` is empty."""
    return max(b, key=lambda s: difflib.SequenceMatcher(None, a.lower(), s.lower()).ratio(), default=None)


def check_availability(requested: str, available) -> None:
    """Check a name that a config file or the command line gave.

    Raises:
        ValueError: ``requested`` is not in ``available``; the message names the closest match and lists all.
    """
    if requested in available:
        return
    closest = get_most_similar_str_to_a_from_b(requested, available)
    hint = f" Did you mean {closest!r}?" if closest else ""
    raise ValueError(
        f"{requested!r} is not in this toolbox, and nothing else has registered it.{hint} Available: {list(available)}"
    )


def tolist_if_not(x) -> list:
    """Return ``x`` if it is a list, else a list of it."""
    return x if isinstance(x, list) else [x]


def listdir_nohidden(path: str, sort: bool = False) -> list[str]:
    """Return the names in a folder that do not begin with a dot."""
    items = [name for name in os.listdir(path) if not name.startswith(".")]
    return sorted(items) if sort else items


def read_image(path: str) -> Image.Image:
    """Read a picture and convert it to RGB, as Dassl does; of 16 bits the upper 8 are kept.

    A ``DatasetWrapper`` with a reader of its own goes to the ``dataset_wrapper`` of ``DataManager``.

    Raises:
        MissingFileError: There is no file (a FileNotFoundError).
        ImageReadError: It is no regular file, not a picture, damaged, far longer than wide (resizing its shorter side
            would take gigabytes), or has signed, floating or 32-bit values (an OSError).
    """
    if not os.path.exists(path):
        raise MissingFileError(f"No image at {path!r}; check DATASET.ROOT and that the data set is complete")
    try:
        if not os.path.isfile(path):  # a named pipe could be read for ever
            raise ValueError("not a regular file")
        with Image.open(path) as image:
            if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
                image = Image.fromarray(
                    (np.asarray(image) >> 8).astype(np.uint8)
                )  # convert() makes all above 255 white
            short, long = sorted(image.size)
            if long > MAX_RATIO * max(short, 1):
                raise ValueError(f"{image.width} x {image.height} pixels; one side may be {MAX_RATIO} times the other")
            if image.mode in ("I", "F"):
                raise ValueError(f"no rule says which values of mode {image.mode} are black and white")
            return image.convert("RGB")
    except Exception as error:  # decoders raise whatever they like on damaged data
        raise ImageReadError(
            f"Cannot read the image {path!r} ({type(error).__name__}: {error}); mend it, or take it off the list"
        ) from error


def download_url(url: str, dst: str) -> None:
    """Fetch ``url`` to the file ``dst``, with a progress bar."""
    print(f"* url={url!r}\n* destination={dst!r}")
    mkdir_if_missing(os.path.dirname(dst))
    with tqdm(unit="B", unit_scale=True, disable=None, desc=os.path.basename(dst)) as bar:

        def report(blocks, block_size, total):
            bar.total = total if total > 0 else None
            bar.update(blocks * block_size - bar.n)

        urllib.request.urlretrieve(url, dst, reporthook=report)


def collect_env_info() -> str:
    """Return torch's report of the machine and the installed software, and Pillow's version."""
    from torch.utils.collect_env import get_pretty_env_info

    return f"{get_pretty_env_info()}\n        Pillow ({PIL.__version__})"
