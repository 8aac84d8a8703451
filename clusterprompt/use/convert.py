"""Write the small form of a checkpoint: the learner alone, under this project's names.

    python -m clusterprompt.convert SOURCE OUT [--trainer NAME] [--safetensors]

SOURCE is a checkpoint file, or the output folder of a run: an official one (CoOp's, MaPLe's, PromptSRC's, ... layout,
often with all of CLIP in it), or one of this project. Neither CLIP nor a data set is needed. OUT becomes a folder that
``--model-dir`` reads, or, if it ends in ``.safetensors``, one file with metadata: method, epoch and, where they are
known, classes, backbone and config.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from .. import __version__, dassl_compat
from ..record import folder as run_folder


def main(argv=None):
    """Run one command line; see the module.

    Raises:
        SystemExit: Code 2, after one line on stderr, for a file that cannot be converted.
    """
    parser = argparse.ArgumentParser(
        prog="python -m clusterprompt.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", help="checkpoint file, or output folder of a run")
    parser.add_argument("out", help="folder to write, or a name that ends in .safetensors")
    parser.add_argument("--trainer", default="", help="method, where the checkpoint does not tell")
    parser.add_argument(
        "--epoch", type=int, help="epoch to take out of a folder; default: the best model, else the last"
    )
    parser.add_argument("--safetensors", action="store_true", help="write OUT.safetensors")
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="class names for the metadata, in order of the labels"
    )
    parser.add_argument("--backbone", default="", help="backbone for the metadata, such as ViT-B/16")
    args = parser.parse_args(argv)
    dassl_compat.prepare()
    try:
        written, trainer, weights = convert(args)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    numbers = sum(value.numel() for value in weights.values())
    print(f"{written}: {trainer}, {len(weights)} tensors, {numbers:,} numbers, {written.stat().st_size / 1e6:.2f} MB")


def convert(args) -> tuple:
    """Convert as the parsed command line says; return the file, the method and the weights."""
    from ..registration import own_trainers
    from ..trainers.parts.checkpoints import REBUILT, TOWERS, learned_entries, read_with_notes
    from ..trainers.parts.origin import origin_of

    source = checkpoint_file(Path(args.source).expanduser(), args.epoch)
    result = run_folder.read_result(source.parent.parent)
    state, notes = read_with_notes(source)
    epoch, (writer, trained_on, classes) = notes.get("epoch", "?"), origin_of(source, notes)
    trainers = {cls.__name__: cls for cls in own_trainers()}
    if args.trainer and writer and writer != args.trainer:
        raise ValueError(
            f"--trainer {args.trainer}: {source} was written by {writer}, say the file or result.json beside it"
        )
    name = args.trainer or writer or guess(source.parent.name, state)
    if name not in trainers:
        raise ValueError(f"--trainer {name}: no such method; allowed are {', '.join(trainers)}")
    trainer = trainers[name]
    if any(REBUILT.search(key) or TOWERS.match(key) for key in state):  # only official ones hold these
        try:
            weights = learned_entries(state, trainer.official_names, trainer.official_ignored, str(source))
        except ValueError as error:
            raise ValueError(
                f"{error}. It is not a checkpoint of {name}; name the right method with --trainer"
            ) from error
    else:
        weights = state
    weights = {key: value.float().contiguous() for key, value in weights.items()}
    out = Path(args.out).expanduser()
    if args.safetensors and out.suffix != ".safetensors":
        out = out.with_name(out.name + ".safetensors")
    if out.suffix == ".safetensors":
        write_safetensors(out, weights, metadata(name, epoch, trained_on, args.classes or classes, args, result))
    else:
        out = write_folder(
            out / trainer.checkpoint_folder,
            source.name,
            weights,
            {"epoch": epoch, "method": name, "trained_on": trained_on, "classes": args.classes or list(classes)},
        )
    return out, name, weights


def checkpoint_file(source: Path, epoch) -> Path:
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
            f"{source} holds no checkpoint (model.pth.tar-<epoch> or model-best.pth.tar, in a folder such as prompt_learner)"
        )
    if len(models) > 1:
        raise ValueError(
            f"{source} holds several models, in {', '.join(path.name for path in models)}; name one of these folders"
        )
    return find_checkpoint(str(models[0].parent), models[0].name, epoch)


def guess(folder: str, state: dict) -> str:
    """Tell the method from the folder's name and the entries' names.

    Raises:
        ValueError: None fits, or several do.
    """
    from ..trainers.parts.origin import methods_by_names

    fits = methods_by_names(folder, state)
    if len(fits) != 1:
        what = f"it may be of {', '.join(fits)}" if fits else f"nothing known fits {', '.join(list(state)[:5])}"
        raise ValueError(f"the checkpoint does not tell which method wrote it: {what}. Name it with --trainer")
    return fits[0]


def metadata(trainer: str, epoch, trained_on, classes, args, result: dict) -> dict:
    """Return what goes into a safetensors file beside the weights; all of it text."""
    backbone = args.backbone or result.get("backbone")
    found = {"method": trainer, "epoch": str(epoch), "format": "pt", "written_by": f"clusterprompt {__version__}"}
    if trained_on:
        found["trained_on"] = json.dumps(trained_on)
    if classes:
        found["classes"] = json.dumps(list(classes))
    if backbone:
        found["backbone"] = str(backbone)
    if result.get("config"):
        found["config"] = json.dumps(result["config"])
    return found


def write_safetensors(path: Path, weights: dict, about: dict):
    """Write one file, whole or not at all."""
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".tmp")
    part.write_bytes(save(weights, metadata=about))
    part.replace(path)


def write_folder(folder: Path, name: str, weights: dict, about: dict) -> Path:
    """Write a checkpoint in Dassl's layout, and the file ``checkpoint`` that names it; return its path.

    Raises:
        ValueError: There is a checkpoint of that name already.
    """
    import torch

    epoch = about["epoch"]
    path = folder / (
        name
        if re.fullmatch(r"model(-best)?\.pth\.tar(-\d+)?", name)
        else f"model.pth.tar-{epoch if isinstance(epoch, int) else 0}"
    )
    if path.exists():
        raise ValueError(f"{path} exists already; remove it, or name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".tmp")
    torch.save({"state_dict": weights, **about, "optimizer": None, "scheduler": None, "val_result": None}, part)
    part.replace(path)
    (folder / "checkpoint").write_text(f"{path.name}\n")
    return path


if __name__ == "__main__":
    main()
