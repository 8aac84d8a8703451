"""What one call of ``clusterprompt train`` is asked to do."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class TrainOptions:
    """The options of CoOp's command line, and this program's own.

    Attributes:
        root: Folder of the data sets; empty for the environment's.
        output_dir: Folder of the run's results.
        resume: True goes on from the output folder, a string from that folder.
        overwrite: Replace the run in the output folder.
        seed: 0 or more fixes every random draw; None leaves the yaml's.
        source_domains, target_domains: For Dassl's own data sets.
        transforms: Data augmentation methods; None leaves the yaml's.
        config_file: Yaml of the trainer.
        dataset_config_file: Yaml of the data set.
        trainer: Name of the trainer; empty for the yaml's.
        backbone: Name or file of the CLIP; empty for the yaml's.
        head: Name of the head, for Dassl's own trainers.
        eval_only: Evaluate only.
        model_dir: Folder of the run to evaluate.
        load_epoch: Epoch to load; None for the best or final model.
        no_train: Build everything, train nothing.
        opts: KEY VALUE pairs, which come last.
    """

    root: str = ""
    output_dir: str = ""
    resume: bool | str | None = None
    overwrite: bool = False
    seed: int | None = None
    source_domains: Sequence[str] | None = None
    target_domains: Sequence[str] | None = None
    transforms: Sequence[str] | None = None
    config_file: str = ""
    dataset_config_file: str = ""
    trainer: str = ""
    backbone: str = ""
    head: str = ""
    eval_only: bool = False
    model_dir: str = ""
    load_epoch: int | None = None
    no_train: bool = False
    opts: Sequence[str] = ()

    def argv(self) -> list[str]:
        """Return the command line that asks for the same."""
        words: list[str] = []
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "opts" or value is None or value is False or value == "":
                continue
            words.append(f"--{each.name.replace('_', '-')}")
            if isinstance(value, (list, tuple)):
                words += map(str, value)
            elif value is not True:
                words.append(str(value))
        return [*words, *map(str, self.opts)]

    def command(self) -> str:
        """Return the command line as a shell takes it."""
        return shlex.join(["clusterprompt", "train", *self.argv()])
