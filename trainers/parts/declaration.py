"""What a method says of itself before it is built: its options, what they take, and what its class texts need."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ... import dassl_keys
from ...allowed import Rule, rule_for
from ...allowed import check as check_allowed
from ...clip_patches.class_texts import check_length, fill, read_descriptions
from ...clip_patches.loading import is_known, token_ids
from ...clip_patches.text_source import TextSource, find_source
from ...record.tracking import check_wandb
from .options import SHARED
from .prompts import context_words


class Declaration:
    """A method as its class describes it, for all that is asked before a CLIP is loaded.

    Attributes:
        options: Defaults of the node ``cfg.TRAINER.<NAME>``, in the official spelling.
        allowed: What the options take, with unit and meaning, where the base classes do not say so. An option without
            such a rule takes values of its default's kind.
        config_node: Name of that node where the authors' code shares another method's; default: the class name in
            capitals.
        official_keys: Keys outside of that node by which the authors' configs give options of it; see :meth:`option`.
        described_tests: A test reads the descriptions of the classes at hand, if the method reads any.
        official_trainer: Name of the trainer in its authors' code, under which it is registered as well.
        described_use: The use of a trained model on images reads the descriptions of its classes.
        transductive: The method is trained on unlabelled images of classes that it is tested on as new ones, so its
            numbers do not compare with those of other methods; records and tables say so.
    """

    options: Mapping[str, object] = {"PREC": "fp32"}
    allowed: Mapping[str, Rule] = SHARED
    config_node = ""
    official_keys: Mapping[str, str] = {}
    described_tests = True
    official_trainer = ""
    described_use = False
    transductive = False

    @classmethod
    def node(cls) -> str:
        """Return the name of the method's node below ``cfg.TRAINER``."""
        return cls.config_node or cls.__name__.upper()

    @classmethod
    def option(cls, cfg: Any, name: str) -> Any:
        """Return an option of ``official_keys``: that of the node or that of the authors' key, if not the default.

        Raises:
            ValueError: Both are given and differ.
        """
        own = f"TRAINER.{cls.node()}.{name}"
        return dassl_keys.either(cfg, own, cls.official_keys[name], cls.options[name])

    @classmethod
    def uses_descriptions(cls, cfg: Any) -> str:
        """Return the file of class descriptions that the method reads; empty if it reads none."""
        source = cls.find_text_source(cfg)
        return str(source.file) if source and source.file else ""

    @classmethod
    def find_text_source(cls, cfg: Any) -> TextSource | None:
        """Return the source of the class texts; None for a method that describes no classes.

        The method's own DESCRIPTIONS go before the data set's, and these before what lies in the data root.

        Raises:
            FileNotFoundError: The config names descriptions that do not exist.
            ValueError: The file is too large.
        """
        if "DESCRIPTIONS" not in cls.options:
            return None
        setting = cfg.TRAINER[cls.node()].DESCRIPTIONS or cfg.DATASET.DESCRIPTIONS
        root = os.path.abspath(os.path.expanduser(os.path.expandvars(cfg.DATASET.ROOT)))  # as data sets do
        return find_source(setting, cfg.DATASET.NAME, root)

    @classmethod
    def further_files(cls, cfg: Any) -> list[str]:
        """Name the files that the method opens beside the backbone and descriptions, such as "teacher /data/vit.pt"."""
        return []

    @classmethod
    def tokens_in_front(cls, settings: Any) -> int:
        """Return how many tokens a class sentence has in front of the name, learned ones included.

        Default: those of the words of CTX_INIT, if the method has it.
        """
        return len(token_ids(context_words(settings.get("CTX_INIT"))))

    @classmethod
    def check_classes(cls, cfg: Any, classnames: Sequence[str], template: str) -> None:
        """Refuse classes whose texts cannot be used, before a CLIP is loaded.

        Args:
            cfg: The config.
            classnames: Classes that will be trained on or tested.
            template: The data set's hand-written prompt.

        Raises:
            ValueError: No description of a class, or a name or a sentence that is too long for a CLIP of OpenAI's.
            FileNotFoundError: The descriptions do not exist.
        """
        described: Sequence[Sequence[str]] = ()
        if path := cls.described_tests and cls.uses_descriptions(cfg):
            described = read_descriptions(path, cfg.DATASET.NAME, classnames)
        if not is_known(cfg.MODEL.BACKBONE.NAME):
            return  # its context may be longer
        check_length([sentence for sentences in described for sentence in sentences])
        check_length(fill(cfg.DATASET.TEMPLATE or template, classnames))
        check_length(fill("{}.", classnames), cls.tokens_in_front(cfg.TRAINER[cls.node()]))

    @classmethod
    def rules(cls) -> dict[str, Rule]:
        """Return what each option of the method takes, by dotted key."""
        declared = [vars(base).get("allowed", {}) for base in reversed(cls.__mro__)]
        known = {name: rule for each in declared for name, rule in each.items()}
        return {
            f"TRAINER.{cls.node()}.{name}": rule_for(default, known.get(name)) for name, default in cls.options.items()
        }

    @classmethod
    def check_cfg(cls, cfg: Any) -> None:
        """Refuse settings that cannot be used, before anything is built.

        A method that overrides this adds what its options allow only together.

        Raises:
            ValueError: A value of Dassl's keys or of the method's options that is not allowed, or wandb asked for and
                not installed.
        """
        check_allowed(cfg, {**cls.rules(), **dassl_keys.rules()})
        dassl_keys.check_together(cfg)
        for name in cls.official_keys:
            cls.option(cfg, name)
        check_wandb(cfg.TRAIN.get("WANDB", ""))
