"""Find a learner's checkpoint in a run's folder, and fit its weights, ours or official, to the learner."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ...clip_patches.loading import COUNTER
from ...clip_patches.stock import CLIP
from ...clip_patches.weights import check_finite, load_data, state_dict_in
from ...record.json_files import parse_json

Renames = Sequence[tuple[str, str]]

# Where the official code keeps CLIP inside a checkpoint of the whole model.
TOWERS = re.compile(r"^(image_encoder|text_encoder)\.")
# Buffers of the training classes, rebuilt for the classes at hand; and the copy of CLIP's temperature.
REBUILT = re.compile(r"(^|\.)(token_prefix|token_suffix|logit_scale)$")


def checkpoint_path(directory: str | Path, folder: str, epoch: int | None = None) -> Path:
    """Return the file to load: the named file itself, or a checkpoint of a run; see :func:`find_checkpoint`.

    Raises:
        ValueError: An epoch of a single file.
    """
    directory = Path(directory).expanduser()
    if not directory.is_file():
        return find_checkpoint(directory, folder, epoch)
    if epoch is not None:
        raise ValueError(
            f"{directory} is a single file: epoch {epoch} cannot be chosen from it. Leave out --load-epoch, or name "
            "the run's folder"
        )
    return directory


def find_checkpoint(directory: str | Path, folder: str, epoch: int | None = None) -> Path:
    """Return the path of a checkpoint of a run.

    Args:
        directory: Output folder of the training run, or the model folder below it.
        folder: Name of the model folder below it, e.g. ``prompt_learner``.
        epoch: Epoch to load; default the best model, else the file that the folder's ``checkpoint`` names.

    Raises:
        FileNotFoundError: There is none; the message lists what is there.
    """
    root = Path(directory).expanduser()
    here = root / folder
    if root.name == folder and not here.is_dir():
        root, here = root.parent, root
    if not here.is_dir():
        others = sorted(p.parent.name for p in root.glob("*/checkpoint"))
        found = (
            f"it holds checkpoints of another method, in {', '.join(others)}" if others else "it holds no checkpoint"
        )
        raise FileNotFoundError(
            f"{root} has no folder {folder}/ to load from: {found if root.is_dir() else 'it does not exist'}. "
            "Give --model-dir the output folder of a training run of the same trainer"
        )
    pointer = here / "checkpoint"
    if epoch is not None:
        path = here / f"model.pth.tar-{epoch}"
    elif (here / "model-best.pth.tar").is_file() or not pointer.is_file():
        path = here / "model-best.pth.tar"
    else:
        path = here / Path(pointer.read_text(encoding="utf-8", errors="replace").strip() or "model").name
    if not path.is_file():
        there = ", ".join(sorted(p.name for p in here.glob("model*"))) or "no checkpoint"
        raise FileNotFoundError(f"{path} does not exist; {here} holds {there}. Name an epoch with --load-epoch")
    return path


def read_with_notes(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint of Dassl, a bare state dict, or a ``.safetensors`` file, as data.

    Returns:
        The weights, and notes about them: ``epoch`` where it is known; in files that ``clusterprompt.convert`` wrote
        also ``method`` and, where they are known, ``trained_on``, ``classes`` and ``text_source``; the ``metadata`` of
        other programs' files.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no weights, or is damaged.
    """
    if str(path).endswith(".safetensors"):
        return _read_safetensors(path)
    content = load_data(path)
    notes = content if isinstance(content, dict) and {"state_dict", "metadata"} & content.keys() else {}
    return state_dict_in(content, path), _checked(notes)


def _read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a ``.safetensors`` file; only one of this program has notes."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; name a file of weights")
    try:
        with safe_open(str(path), "pt") as file:
            notes = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    if not weights:
        raise ValueError(f"{path} holds no tensors")
    if not notes.get("written_by", "").startswith("clusterprompt"):
        return weights, {key: notes[key] for key in ("epoch",) if key in notes}
    try:
        lists = {key: parse_json(notes.get(key, "null")) for key in ("trained_on", "classes")}
    except ValueError as error:
        raise ValueError(f"{path}: its notes are damaged, trained_on or classes is no JSON ({error})") from error
    return weights, _checked({**notes, **lists})


# What the notes of a checkpoint may be.
_KINDS: dict[str, Any] = {
    "epoch": (int, str),
    "method": str,
    "trained_on": dict,
    "classes": list,
    "text_source": str,
    "metadata": dict,
}


def _checked(notes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the notes that are known and of the right kind."""
    found = {key: notes[key] for key, kind in _KINDS.items() if isinstance(notes.get(key), kind)}
    if not all(isinstance(name, str) for name in found.get("classes", ())):
        del found["classes"]
    return found


def new_name(name: str, renames: Renames) -> str | None:
    """Return a learner's name for an official one; None if the table does not hold it."""
    return next((re.sub(pattern, to, name) for pattern, to in renames if re.fullmatch(pattern, name)), None)


def unknown_entries(state_dict: Mapping[str, Any], renames: Renames) -> str:
    """Say which entries are not those of a learner, or are missing; empty if all is well, or nothing is known.

    Args:
        state_dict: Entries under the learner's own names, or under official ones of a learner registered alone.
        renames: (pattern, replacement) pairs from official names to ours; they hold the learner's names.
    """
    targets = [to for _, to in renames if not to.startswith("\\")]
    own = [re.escape(to).replace(r"\\1", r"[\w.]+") for to in targets]

    def known(name: str) -> bool:
        official = (name, f"prompt_learner.{name}")
        return any(new_name(each, renames) for each in official) or any(re.fullmatch(each, name) for each in own)

    foreign = sorted(name for name in state_dict if not re.fullmatch(r"[\w.]+", name) or (renames and not known(name)))
    named = {new_name(name, renames) or new_name(f"prompt_learner.{name}", renames) or name for name in state_dict}
    missing = sorted({to for to in targets if to.isidentifier()} - named)
    faults = [f"it also holds {', '.join(map(repr, foreign[:6]))}"] if foreign else []
    return "; ".join([*faults, *([f"it lacks {', '.join(missing)}"] if missing else [])])


def learned_entries(
    state_dict: Mapping[str, Tensor], renames: Renames, ignored: Iterable[str] = (), source: str = "checkpoint"
) -> dict[str, Tensor]:
    """Select the learned entries of an official checkpoint, under the learner's names; needs neither learner nor CLIP.

    Raises:
        ValueError: It lacks learned entries, or holds some that the table does not know.
    """
    found, foreign = {}, []
    for name, value in state_dict.items():
        # Some official learners are registered alone, so their names lack the prefix.
        new = new_name(name, renames) or new_name(f"prompt_learner.{name}", renames)
        if new:
            found[new] = value
        elif not (REBUILT.search(name) or TOWERS.match(name) or any(re.fullmatch(i, name) for i in ignored)):
            foreign.append(name)
    if foreign or not found:
        raise ValueError(
            f"{source} does not fit: "
            + (f"it also holds {', '.join(sorted(foreign)[:6])}" if foreign else "nothing in it is learned")
        )
    return found


def check_usable(weights: Mapping[str, Any], source: str | Path) -> None:
    """Check that entries of a learner are finite floating-point tensors, flags, or counters of batch norms.

    Raises:
        ValueError: One is not; it is named.
    """
    flags = {name for name, value in weights.items() if isinstance(value, Tensor) and value.dtype == torch.bool}
    others = {name: value for name, value in weights.items() if name not in flags and not name.endswith(COUNTER)}
    check_finite(others, source)


def learner_weights(
    state_dict: Mapping[str, Tensor],
    learner: nn.Module,
    clip: CLIP,
    renames: Renames = (),
    ignored: Iterable[str] = (),
    source: str = "checkpoint",
) -> dict[str, Tensor]:
    """Select and rename the weights of a learner.

    Args:
        state_dict: From our checkpoint (the learner alone) or an official one (often the whole model).
        learner: Module to load into.
        clip: Stock CLIP; its own weights in the checkpoint are skipped.
        renames: (pattern, replacement) pairs from official names to ours, tried in order on the whole name.
        ignored: Patterns of official entries that are not loaded.
        source: Name of the file, for errors.

    Raises:
        ValueError: Something is missing, something belongs to another method, or a shape differs.
    """
    wanted = dict(learner.state_dict())
    own = set(clip.state_dict())
    frozen = own | {name.removeprefix("visual.") for name in own if name.startswith("visual.")}
    found, foreign = {}, []
    for name, value in state_dict.items():
        name = name.removeprefix("module.")  # of DataParallel
        new = new_name(name, renames) or name
        if new in wanted:
            found[new] = value
        elif REBUILT.search(name) or TOWERS.sub("", name) in frozen or any(re.fullmatch(i, name) for i in ignored):
            continue
        else:
            foreign.append(name)
    missing = sorted(set(wanted) - set(found))
    if missing or foreign:
        faults = [
            f"{what} {', '.join(names[:6])}{' ...' if len(names) > 6 else ''}"
            for what, names in (("it lacks", missing), ("it also holds", sorted(foreign)))
            if names
        ]
        raise ValueError(
            f"{source} does not fit {type(learner).__name__}: {'; '.join(faults)}. It was written by another method, "
            "or with other settings (prompt depth); use the same trainer and config as in training"
        )
    check_usable(found, source)
    wrong = [
        f"{n} is {tuple(found[n].shape)} in the file and {tuple(wanted[n].shape)} here"
        for n in wanted
        if found[n].shape != wanted[n].shape
    ]
    if wrong:
        raise ValueError(
            f"{source} does not fit: {'; '.join(wrong[:6])}. Use the same backbone, number of context tokens and "
            "(for class-specific contexts) the same classes as in training"
        )
    return {name: value.float() for name, value in found.items()}
