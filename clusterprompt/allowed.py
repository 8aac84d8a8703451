"""Allowed values of settings: what an option takes, in which unit, what it means; and the one check of them."""

from __future__ import annotations

import math
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .config import get

SHOWN = 3  # faults that one error lists


@dataclass(frozen=True)
class Rule(ABC):
    """What an option takes; ``str`` of a rule says it in words.

    Attributes:
        meaning: The option in a few words, with its unit.
    """

    meaning: str

    @abstractmethod
    def takes(self, value: Any) -> bool:
        """Tell whether a value is allowed."""


@dataclass(frozen=True)
class Whole(Rule):
    """A whole number from ``least`` to ``most``, or one of ``also``."""

    least: int
    most: int
    also: tuple[int | str | None, ...] = ()

    def takes(self, value: Any) -> bool:
        """See :meth:`Rule.takes`."""
        if type(value) is int and self.least <= value <= self.most:
            return True
        return any(type(value) is type(each) and value == each for each in self.also)

    def __str__(self) -> str:
        others = "".join(f", or {number}" for number in self.also)
        return f"a whole number from {self.least} to {self.most}{others}"


@dataclass(frozen=True)
class Real(Rule):
    """A finite number from ``least`` to ``most``; the ends count unless ``above`` or ``below`` says otherwise."""

    least: float
    most: float
    above: bool = False
    below: bool = False

    def takes(self, value: Any) -> bool:
        """See :meth:`Rule.takes`."""
        if type(value) not in (int, float) or not self.least <= value <= self.most:
            return False
        return not (self.above and value == self.least or self.below and value == self.most)

    def __str__(self) -> str:
        low = f"above {self.least:g}" if self.above else f"from {self.least:g}"
        return f"a number {low} to {'below ' if self.below else ''}{self.most:g}"


@dataclass(frozen=True)
class Flag(Rule):
    """True or False."""

    def takes(self, value: Any) -> bool:
        """See :meth:`Rule.takes`."""
        return type(value) is bool

    def __str__(self) -> str:
        return "True or False"


@dataclass(frozen=True)
class OneOf(Rule):
    """One of some values."""

    values: tuple[Any, ...]

    def takes(self, value: Any) -> bool:
        """See :meth:`Rule.takes`."""
        return any(type(value) is type(each) and value == each for each in self.values)

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))


@dataclass(frozen=True)
class Text(Rule):
    """Text of one line, such as a name or a path."""

    empty: bool = True

    def takes(self, value: Any) -> bool:
        """See :meth:`Rule.takes`."""
        return isinstance(value, str) and _one_line(value) and (self.empty or bool(value.strip()))

    def __str__(self) -> str:
        return "text" if self.empty else "text, not empty"


@dataclass(frozen=True)
class Words(Rule):
    """Words of a class sentence, without braces: the class name follows by itself.

    Attributes:
        optional: None, False and True are allowed as well, as configs of the CoOp family have them.
    """

    optional: bool = False

    def takes(self, value: Any) -> bool:
        """See :meth:`Rule.takes`."""
        if value is None or isinstance(value, bool):
            return self.optional
        return isinstance(value, str) and _is_sentence(value) and not set("{}") & set(value)

    def __str__(self) -> str:
        others = ", True for 'a photo of a', or None, False or '' for none" if self.optional else " or ''"
        return f"words without braces, such as 'a photo of a'{others}"


@dataclass(frozen=True)
class Template(Rule):
    """A class sentence with ``{}`` for the name, or empty."""

    def takes(self, value: Any) -> bool:
        """See :meth:`Rule.takes`."""
        if not isinstance(value, str) or not _is_sentence(value):
            return False
        return not value or value.count("{}") == 1 and not set("{}") & set(value.replace("{}", ""))

    def __str__(self) -> str:
        return "a sentence that holds {} once, where the class name goes, and no other brace; or ''"


@dataclass(frozen=True)
class Several(Rule):
    """A list of values of one kind.

    Attributes:
        each: What each takes.
        length: How many; None for any number.
        rising: None is below the one before.
    """

    each: Rule
    length: int | None = None
    rising: bool = False

    def takes(self, value: Any) -> bool:
        """See :meth:`Rule.takes`."""
        if not isinstance(value, (list, tuple)) or (self.length is not None and len(value) != self.length):
            return False
        return all(map(self.each.takes, value)) and (not self.rising or list(value) == sorted(value))

    def __str__(self) -> str:
        count = "a list" if self.length is None else f"{self.length} values"
        return f"{count}, each {self.each}{', none below the one before' if self.rising else ''}"


@dataclass(frozen=True)
class Range(Rule):
    """Nothing, or two finite numbers, the first below the second."""

    def takes(self, value: Any) -> bool:
        """See :meth:`Rule.takes`."""
        if not isinstance(value, (list, tuple)) or not all(type(each) in (int, float) for each in value):
            return False
        return not value or (len(value) == 2 and math.isfinite(value[1] - value[0]) and value[0] < value[1])

    def __str__(self) -> str:
        return "two numbers, the first below the second, or []"


@dataclass(frozen=True)
class LikeDefault(Rule):
    """A value of the default's kind; numbers are finite. For options that say no more."""

    default: Any

    def takes(self, value: Any) -> bool:
        """See :meth:`Rule.takes`."""
        if not _finite(value):
            return False
        kinds: Any = type(self.default)
        if isinstance(self.default, (list, tuple)):
            kinds = (list, tuple)
        elif isinstance(self.default, float):
            kinds = (int, float)
        elif isinstance(self.default, str):
            return isinstance(value, str) and _one_line(value)
        same = isinstance(value, kinds) and isinstance(value, bool) == isinstance(self.default, bool)
        return self.default is None or same

    def __str__(self) -> str:
        kinds = {bool: "True or False", int: "a whole number", float: "a finite number", str: "text"}
        default = "anything finite" if self.default is None else "a list of finite values"
        return kinds.get(type(self.default), default)


def rule_for(default: Any, rule: Rule | None) -> Rule:
    """Return an option's rule; where it has none, or one that its own default breaks, the default's kind."""
    return rule if rule is not None and rule.takes(default) else LikeDefault("", default)


def check(cfg: Any, rules: Mapping[str, Rule]) -> None:
    """Refuse values that are not allowed.

    Args:
        cfg: The config; keys that it lacks are left out.
        rules: By dotted key.

    Raises:
        ValueError: In one line the keys, their values and what is allowed.
    """
    wrong = []
    for key, rule in rules.items():
        try:
            value = get(cfg, key)
        except KeyError:
            continue
        if not rule.takes(value):
            wrong.append(f"{key} is {_short.repr(value)}; allowed: {rule}{rule.meaning and f' ({rule.meaning})'}")
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more settings" if len(wrong) > SHOWN else ""
        raise ValueError("; ".join(wrong[:SHOWN]) + more)


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


def _one_line(text: str) -> bool:
    return all(ord(letter) >= 32 and ord(letter) != 127 for letter in text)


def _is_sentence(text: str) -> bool:
    """Tell text from what only a path may hold: bytes of no character."""
    return _one_line(text) and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _finite(value: Any) -> bool:
    """Tell whether all numbers in a value are finite."""
    if isinstance(value, (list, tuple)):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
