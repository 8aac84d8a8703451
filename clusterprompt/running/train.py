"""Train or evaluate one method on one data set."""

from __future__ import annotations

import inspect
import io
import platform
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import __version__, allowed, config, dassl_compat, dassl_keys, registration
from ..record import folder as run_folder
from ..record.files import write_text
from .dataset_settings import TABLE, dataset_settings
from .options import TrainOptions
from .output import prepare_output, refuse_other_data
from .spec import data_root, find_config


def train(options: TrainOptions) -> Any:
    """Do one run: train and test, or only evaluate.

    Nothing touches the output folder before everything that can fail at a start has passed.

    Returns:
        The trainer; None if a finished run was found and left as it is.

    Raises:
        ValueError: A setting is not allowed, or the output folder holds another run.
        FileNotFoundError: A yaml, the data or a checkpoint is missing.
        FloatingPointError: The loss is not finite.
    """
    # More loader processes than cores: the number is the yaml's, and part of what makes two runs equal.
    warnings.filterwarnings("ignore", message="This DataLoader will create .* worker processes")
    from . import together  # it imports torch, which a command line with a mistake need not wait for

    if together.restarted():
        options = replace(options, resume=options.resume or True, overwrite=False)
    with together.quiet_unless_first(), _console() as console, ExitStack() as stack:
        sys.stdout = head = _Tee(console)
        cfg = make_cfg(options)
        together.check(cfg)
        stack.enter_context(together.joined(cfg.USE_CUDA))

        def claim_output() -> str:
            stack.enter_context(run_folder.owned(cfg.OUTPUT_DIR))
            return prepare_output(options, cfg)

        plan = together.of_first(together.in_first(claim_output))
        if plan == "skip":
            together.in_first(lambda: refuse_other_data(cfg.OUTPUT_DIR, cfg))
            return None
        together.in_first(lambda: run_folder.check_links(cfg.OUTPUT_DIR))
        _report_table(cfg, options)
        cfg = stack.enter_context(together.follower(cfg, resumes=plan == "resume"))
        trainer = together.in_first(lambda: _build(options, cfg)) or _build(options, cfg)
        if cfg.RESUME and plan != "clear" and hasattr(trainer, "check_resume"):  # Dassl's own trainers lack it
            trainer.check_resume()
        sys.stdout = console
        _open_folder(cfg, head.text.getvalue(), clear=plan == "clear")
        with _one_error_of_writers():
            if options.eval_only:
                trainer.test()
            elif not options.no_train:
                trainer.train()
        return trainer


def make_cfg(options: TrainOptions) -> Any:
    """Build the frozen config: defaults, data set's yaml, trainer's yaml and its table, options, KEY VALUE pairs.

    Raises:
        ValueError: A key, a trainer or a data set that does not exist, or a value that is not allowed.
        FileNotFoundError: A yaml file that does not exist.
    """
    dassl_compat.prepare()
    from dassl.config import get_cfg_default

    cfg = get_cfg_default()
    registration.extend_cfg(cfg)
    for path in (options.dataset_config_file, options.config_file):
        if path:
            config.merge_file(cfg, find_config(path))
    table, table_file = _table(cfg, options)
    config.merge_settings(cfg, table, table_file)
    given = {
        "OUTPUT_DIR": options.output_dir,
        "INPUT.TRANSFORMS": options.transforms,
        "DATASET.SOURCE_DOMAINS": options.source_domains,
        "DATASET.TARGET_DOMAINS": options.target_domains,
        "TRAINER.NAME": options.trainer,
        "MODEL.BACKBONE.NAME": options.backbone,
        "MODEL.HEAD.NAME": options.head,
        "DATASET.ROOT": options.root or (not cfg.DATASET.ROOT and data_root()),
    }
    for key, value in given.items():
        if value:
            node, _, name = key.rpartition(".")
            (config.get(cfg, node) if node else cfg)[name] = value
    if options.seed is not None:
        cfg.SEED = options.seed
    config.merge_pairs(cfg, options.opts)
    if cfg.RESUME and not Path(cfg.RESUME).is_dir():
        raise ValueError(f"RESUME is {cfg.RESUME!r}; allowed: the folder of a run, which exists, or ''")
    if options.resume and not options.eval_only:
        cfg.RESUME = cfg.OUTPUT_DIR if options.resume is True else options.resume
    cfg.freeze()
    _check_names(cfg)
    _check_values(cfg)
    return cfg


def _table(cfg: Any, options: TrainOptions) -> tuple[dict[str, Any], str]:
    """Return what the table beside the trainer's yaml sets for the data set, and the table's path."""
    if not options.config_file:
        return {}, ""
    path = find_config(options.config_file)
    dataset = dict(zip(options.opts[::2], options.opts[1::2])).get("DATASET.NAME", cfg.DATASET.NAME)
    return dataset_settings(path, dataset), str(path.with_name(TABLE))


def _report_table(cfg: Any, options: TrainOptions) -> None:
    """Print the settings of the table, and which of them the command line has replaced."""
    table, path = _table(cfg, options)
    if not table:
        return
    merged = cfg.clone()
    merged.defrost()
    config.merge_settings(merged, table, path)
    words = []
    for key in table:
        authors, now = config.get(merged, key), config.get(cfg, key)
        words.append(f"{key} {authors}" + (f" (here {now}, by the command line)" if now != authors else ""))
    print(f"Settings of {cfg.DATASET.NAME} in {path}: {', '.join(words)}")


def _check_values(cfg) -> None:
    """Refuse values that are not allowed; a host's trainer checks its own options itself, when it is built."""
    from dassl.engine import TRAINER_REGISTRY

    trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if inspect.ismethod(getattr(trainer, "check_cfg", None)):
        trainer.check_cfg(cfg)
    else:
        own = trainer.rules() if hasattr(trainer, "rules") else {}
        allowed.check(cfg, {**own, **dassl_keys.rules()})


def settings_table(trainer: str) -> str:
    """Return the settings of a trainer as a table of key, default, allowed values and meaning; its own come first.

    Raises:
        ValueError: No trainer of that name is registered, or it does not say what it takes.
    """
    dassl_compat.prepare()
    from dassl.config import get_cfg_default
    from dassl.engine import TRAINER_REGISTRY
    from tabulate import tabulate

    registration.extend_cfg(cfg := get_cfg_default())
    known = [name for name in TRAINER_REGISTRY.registered_names() if hasattr(TRAINER_REGISTRY.get(name), "rules")]
    if trainer not in known:
        raise ValueError(
            config.unknown("trainer", trainer, known)
            if trainer
            else f"--options: name a --trainer of {', '.join(known)}"
        )
    shared = sorted(dassl_keys.rules().items(), key=lambda item: ("." in item[0], item[0].split(".")[0]))
    rows = [
        (key, *(textwrap.fill(words, 44) for words in (repr(config.get(cfg, key)), str(rule), rule.meaning)))
        for key, rule in [*TRAINER_REGISTRY.get(trainer).rules().items(), *shared]
    ]
    return tabulate(rows, ("key", "default", "allowed", "meaning"), disable_numparse=True)


def _check_names(cfg) -> None:
    """Refuse a trainer or a data set that is not registered."""
    from dassl.data.datasets import DATASET_REGISTRY
    from dassl.engine import TRAINER_REGISTRY

    for what, name, registry, option in (
        ("trainer", cfg.TRAINER.NAME, TRAINER_REGISTRY, "--trainer"),
        ("data set", cfg.DATASET.NAME, DATASET_REGISTRY, "--dataset-config-file"),
    ):
        if not name:
            known = ", ".join(sorted(registry.registered_names()))
            raise ValueError(f"no {what} is named; give {option}. Known: {known}")
        if name not in registry.registered_names():
            raise ValueError(config.unknown(what, name, registry.registered_names()))


def _build(options: TrainOptions, cfg):
    """Build the trainer, and load the model that is to be evaluated."""
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed

    if cfg.SEED >= 0:
        print(f"Seed: {cfg.SEED}")
        set_random_seed(cfg.SEED)
    print(environment(cfg))
    trainer = build_trainer(cfg)
    if options.eval_only:
        learns = getattr(trainer, "learner", None) is not None
        if not options.model_dir and not cfg.MODEL.INIT_WEIGHTS and learns:
            raise ValueError(
                f"--eval-only: {cfg.TRAINER.NAME} has to be trained first; name the run to evaluate: "
                "--model-dir <its --output-dir>"
            )
        trainer.load_model(options.model_dir, epoch=options.load_epoch)
    elif not options.no_train and hasattr(trainer, "check_validation"):  # a host's trainer has no such check
        trainer.check_validation()
    return trainer


def _open_folder(cfg, head: str, clear: bool) -> None:
    """Make the output folder ready: its log begins with what was printed so far, and it holds the config."""
    from dassl.utils import setup_logger

    if clear:
        run_folder.clear(cfg.OUTPUT_DIR)
    run_folder.open_folder(cfg.OUTPUT_DIR)
    run_folder.rotate_log(cfg.OUTPUT_DIR)
    setup_logger(cfg.OUTPUT_DIR)
    file = getattr(sys.stdout, "file", None)
    if file:
        file.write(head)
    write_text(Path(cfg.OUTPUT_DIR, "config.yaml"), cfg.dump())


def environment(cfg: Any) -> str:
    """Describe in one line the versions and the device of a run."""
    import dassl
    import torch
    import torchvision

    kind = getattr(dassl, "IMPLEMENTATION", f"Dassl.pytorch {getattr(dassl, '__version__', '')}")
    gpu = torch.cuda.is_available() and cfg.USE_CUDA
    device = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
    return (
        f"Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"dassl: {kind}, clusterprompt {__version__}, {device}"
    )


@contextmanager
def _one_error_of_writers() -> Iterator[None]:
    """Silence the traceback of tensorboard's thread: it hands the same error to the thread that trains."""
    hook = threading.excepthook

    def quiet(args: threading.ExceptHookArgs) -> None:
        if type(args.thread).__name__ != "_AsyncWriterThread":
            hook(args)

    threading.excepthook = quiet
    try:
        yield
    finally:
        threading.excepthook = hook


@contextmanager
def _console() -> Iterator[Any]:
    """Print this package's messages, and give stdout back at the end; Dassl's logger replaces it."""
    mute = registration.log_to_stdout(always=True)
    console = sys.stdout
    try:
        yield console
    finally:
        mute()
        log, sys.stdout = sys.stdout, console
        if log is not console:
            _close_log(log)


def _close_log(log: Any) -> None:
    """Close the file of a logger of Dassl, and keep the console from real Dassl's, which closes it when deleted."""
    log.console = io.StringIO()
    if getattr(log, "file", None):
        log.file.close()


class _Tee:
    """Stdout that also remembers, for the log file that does not exist yet."""

    def __init__(self, console):
        self.console = console
        self.text = io.StringIO()

    def write(self, message: str) -> int:
        self.console.write(message)
        return self.text.write(message)

    def __getattr__(self, name):
        return getattr(self.console, name)
