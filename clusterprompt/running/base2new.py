"""Train a method on the base half of a data set's classes, test it on that half, then on the new half.

Settings come from configs/trainers/<TRAINER>/<CFG>.yaml and configs/datasets/<dataset>.yaml (or a yaml anywhere,
docs/own_images.md), then from the environment:

    DATA      folder of the data sets             default: data
    BACKBONE  tiny, an OpenAI name, or a file     default: the yaml's; tiny for the embedded data sets
    EPOCHS    OPTIM.MAX_EPOCH                     default: the yaml's
    SHOTS     training images a class             default: 16
    CFG       name of the trainer's yaml          default: basetonovel
    OUTPUT    folder of all results               default: output

then from options of train.py (--resume, --overwrite, KEY VALUE ...). Output folders are those of the CoOp family:
OUTPUT/base2new/{train_base,test_new}/<dataset>/shots_<SHOTS>/<TRAINER>/<CFG>/seed<SEED>.
"""

import argparse
import os
import sys
from pathlib import Path

import yaml
from tabulate import tabulate

from ..clip_patches.embedded_clip import GEOMETRY
from ..record import folder as run_folder
from ..record import protocols

CHECKOUT = Path(__file__).resolve().parents[2]
EMBEDDED = "shapes"


def load_train():
    """Return the module behind train.py."""
    from . import train

    return train


def main(argv=None) -> dict:
    """Run both halves and print base, new and their harmonic mean.

    Returns:
        ``{"base": ..., "new": ..., "hm": ...}`` in percent; None what was not tested.

    Raises:
        SystemExit: Code 2, after a message, if a run cannot start.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--trainer", required=True)
    parser.add_argument("--dataset", required=True, help="name of a yaml in configs/datasets, or the path of your own")
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted training run")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier runs")
    args, passed_on = parser.parse_known_args(argv)
    train = load_train()
    try:
        base, new = run_halves(train, args, passed_on)
    except SystemExit as stop:
        if isinstance(stop.__cause__, (FileNotFoundError, ConnectionError)) and not args.dataset.startswith(EMBEDDED):
            print(
                f"No data or weights at hand? This needs neither: bash {door(args.trainer)} {EMBEDDED} 1",
                file=sys.stderr,
            )
        raise
    hm = None if None in (base, new) else harmonic_mean(base, new)  # no base accuracy with TEST.NO_TEST
    row = [args.trainer, Path(args.dataset).stem, args.seed, base, new, hm]
    print(tabulate([row], headers=["trainer", "dataset", "seed", "base", "new", "HM"], floatfmt=".2f", missingval="-"))
    return {"base": base, "new": new, "hm": hm}


def run_halves(train, args, passed_on) -> tuple:
    """Run what is not finished yet; return the two accuracies."""
    base_folder, new_folder = folders(args.trainer, args.dataset, args.seed)
    base, new = words_of_halves(args, passed_on)
    base_options = [flag for flag in ("--resume", "--overwrite") if getattr(args, flag[2:])]
    refuse_other_settings(train, [*base_options, *base], args.overwrite)
    trained = train.main([*base_options, *base])

    # What a new training run replaces, an older test of it must not survive.
    again = (
        ["--overwrite"] if args.overwrite or trained is not None or run_folder.is_older(new_folder, base_folder) else []
    )
    new = [
        "--model-dir",
        base_folder,
        *new,
    ]  # also where its checkpoints are gone: an untrained model must not be tested instead
    refuse_other_settings(train, [*again, *new], bool(again))
    train.main([*again, *new])
    return tuple(run_folder.read_result(folder)["accuracy"] for folder in (base_folder, new_folder))


def words_of_halves(args, passed_on, environ=os.environ, quiet: bool = False) -> tuple:
    """Return train.py's words for the base half and, but for the model to load, for the new one."""
    base_folder, new_folder = folders(args.trainer, args.dataset, args.seed, environ)
    common = common_options(args, environ)
    passed_on = [*passed_on, *fitting_depths(common, passed_on, quiet)]
    base = [*common, "--output-dir", base_folder, *passed_on, "DATASET.SUBSAMPLE_CLASSES", "base"]
    return base, [*common, "--output-dir", new_folder, "--eval-only", *passed_on, "DATASET.SUBSAMPLE_CLASSES", "new"]


def refuse_other_settings(train, argv, overwrite: bool):
    """End with a message if a finished run lies where this one would, but with other settings: its numbers are not
    those asked for.
    """
    args = train.parse(argv)
    if overwrite or run_folder.state(args.output_dir) != "finished":
        return
    try:
        cfg = train.make_cfg(args)
    except train.USER_ERRORS as error:
        train.fail(error, args.traceback)
    changed = run_folder.changed_settings(run_folder.read_result(args.output_dir), cfg)
    if changed:
        train.fail(
            ValueError(
                f"{args.output_dir} holds a finished run of other settings ({'; '.join(changed[:8])}). "
                "Replace it: --overwrite. Keep both: OUTPUT=<another folder>."
            ),
            args.traceback,
        )


def common_options(args, environ=os.environ) -> list:
    """Return the words of train.py's command line that both halves share."""
    cfg = environ.get("CFG") or "basetonovel"
    backbone = environ.get("BACKBONE") or ("tiny" if args.dataset.startswith(EMBEDDED) else "")
    options = ["--trainer", args.trainer, "--seed", str(args.seed)]
    own = args.dataset.endswith((".yaml", ".yml"))
    options += ["--dataset-config-file", args.dataset if own else f"configs/datasets/{args.dataset}.yaml"]
    options += ["--config-file", f"configs/trainers/{args.trainer}/{cfg}.yaml"]
    if backbone:
        options += ["--backbone", backbone]
    values = ["DATASET.NUM_SHOTS", environ.get("SHOTS") or "16"]
    if environ.get("EPOCHS"):
        values += ["OPTIM.MAX_EPOCH", environ["EPOCHS"]]
    return options + values


def fitting_depths(options, passed_on, quiet: bool = False) -> list:
    """Return KEY VALUE pairs for the prompt depths of the yaml that are beyond the embedded CLIP's layers, and say so."""
    yaml_file = CHECKOUT / options[options.index("--config-file") + 1]
    if "--backbone" not in options or options[options.index("--backbone") + 1] != "tiny" or not yaml_file.is_file():
        return []
    layers = min(GEOMETRY[2], GEOMETRY[9])
    nodes = yaml.safe_load(yaml_file.read_text(encoding="utf-8")).get("TRAINER", {})
    deep = {
        f"TRAINER.{node}.{key}": value
        for node, keys in nodes.items()
        for key, value in keys.items()
        if key.startswith("PROMPT_DEPTH") and value > layers and f"TRAINER.{node}.{key}" not in passed_on
    }
    if deep and not quiet:
        print(
            f"The embedded CLIP has {layers} layers, fewer than the yaml prompts: "
            + ", ".join(f"{key} {value} -> -1 (all)" for key, value in deep.items())
        )
    return [word for key in deep for word in (key, "-1")]


def folders(trainer: str, dataset: str, seed: int, environ=os.environ) -> tuple:
    """Return the output folders of the two halves."""
    output, cfg = environ.get("OUTPUT") or default_output(), environ.get("CFG") or "basetonovel"
    return tuple(
        map(str, protocols.base2new_folders(output, Path(dataset).stem, environ.get("SHOTS") or 16, trainer, seed, cfg))
    )


def default_output() -> str:
    """Return the checkout's output folder, in the shortest way to write it."""
    return "output" if Path.cwd() == CHECKOUT else str(CHECKOUT / "output")


def harmonic_mean(base: float, new: float) -> float:
    """Return the harmonic mean of two accuracies; 0 if both are 0."""
    return 2 * base * new / (base + new) if base + new else 0.0


def door(trainer: str) -> str:
    """Return the words after `bash` that start a trainer's base-to-new run, before data set and seed."""
    own = Path("scripts", {"ZeroshotCLIP": "zsclip"}.get(trainer, trainer.lower()), "base2new_train.sh")
    return str(own) if (CHECKOUT / own).is_file() else f"scripts/base2new.sh {trainer}"


if __name__ == "__main__":
    main()
