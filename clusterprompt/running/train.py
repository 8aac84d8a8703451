"""Train or evaluate one method on one data set, with CoOp's command line.

Example:
    python train.py --data data --seed 1 --trainer TAC --dataset-config-file configs/datasets/shapes.yaml \
        --config-file configs/trainers/TAC/basetonovel.yaml --backbone tiny --output-dir output/trial \
        DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES base
"""

import argparse
import io
import os
import platform
import re
import sys
import traceback
import warnings
from pathlib import Path

import clusterprompt

from .. import config, dassl_compat, registration
from ..record import folder as run_folder

CHECKOUT = Path(__file__).resolve().parents[2]
# What bad input raises: said in one line. Anything else is a fault of the program, and keeps its traceback.
USER_ERRORS = (ValueError, OSError, ImportError, AssertionError, FloatingPointError, NotImplementedError)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add(
        "--root",
        "--data",
        dest="root",
        default="",
        help="folder of the data sets (default: environment's DATA, else data/)",
    )
    add("--output-dir", default="", help="folder of this run's results")
    add(
        "--resume", nargs="?", const=True, default=None, metavar="DIR", help="go on from the output folder, or from DIR"
    )
    add("--overwrite", action="store_true", help="replace the run in the output folder")
    add("--seed", type=int, default=None, help="0 or more fixes every random draw; default: not fixed")
    add("--source-domains", nargs="+", help="source domains for DA/DG")
    add("--target-domains", nargs="+", help="target domains for DA/DG")
    add("--transforms", nargs="+", help="data augmentation methods")
    add("--config-file", default="", help="yaml of the trainer")
    add("--dataset-config-file", default="", help="yaml of the data set")
    add("--trainer", default="", help="name of the trainer")
    add("--backbone", default="", help="tiny (embedded), an OpenAI name such as ViT-B/16, or a file")
    add("--head", default="", help="name of the head")
    add("--eval-only", action="store_true", help="evaluate only")
    add("--model-dir", default="", help="folder of the run to evaluate")
    add("--load-epoch", type=int, help="epoch to load; default: the final model")
    add("--no-train", action="store_true", help="build everything, train nothing")
    add("--traceback", action="store_true", help="show where an error came from")
    add("opts", nargs="*", metavar="KEY VALUE", help="config values, e.g. OPTIM.MAX_EPOCH 5")
    return parser


def parse(argv=None) -> argparse.Namespace:
    """Parse a command line; options and KEY VALUE pairs may come in any order."""
    words = list(sys.argv[1:] if argv is None else argv)
    for i, word in enumerate(words[:-1]):
        following = words[i + 1]
        if word == "--resume" and re.fullmatch(r"[A-Z][A-Z0-9_]*(\.\w+)+", following) and not os.path.isdir(following):
            words[i] = "--resume="  # what follows is a config key, not a folder
    args = build_parser().parse_intermixed_args(words)
    args.resume = True if args.resume == "" else args.resume
    return args


def main(argv=None):
    """Run one command line.

    Args:
        argv: The words after ``train.py``; default: those of this process.

    Returns:
        The trainer; None if a finished run was found and left as it is.

    Raises:
        SystemExit: Code 2, after one line on stderr, for anything that the user can put right.
    """
    args = parse(argv)
    stop_speaking = registration.log_to_stdout(always=True)
    console = sys.stdout
    try:
        return run(args)
    except USER_ERRORS as error:
        fail(error, args.traceback)
    except RuntimeError as error:
        if not type(error).__name__ == "CheckpointError":  # the toolbox's, which real Dassl lacks
            raise
        fail(error, args.traceback)
    except KeyboardInterrupt:
        print("interrupted; --resume goes on from the last checkpoint", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        stop_speaking()
        log, sys.stdout = sys.stdout, console
        if log is not console:
            log.console = io.StringIO()  # real Dassl's logger closes its console when it is thrown away
            if getattr(log, "file", None):
                log.file.close()


def run(args):
    """Do what the parsed command line asks; see `main`."""
    # More loader processes than cores: the number is the yaml's, and part of what makes two runs equal.
    warnings.filterwarnings("ignore", message="This DataLoader will create .* worker processes")
    console = sys.stdout
    head = sys.stdout = _Tee(
        console
    )  # nothing touches the output folder before all that can fail at a start has passed
    try:
        cfg = make_cfg(args)
        plan = plan_output(args, cfg)
        if plan == "skip":
            return None

        from dassl.engine import build_trainer
        from dassl.utils import set_random_seed, setup_logger

        if cfg.SEED >= 0:
            print(f"Seed: {cfg.SEED}")
            set_random_seed(cfg.SEED)
        print(environment(cfg))
        trainer = build_trainer(cfg)
        if args.eval_only:
            if not args.model_dir and not cfg.MODEL.INIT_WEIGHTS and getattr(trainer, "learner", None) is not None:
                raise ValueError(
                    f"--eval-only: {cfg.TRAINER.NAME} has to be trained first; name the run to evaluate: --model-dir <its --output-dir>."
                )
            trainer.load_model(args.model_dir, epoch=args.load_epoch)
    finally:
        sys.stdout = console

    if plan == "clear":
        run_folder.clear(cfg.OUTPUT_DIR)
    os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    run_folder.put_old_log_aside(cfg.OUTPUT_DIR)
    setup_logger(cfg.OUTPUT_DIR)
    if getattr(sys.stdout, "file", None):
        sys.stdout.file.write(head.text.getvalue())
    Path(cfg.OUTPUT_DIR, "config.yaml").write_text(cfg.dump(), encoding="utf-8")

    if args.eval_only:
        trainer.test()
    elif not args.no_train:
        trainer.train()
    return trainer


def make_cfg(args):
    """Build the frozen config: defaults, data set's yaml, trainer's yaml, arguments, KEY VALUE pairs.

    Raises:
        ValueError: A key, a trainer or a data set that does not exist, or a value of another type.
        FileNotFoundError: A yaml file that does not exist.
    """
    dassl_compat.prepare()
    from dassl.config import get_cfg_default
    from dassl.data.datasets import DATASET_REGISTRY
    from dassl.engine import TRAINER_REGISTRY

    cfg = get_cfg_default()
    clusterprompt.extend_cfg(cfg)
    for path in (args.dataset_config_file, args.config_file):
        if path:
            config.merge_file(cfg, find_file(path))

    given = {
        "OUTPUT_DIR": args.output_dir,
        "INPUT.TRANSFORMS": args.transforms,
        "DATASET.SOURCE_DOMAINS": args.source_domains,
        "DATASET.TARGET_DOMAINS": args.target_domains,
        "TRAINER.NAME": args.trainer,
        "MODEL.BACKBONE.NAME": args.backbone,
        "MODEL.HEAD.NAME": args.head,
        "DATASET.ROOT": args.root or (not cfg.DATASET.ROOT and (os.environ.get("DATA") or str(CHECKOUT / "data"))),
    }
    for key, value in given.items():
        if value:
            node, _, name = key.rpartition(".")
            (config.get(cfg, node) if node else cfg)[name] = value
    if args.seed is not None:
        cfg.SEED = args.seed
    config.merge_pairs(cfg, args.opts)
    if args.resume and not args.eval_only:
        cfg.RESUME = cfg.OUTPUT_DIR if args.resume is True else args.resume
    cfg.freeze()

    for what, name, registry in (
        ("trainer", cfg.TRAINER.NAME, TRAINER_REGISTRY),
        ("data set", cfg.DATASET.NAME, DATASET_REGISTRY),
    ):
        if not name:
            option = "--trainer" if what == "trainer" else "--dataset-config-file"
            raise ValueError(
                f"no {what} is named; give {option}. Known: {', '.join(sorted(registry.registered_names()))}."
            )
        if name not in registry.registered_names():
            raise ValueError(config.unknown(what, name, registry.registered_names()))
    return cfg


def plan_output(args, cfg) -> str:
    """Decide what becomes of the output folder: "start", "resume", "clear" (after a good start) or "skip".

    Raises:
        ValueError: It holds an unfinished run and neither --resume nor --overwrite was given, or they cannot be
            followed.
        FileNotFoundError: The folder to resume from does not exist.
    """
    folder = cfg.OUTPUT_DIR
    state = run_folder.state(folder)
    if args.resume and args.overwrite:
        raise ValueError(
            "--resume goes on with the run in the output folder, --overwrite replaces it; give one of them."
        )
    if args.overwrite:
        if args.model_dir and _is_within(args.model_dir, folder):
            raise ValueError(
                f"--overwrite would remove the model that --model-dir names: {args.model_dir} lies in {folder}."
            )
        run_folder.check_removable(folder)
        return "clear"
    if isinstance(args.resume, str) and not os.path.isdir(args.resume):
        raise FileNotFoundError(f"--resume {args.resume}: no such folder.")
    changed = run_folder.changed_settings(run_folder.read_result(folder), cfg)
    if state == "finished" and not (args.eval_only and run_folder.holds_models(folder)):
        result = run_folder.read_result(folder)
        accuracy = result.get("accuracy")
        shown = f", accuracy {accuracy:.2f}" if isinstance(accuracy, (int, float)) else ""
        print(f"Already finished{shown}: {folder}. Nothing was done; --overwrite runs it again.")
        if changed:
            print(f"Note: that run had other settings: {'; '.join(changed[:8])}")
        return "skip"
    if args.eval_only and run_folder.holds_models(folder):
        raise ValueError(
            f"{folder} holds a training run; give the evaluation another --output-dir (and that run as --model-dir)."
        )
    if state == "unfinished" and not args.eval_only:
        own = args.resume is True or (args.resume and os.path.realpath(args.resume) == os.path.realpath(folder))
        if not own:
            raise ValueError(f"{folder} holds an unfinished run. Go on with it: --resume. Replace it: --overwrite.")
        if changed:
            raise ValueError(
                f"--resume: the run in {folder} has other settings: {'; '.join(changed[:8])}. Use its own, or --overwrite."
            )
        return "resume"
    if isinstance(args.resume, str) and not args.eval_only:
        changed = run_folder.changed_settings(run_folder.read_result(args.resume), cfg)
        if changed:
            raise ValueError(
                f"--resume: the run in {args.resume} has other settings: {'; '.join(changed[:8])}. Use its own."
            )
    if args.resume is True and not args.eval_only:
        print(f"Nothing to resume in {folder}: starting from the beginning.")
    return "start"


def find_file(path: str) -> str:
    """Return ``path``, taken relative to the current folder or else to the checkout."""
    for candidate in (Path(path).expanduser(), CHECKOUT / path):
        if candidate.is_file():
            return str(candidate)
    folder = (CHECKOUT / path).parent
    near = ", ".join(sorted(entry.name for entry in folder.glob("*.yaml")))
    raise FileNotFoundError(f"config file not found: {path}.{f' {folder} holds {near}.' if near else ''}")


def environment(cfg) -> str:
    """Describe in one line what the run stands on."""
    import dassl
    import torch
    import torchvision

    kind = getattr(dassl, "IMPLEMENTATION", f"Dassl.pytorch {getattr(dassl, '__version__', '')}")
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available() and cfg.USE_CUDA
        else f"CPU, {torch.get_num_threads()} threads"
    )
    return (
        f"Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}, dassl: {kind}, "
        f"clusterprompt {clusterprompt.__version__}, {device}"
    )


def fail(error: BaseException, with_traceback: bool):
    """Print ``error`` in one line and end with code 2."""
    if with_traceback:
        traceback.print_exc()
    text = str(error) or type(error).__name__
    if text.startswith("Caught "):  # from a data loader's worker, wrapped in its traceback
        text = text.strip().splitlines()[-1]
    print(f"error: {text}", file=sys.stderr)
    raise SystemExit(2) from error


def _is_within(path: str, folder: str) -> bool:
    path, folder = Path(path).resolve(), Path(folder).resolve()
    return path == folder or folder in path.parents


class _Tee:
    """Stdout that also remembers, for the log file that does not exist yet."""

    def __init__(self, console):
        self.console = console
        self.text = io.StringIO()

    def write(self, message):
        self.console.write(message)
        return self.text.write(message)

    def __getattr__(self, name):
        return getattr(self.console, name)


if __name__ == "__main__":
    main()
