"""Files of weights, read as data: no code of a file is ever run.

Zip archives of ``torch.save`` and of TorchScript are both a pickle beside raw numbers. PyTorch loads the second kind as
a program, and has no safe way to do otherwise. Here the pickle rebuilds plain containers and tensors; everything else
in it becomes an inert :class:`Record`, which holds what was saved and does nothing.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
LARGEST_PICKLE = 1 << 28  # bytes; the numbers lie beside the pickle, so it is small
NESTED = ("state_dict", "model_state_dict", "model", "weights")  # where training programs keep a model's weights
DEEPEST = 10  # dicts in dicts that are looked into
SAVE = "torch.save(model.state_dict(), FILE)"


class Record:
    """Stands for an object of some class in a file: it holds the saved fields and does nothing."""

    kind = ""  # full name of the class

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.fields: dict[Any, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.fields = state if isinstance(state, dict) else {}

    def __setitem__(self, key: Any, value: Any) -> None:
        """Drop entries of dicts, lists and the like of other libraries."""

    def append(self, value: Any) -> None:
        """Drop an entry."""

    def extend(self, values: Any) -> None:
        """Drop entries."""


def load_data(path: str | Path) -> Any:
    """Read a file of ``torch.save`` or a TorchScript archive onto the CPU, without running code from it.

    Returns:
        What was saved, with a :class:`Record` for every object that is neither a plain container nor a dense tensor. A
        TorchScript module, and a module that was pickled as a whole, are Records too; see :func:`module_weights`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        kind = "is not a regular file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{path} {kind}; name a file of weights")
    try:
        with open(path, "rb") as file:
            head = file.read(8)
            if head[:4] == b"PK\x03\x04":
                return _Archive(file).load()
            _refuse_others(path, head)
            return torch.load(path, map_location="cpu", weights_only=True)  # as torch wrote before 1.6
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # torch, zipfile and pickle raise a dozen types on damaged files
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        if foreign:
            raise ValueError(
                f"{path}: it holds an object of {foreign[1]}, in a format that is only read as plain tensors; save the "
                f"weights alone: {SAVE}"
            ) from error
        reason = _one_line(error)
        raise ValueError(
            f"{path}: it is cut short or damaged ({reason}); copy it again from where it came from"
        ) from error


def _one_line(error: BaseException) -> str:
    """Return the first line of an error without its terminal codes, at most 160 characters."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip() or type(error).__name__
    return text.splitlines()[0][:160]


def _refuse_others(path: Path, head: bytes) -> None:
    """Raise ValueError for what is not a pickle of torch's, and say what it is."""
    if tarfile.is_tarfile(path):  # torch's oldest format; torch before 2.6 runs code from it in spite of weights_only
        raise ValueError(f"it is a tar archive; load it where it was written, and save the weights: {SAVE}")
    if not head:
        raise ValueError("it is empty; copy it again from where it came from")
    if head[:1] != b"\x80":
        raise ValueError(
            f"it is not a file of weights (it begins with {head!r}); allowed are files of torch.save and TorchScript "
            "archives"
        )


class _Archive:
    """A zip archive of ``torch.save`` or TorchScript.

    Args:
        file: The open file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.zip = zipfile.ZipFile(file)
        names = self.zip.namelist()
        found = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(found) != 1:
            raise ValueError(
                f"it is a zip archive, but none of weights (no single data.pkl); save the weights with {SAVE}"
            )
        self.root = found[0].removesuffix("data.pkl")
        self._check_sizes()
        order = f"{self.root}byteorder"
        if order in names and self.read("byteorder") != sys.byteorder.encode():
            raise ValueError("its numbers are of the other byte order; save it again on a machine like this one")
        self.storages: dict[tuple[str, torch.dtype], Tensor] = {}

    def _check_sizes(self) -> None:
        """Raise ValueError for archives that hold more than their own size: PyTorch never compresses."""
        entries = self.zip.infolist()
        size = self.zip.fp.seek(0, io.SEEK_END) if self.zip.fp else 0
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries if not self._is_code(entry))
        if packed or sum(entry.compress_size for entry in entries) > size:
            raise ValueError(
                f"its entries are compressed or overlap, as PyTorch never writes them; save it with {SAVE}"
            )
        if self.zip.getinfo(f"{self.root}data.pkl").file_size > LARGEST_PICKLE:
            raise ValueError(f"its data.pkl is larger than {LARGEST_PICKLE >> 20} MB, as no model's is")

    def _is_code(self, entry: zipfile.ZipInfo) -> bool:
        return entry.filename.startswith(f"{self.root}code/")

    def read(self, name: str) -> bytes:
        """Return an entry's bytes; their checksum is compared."""
        return self.zip.read(self.root + name)

    def load(self) -> Any:
        """Return the content of ``data.pkl``."""
        content = _Unpickler(io.BytesIO(self.read("data.pkl")), self).load()
        if isinstance(content, Record) and content.kind.startswith("__torch__"):
            content.fields[DECLARED] = self._declared()
        return content

    def _declared(self) -> dict[str, set[str]]:
        """Return the names of parameters and buffers by TorchScript class, as its listing declares them."""
        declared: dict[str, set[str]] = {}
        for entry in self.zip.infolist():
            if not self._is_code(entry) or not entry.filename.endswith(".py") or entry.file_size > LARGEST_PICKLE:
                continue
            module = entry.filename.removeprefix(f"{self.root}code/").removesuffix(".py").replace("/", ".")
            names: set[str] = set()
            for line in self.zip.read(entry).decode("utf-8", "replace").splitlines():
                if opened := re.match(r"class (\w+)\(Module\):", line):
                    names = declared.setdefault(f"{module}.{opened[1]}", set())
                elif re.match(r"  __(parameters|buffers)__ = \[", line):
                    names.update(re.findall(r'"([^"]+)"', line))
        return declared

    def storage(self, saved: tuple) -> Tensor:
        """Return the numbers of a persistent id, ("storage", type, key, device, count), flat."""
        _, kind, key, _, count = saved
        dtype = torch.uint8 if kind == "UntypedStorage" else STORAGES.get(kind)
        if dtype is None or not isinstance(key, str) or not isinstance(count, int):
            raise ValueError(f"it holds numbers of an unknown kind ({kind})")
        if (key, dtype) not in self.storages:
            content = bytearray(self.read(f"data/{key}"))
            if len(content) != count * dtype.itemsize:
                raise ValueError(f"its entry data/{key} has {len(content)} bytes in place of {count * dtype.itemsize}")
            flat = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            self.storages[key, dtype] = flat
        return self.storages[key, dtype]


DECLARED = "__declared__"


class _Unpickler(pickle.Unpickler):
    """Rebuild containers and tensors; make a :class:`Record` of everything else.

    Classes and functions are made for each file, so that nothing a file sets on them outlives it.
    """

    def __init__(self, file: BinaryIO, archive: _Archive) -> None:
        super().__init__(file, encoding="utf-8")
        self.archive = archive
        self.classes: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name in the file stands for: never the object of that name."""
        full = f"{module}.{name}"
        if module in ("torch", "torch.storage") and (name in STORAGES or name == "UntypedStorage"):
            return name
        if full not in self.classes:
            self.classes[full] = self._stand_in(full)
        return self.classes[full]

    def _stand_in(self, full: str) -> Any:
        if full in ("collections.OrderedDict", "collections.defaultdict", "builtins.dict"):
            return type("Entries", (dict,), {"__init__": lambda *_: None, "__setstate__": lambda *_: None})
        if full == "torch._utils._rebuild_tensor_v2":
            return lambda storage, offset, size, stride, *_: dense(storage, offset, size, stride)
        if full in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
            return lambda data, *_: data
        if full == "torch.jit._pickle.restore_type_tag":
            return lambda value, *_: value
        if full.startswith("torch.jit._pickle.build_"):
            return lambda value, *_: value
        if full == "torch.Size":
            return lambda values=(), *_: tuple(values)
        if full in ("builtins.set", "builtins.list", "builtins.tuple", "builtins.frozenset"):
            return lambda values=(), *_: list(values)
        return type("Foreign", (Record,), {"kind": full})

    def persistent_load(self, saved: Any) -> Tensor:
        """Return the numbers that the pickle refers to."""
        if not isinstance(saved, tuple) or len(saved) != 5 or saved[0] != "storage":
            raise ValueError("it refers to something other than numbers")
        return self.archive.storage(saved)


def dense(storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    """Return a view of flat numbers, within their bounds and never larger than them.

    Raises:
        ValueError: It would be.
    """
    fits = isinstance(storage, Tensor) and isinstance(offset, int) and offset >= 0
    fits = fits and isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= 32
    fits = fits and all(isinstance(n, int) and 0 <= n < 1 << 40 for n in (*size, *stride))
    if not fits or math.prod(size) > storage.numel():
        raise ValueError("it holds a tensor whose shape does not fit its numbers")
    return storage.as_strided(size, stride, offset)  # checks the last index


def module_weights(content: Any) -> dict[str, Tensor] | None:
    """Return the parameters and buffers of a TorchScript module by name; None for anything else."""
    if not isinstance(content, Record) or not content.kind.startswith("__torch__"):
        return None
    return dict(_walk(content, "", content.fields.get(DECLARED, {}), set()))


def _walk(
    module: Record, prefix: str, declared: Mapping[str, set[str]], above: set[int]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of a module and of those below it."""
    names = declared.get(module.kind)
    for name, value in module.fields.items():
        if isinstance(value, Tensor) and (names is None or name in names):
            yield f"{prefix}{name}", value
        elif isinstance(value, Record) and id(value) not in above and len(above) < 50:
            yield from _walk(value, f"{prefix}{name}.", declared, above | {id(value)})


def state_dict_in(content: Any, path: str | Path) -> dict[str, Tensor]:
    """Return the weights by name in what a file holds: a TorchScript module, a state dict, or a dict around one.

    A leading ``module.``, which DataParallel puts before each name, is taken off.

    Raises:
        ValueError: There are none; the message says what the file holds, and how to save a state dict.
    """
    weights = module_weights(content)
    if weights is None and isinstance(content, Record):
        raise ValueError(
            f"{path} holds a whole pickled object ({content.kind}), which only its own program can read. Load it "
            f"there, and save its weights alone: {SAVE}"
        )
    if weights is None and isinstance(content, dict):
        inner = next((content[key] for key in NESTED if isinstance(content.get(key), (dict, Record))), content)
        if isinstance(inner, Record):
            return state_dict_in(inner, path)
        weights = inner
    if weights is None:
        raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict; save one: {SAVE}")
    if not weights:
        raise ValueError(f"{path} holds an empty state dict; save the weights of a model: {SAVE}")
    return {name.removeprefix("module."): value for name, value in _flat(weights)}


def _flat(weights: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the entries of nested dicts, with dots between the names."""
    for name, value in weights.items():
        if isinstance(value, dict) and value and prefix.count(".") < DEEPEST:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def check_finite(weights: Mapping[str, Any], path: str | Path) -> None:
    """Check that weights are real floating-point tensors without NaN or infinity.

    Raises:
        ValueError: One is not; it is named.
    """
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            kind = value.kind if isinstance(value, Record) else type(value).__name__
            raise ValueError(
                f"{path} cannot be used: its entry {name!r} is no tensor but a {kind}; save it with {SAVE}"
            )
        if not value.is_floating_point():
            raise ValueError(
                f"{path} cannot be used: its tensor {name!r} holds {str(value.dtype).removeprefix('torch.')} numbers; "
                "weights are float32, float16, bfloat16 or float64"
            )
        if not bool(torch.isfinite(value).all()):
            raise ValueError(
                f"{path} cannot be used: its tensor {name!r} holds NaN or infinite numbers; take an earlier "
                "checkpoint, or train again with a lower learning rate"
            )
