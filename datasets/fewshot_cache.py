"""Read the few-shot samples that CoOp leaves as pickles beside the images. We never write any: the seed says the same.

A pickle can run code when it is loaded. These are read so that nothing but Dassl's Datum and plain containers can come
out, and a Datum comes out as a record that is looked up in the split: the cache can choose among the listed images and
do nothing else.
"""

import os
import pickle
from collections.abc import Sequence
from typing import Any

DATUM = ("dassl.data.datasets.base_dataset", "Datum")


class _Record:
    """Stands in for the pickled Datum; holds its fields and has no behaviour."""


class _Unpickler(pickle.Unpickler):
    """Unpickles plain containers and Datum."""

    def find_class(self, module: str, name: str) -> type:
        """Return the stand-in for Datum; refuse every other class."""
        if (module, name) == DATUM:
            return _Record
        raise pickle.UnpicklingError(
            f"it refers to '{module}.{name}', and only Dassl's Datum is allowed; nothing was run"
        )


def load(path: str, train: Sequence[Any], val: Sequence[Any] | None, image_dir: str) -> tuple[list, list | None]:
    """Return the cached choice from ``train`` and ``val``.

    Absolute paths of another place are found again below ``image_dir`` by their longest ending that the split lists.

    Args:
        path: The pickle, ``{"train": [Datum, ...], "val": [Datum, ...]}``; "val" may be absent.
        train, val: The full lists of the split; val is None where the data set has none.
        image_dir: What the split's paths are relative to.

    Returns:
        Two lists of items of ``train`` and ``val``; the second is None where either has no "val".

    Raises:
        ValueError: The file is damaged, holds anything else, or does not belong to this split.
    """
    try:
        with open(path, "rb") as file:
            content = _Unpickler(file).load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise _refuse(path, f"cannot be read: {error or type(error).__name__}") from error
    if not isinstance(content, dict) or not isinstance(content.get("train"), list):
        raise _refuse(path, "does not hold the lists 'train' and 'val'")
    chosen = _choose(path, content["train"], train, image_dir)
    if content.get("val") is None or val is None:
        return chosen, None
    return chosen, _choose(path, content["val"], val, image_dir)


def relative(impath: str, image_dir: str) -> str:
    """Return ``impath`` relative to ``image_dir``, with forward slashes."""
    if impath.startswith(image_dir + os.sep):  # nearly always, and much faster: ImageNet has over a million of them
        return impath[len(image_dir) + 1 :].replace(os.sep, "/")
    return os.path.relpath(impath, image_dir).replace(os.sep, "/")


def _choose(path: str, records: Sequence[Any], items: Sequence[Any], image_dir: str) -> list:
    """Return the items that the cached records name."""
    listed = {relative(item.impath, image_dir): item for item in items}
    return [_find(path, record, listed) for record in records]


def _find(path: str, record: Any, listed: dict[str, Any]) -> Any:
    """Return the item that a cached record names."""
    fields = vars(record) if isinstance(record, _Record) else {}
    impath = fields.get("_impath")
    if not isinstance(impath, str):
        raise _refuse(path, "holds an entry that is not a Datum")
    parts = impath.replace("\\", "/").split("/")
    for start in range(len(parts)):
        item = listed.get("/".join(parts[start:]))
        if item is not None:
            break
    else:
        raise _refuse(path, f"names an image that this split does not list: {impath}")
    if (fields.get("_label"), fields.get("_classname")) != (item.label, item.classname):
        raise _refuse(
            path,
            f"calls {impath} {fields.get('_label')} '{fields.get('_classname')}', the split {item.label} "
            f"'{item.classname}'",
        )
    return item


def _refuse(path: str, why: str) -> ValueError:
    """Return the error for a cache that cannot be used."""
    return ValueError(
        f"Few-shot cache {path} {why}. Delete the file, or move it away: the sample is then drawn from the seed."
    )
