"""Convert a checkpoint to its small form: the learner alone, under this project's names."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from .. import __version__, dassl_compat
from ..record.files import atomic_path, write_bytes, write_text
from ..record.result import RunRecord
from .classifier import one_line_if_damaged


class Converted(NamedTuple):
    """A checkpoint that was written.

    Attributes:
        path: The file.
        trainer: Name of the method.
        weights: The learner's tensors by name.
    """

    path: Path
    trainer: str
    weights: dict[str, Tensor]


def convert(
    source: str | Path,
    out: str | Path,
    *,
    trainer: str = "",
    epoch: int | None = None,
    safetensors: bool = False,
    classes: Sequence[str] = (),
    backbone: str = "",
) -> Converted:
    """Write the learner of a checkpoint, official or of this project.

    Neither CLIP nor a data set is needed.

    Args:
        source: Checkpoint file, or output folder of a run.
        out: Folder to write, in the layout that ``--model-dir`` reads; or one file, if it ends in ``.safetensors``.
        trainer: Method, where the checkpoint does not tell.
        epoch: Epoch to take out of a folder; default the best model, else the last.
        safetensors: Write a file; the ending is added to ``out`` where it lacks it.
        classes: Class names for the metadata, in order of the labels; default those that the checkpoint names.
        backbone: Backbone for the metadata; default that of the run's record.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: It is damaged, of another method than ``trainer``, of none or several known, or ``out`` holds a
            checkpoint of that name.
    """
    dassl_compat.prepare()
    from ..trainers.parts.checkpoints import read_with_notes
    from ..trainers.parts.origin import origin_of

    source, out = checkpoint_file(Path(source).expanduser(), epoch), Path(out).expanduser()
    record = RunRecord.find(source.parent.parent)
    with one_line_if_damaged(source):
        state, notes = read_with_notes(source)
    writer, trained_on, named, texts = origin_of(source, notes)
    if trainer and writer and writer != trainer:
        raise ValueError(
            f"--trainer {trainer}: {source} was written by {writer}, say the file or result.json beside it"
        )
    name = trainer or writer or guess(source.parent.name, state)
    method = _method(name)
    weights = _learner_weights(state, method, source)
    if safetensors and out.suffix != ".safetensors":
        out = out.with_name(out.name + ".safetensors")
    about: dict[str, Any] = {
        "epoch": notes.get("epoch", "?"),
        "method": name,
        "trained_on": trained_on,
        "classes": list(classes or named),
        "text_source": texts,
    }
    if out.suffix == ".safetensors":
        write_safetensors(out, weights, metadata(about, backbone, record))
    else:
        out = write_folder(out / method.checkpoint_folder, source.name, weights, about)
    return Converted(out, name, weights)


def _method(name: str):
    """Return a method's class; raise ValueError where there is none of that name."""
    from ..registration import own_trainers

    trainers = {cls.__name__: cls for cls in own_trainers()}
    if name not in trainers:
        raise ValueError(f"--trainer {name}: no such method; allowed are {', '.join(trainers)}")
    return trainers[name]


def _learner_weights(state: dict[str, Tensor], method, source: Path) -> dict[str, Tensor]:
    """Return the learner's entries of a checkpoint under this project's names, in fp32."""
    from ..trainers.parts.checkpoints import REBUILT, TOWERS, check_usable, learned_entries, unknown_entries

    if any(REBUILT.search(key) or TOWERS.match(key) for key in state):  # only official ones hold these
        try:
            state = learned_entries(state, method.official_names, method.official_ignored, str(source))
        except ValueError as error:
            raise ValueError(
                f"{error}. It is not a checkpoint of {method.__name__}; name the right method with --trainer"
            ) from error
    elif fault := unknown_entries(state, method.official_names):
        raise ValueError(
            f"{source} is not a checkpoint of {method.__name__}: {fault}; name the right method with --trainer"
        )
    check_usable(state, source)
    return {key: value.float().contiguous().clone() for key, value in state.items()}


def checkpoint_file(source: Path, epoch: int | None) -> Path:
    """Return the checkpoint in a run's or a model's folder, or the file that was named.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The folder holds several models.
    """
    from ..trainers.parts.checkpoints import find_checkpoint

    if source.is_file():
        return source
    if not source.is_dir():
        raise FileNotFoundError(f"{source} does not exist; name a checkpoint file, or the output folder of a run")
    models = sorted({path.parent for path in [*source.glob("model*.pth.tar*"), *source.glob("*/model*.pth.tar*")]})
    if not models:
        raise FileNotFoundError(
            f"{source} holds no checkpoint (model.pth.tar-<epoch> or model-best.pth.tar, "
            "in a folder such as prompt_learner)"
        )
    if len(models) > 1:
        raise ValueError(
            f"{source} holds several models, in {', '.join(path.name for path in models)}; name one of these folders"
        )
    return find_checkpoint(str(models[0].parent), models[0].name, epoch)


def guess(folder: str, state: dict[str, Tensor]) -> str:
    """Tell the method from the folder's name and the entries' names.

    Raises:
        ValueError: None fits, or several do.
    """
    from ..trainers.parts.origin import methods_by_names

    fits = methods_by_names(folder, state)
    if len(fits) != 1:
        what = f"candidates: {', '.join(fits)}" if fits else f"nothing known fits {', '.join(list(state)[:5])}"
        raise ValueError(f"the checkpoint does not tell which method wrote it; {what}. Name it with --trainer")
    return fits[0]


def metadata(about: dict[str, Any], backbone: str, record: RunRecord | None) -> dict[str, str]:
    """Return what goes into a safetensors file beside the weights; all of it text."""
    backbone = backbone or (record.backbone if record else "")
    found = {
        "method": about["method"],
        "epoch": str(about["epoch"]),
        "text_source": about["text_source"],
        "format": "pt",
        "written_by": f"clusterprompt {__version__}",
    }
    found |= {key: json.dumps(about[key]) for key in ("trained_on", "classes") if about[key]}
    if backbone:
        found["backbone"] = backbone
    if record and record.config:
        found["config"] = json.dumps(record.config)
    return found


def write_safetensors(path: Path, weights: dict[str, Tensor], about: dict[str, str]) -> None:
    """Write one file, whole or not at all."""
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, save(weights, metadata=about))


def write_folder(folder: Path, name: str, weights: dict[str, Tensor], about: dict[str, Any]) -> Path:
    """Write a checkpoint in Dassl's layout, and the file ``checkpoint`` that names it; return its path.

    Raises:
        ValueError: There is a checkpoint of that name already.
    """
    import torch

    if not re.fullmatch(r"model(-best)?\.pth\.tar(-\d+)?", name):
        name = f"model.pth.tar-{about['epoch'] if isinstance(about['epoch'], int) else 0}"
    path = folder / name
    if path.exists():
        raise ValueError(f"{path} exists already; remove it, or name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        torch.save(
            {"state_dict": weights, **about, "optimizer": None, "scheduler": None, "val_result": None}, temporary
        )
    write_text(folder / "checkpoint", f"{path.name}\n")
    return path
