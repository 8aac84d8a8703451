"""Load a CLIP by name, by path, or the embedded one; set precision and device. Nothing else imports ``clip``."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from .stock import CLIP
from .weights import check_finite, load_data, state_dict_in

PRECISIONS = ("fp32", "amp", "fp16", "bf16")
EMBEDDED = "tiny"
CONTEXT = 77  # tokens of a text, SOS and EOT included, in the embedded CLIP and all of OpenAI's
BESIDE = "clusterprompt_openai_clip"  # the name under which OpenAI's package is imported where ``clip`` is taken
HOW = "install OpenAI's with: pip install 'setuptools<81' && pip install --no-build-isolation openai-clip"
NOTES = ("input_resolution", "context_length", "vocab_size")  # integers beside the weights in OpenAI's archives
COUNTER = ".num_batches_tracked"  # the one integer buffer of a CLIP, in batch norms
WAY_OUT = (
    f"use the embedded one (MODEL.BACKBONE.NAME {EMBEDDED}; BACKBONE={EMBEDDED} for the scripts), an OpenAI name, or "
    "the path of a local CLIP checkpoint"
)


def import_clip() -> ModuleType:
    """Import OpenAI's ``clip``.

    Where an edited copy lies beside somebody's ``train.py``, as in MaPLe, the installed package is imported all the
    same.

    Raises:
        ImportError: It is not installed, or the installed ``clip`` is PyPI's unrelated clipboard tool.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pkg_resources.*")
        try:
            clip = importlib.import_module("clip")
        except ModuleNotFoundError as error:
            raise ImportError(f"CLIP is not importable ({error}); {HOW}") from error
    if not hasattr(clip, "tokenize") or not hasattr(clip, "available_models"):
        raise ImportError(
            f"the installed package 'clip' ({getattr(clip, '__file__', '?')}) is not OpenAI's CLIP but another "
            f"project of that name; remove it (pip uninstall clip) and {HOW}"
        )
    model = importlib.import_module("clip.model")
    edited = len(inspect.signature(model.build_model).parameters) > 1
    return _import_beside(Path(str(clip.__file__)).parent) if edited else clip


def _import_beside(edited: Path) -> ModuleType:
    """Import OpenAI's ``clip`` under the name :data:`BESIDE`, past an edited copy of it."""
    if BESIDE not in sys.modules:
        places = [place for place in sys.path if Path(place).resolve() != edited.resolve().parent]
        found = importlib.machinery.PathFinder.find_spec("clip", places)
        spec = None
        if found is not None and found.origin:
            spec = importlib.util.spec_from_file_location(
                BESIDE, found.origin, submodule_search_locations=found.submodule_search_locations
            )
        if spec is None or spec.loader is None:
            raise ImportError(
                f"the package 'clip' at {edited} is an edited copy (its build_model takes more than the weights), and "
                f"OpenAI's own is needed beside it; {HOW}"
            )
        package = sys.modules[BESIDE] = importlib.util.module_from_spec(spec)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*pkg_resources.*")
                spec.loader.exec_module(package)
        except BaseException:
            del sys.modules[BESIDE]
            raise
    return sys.modules[BESIDE]


def tokenize(texts: Iterable[str], context_length: int = 77) -> Tensor:
    """Tokenise sentences with OpenAI's tokenizer.

    Returns:
        Token ids, padded with 0, (C, context_length).

    Raises:
        ValueError: A sentence is longer than CLIP's context.
    """
    try:
        return import_clip().tokenize(list(texts), context_length).long()
    except RuntimeError as error:
        raise ValueError(f"{error}; shorten the class name or the sentence") from error


def token_ids(text: str) -> list[int]:
    """Return the tokens of a text of any length, without SOS and EOT."""
    module = importlib.import_module(".clip", import_clip().__name__)
    return module._tokenizer.encode(text)


def is_known(name: str) -> bool:
    """Tell whether a CLIP is the embedded one or one of OpenAI's, by its name."""
    return name == EMBEDDED or name in import_clip().available_models()


def load_clip(
    name: str, precision: str = "fp32", device: str | torch.device = "cpu", download_root: str | None = None
) -> CLIP:
    """Load a frozen CLIP in eval mode.

    Args:
        name: ``tiny`` for the embedded model, an OpenAI name such as ``ViT-B/16`` (downloaded on first use), or the
            path of an archive as OpenAI publishes them or of a state dict.
        precision: ``fp32``; ``amp`` (fp32 weights, to be run under autocast); ``fp16`` or ``bf16`` weights as OpenAI's
            own conversion does it (layer norms and embeddings stay fp32).
        device: Device of the model.
        download_root: Folder of downloaded weights; default ``~/.cache/clip``.

    Returns:
        ``clip.model.CLIP``, no parameter requiring a gradient. Torch's random state is left as it was.

    Raises:
        ValueError: Unknown name or precision, or a file that holds no CLIP.
        FileNotFoundError: A path that does not exist.
        ConnectionError: The weights could not be downloaded.
    """
    check_precision(precision)
    state_dict = _state_dict(name, download_root)
    with torch.random.fork_rng(devices=[]):  # building draws weights that are then overwritten
        try:
            with torch.device("meta"), warnings.catch_warnings():  # sizes first: names alone could ask for any memory
                warnings.simplefilter("ignore")
                _clip_model().build_model(dict(state_dict))
            model = _clip_model().build_model(dict(state_dict))
        except (KeyError, RuntimeError, ValueError, TypeError, IndexError, ArithmeticError, AssertionError) as error:
            raise ValueError(
                f"{name} does not hold the weights of an OpenAI CLIP: {str(error)[:300]}; {WAY_OUT}"
            ) from error
    model.requires_grad_(False)
    return set_precision(model.float().to(device).eval(), precision)


def untrained_clip(geometry: Sequence[int], embedding: Tensor | None = None) -> CLIP:
    """Build a CLIP with random weights, fp32, every parameter requiring a gradient.

    Args:
        geometry: Arguments of ``clip.model.CLIP``, in its order.
        embedding: Token embeddings in place of the drawn ones, (rows, D_t); any number of rows.
    """
    clip = _clip_model().CLIP(*geometry).float()
    if embedding is not None:
        clip.token_embedding = nn.Embedding.from_pretrained(embedding, freeze=False)
    return clip


def check_precision(precision: str) -> None:
    """Raise ``ValueError`` unless ``precision`` is one of :data:`PRECISIONS`."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is unknown; allowed are {', '.join(PRECISIONS)}")


def set_precision(model: CLIP, precision: str) -> CLIP:
    """Cast a fp32 CLIP in place to the weights of a precision mode, and return it."""
    check_precision(precision)
    if precision in ("fp16", "bf16"):
        _clip_model().convert_weights(model)
    if precision == "bf16":
        for p in model.parameters():
            if p.dtype == torch.float16:
                p.data = p.data.to(torch.bfloat16)
    return model


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the context of the forward pass: with ``amp``, fp16 autocast on a GPU and bf16 on a CPU; else nothing."""
    dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision == "amp")


def _clip_model() -> ModuleType:
    return importlib.import_module(".model", import_clip().__name__)


def is_published(name: str) -> bool:
    """Tell whether a backbone is the embedded one or one of OpenAI's, by name: nothing else is opened for it."""
    return name == EMBEDDED or name in import_clip().available_models()


def _state_dict(name: str, download_root: str | None) -> dict[str, Tensor]:
    if name == EMBEDDED:
        from .embedded_clip import embedded_state_dict

        return embedded_state_dict()
    clip = import_clip()
    path = Path(os.path.expandvars(name)).expanduser()
    if name in clip.available_models():  # also where a file of that name lies here
        path = _download(name, download_root)
    elif not path.is_file():
        looks_like_path = os.sep in name or path.suffix in (".pt", ".pth", ".bin")
        kind = FileNotFoundError if looks_like_path and not name.startswith(("ViT-", "RN")) else ValueError
        raise kind(
            f"CLIP backbone {name!r} is neither a file nor a known name; {WAY_OUT}. "
            f"OpenAI's names: {', '.join(clip.available_models())}"
        )
    return read_weights(path)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read CLIP's weights from an archive as OpenAI publishes them, or from a saved state dict; see :mod:`.weights`.

    Raises:
        ValueError: The file is neither, or damaged, or a tensor in it is not finite or of another kind.
    """
    weights = state_dict_in(load_data(path), path)
    if "text_projection" not in weights:
        raise ValueError(
            f"{path} holds no CLIP state dict (no 'text_projection', but {', '.join(sorted(weights)[:3])}); {WAY_OUT}"
        )
    weights = {name: value for name, value in weights.items() if name not in NOTES}
    check_finite({name: value for name, value in weights.items() if not name.endswith(COUNTER)}, path)
    return weights


def _download(name: str, download_root: str | None) -> Path:
    clip_module = importlib.import_module(".clip", import_clip().__name__)
    root = download_root or os.path.expanduser("~/.cache/clip")
    url = clip_module._MODELS[name]
    try:
        return Path(clip_module._download(url, root))
    except (OSError, RuntimeError) as error:
        raise ConnectionError(
            f"the weights of {name} could not be fetched from {url}: {error}. Put the file into {root} "
            f"yourself, or {WAY_OUT}"
        ) from error
