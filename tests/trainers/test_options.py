"""Allowed values, over all trainers that are registered and all keys of Dassl: a new one is covered by existing."""

import math

import pytest
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY
from support import NEEDED

import clusterprompt
from clusterprompt import allowed, config, dassl_keys
from clusterprompt.commands import train
from clusterprompt.registration import own_trainers
from clusterprompt.trainers.base import PromptTrainer

pytestmark = pytest.mark.slow

METHODS = own_trainers()
UNREAD = {"VERSION", "DATASET.ROOT", "DATASET.NAME", "MODEL.HEAD.NAME", "MODEL.HEAD.ACTIVATION", "MODEL.HEAD.BN"} | {
    *(
        "DATASET.NUM_LABELED",
        "DATASET.STL10_FOLD",
        "DATASET.CIFAR_C_TYPE",
        "DATASET.CIFAR_C_LEVEL",
        "MODEL.HEAD.DROPOUT",
    ),
    *("DATASET.ALL_AS_UNLABELED", "DATALOADER.TRAIN_U.SAME_AS_X", "MODEL.BACKBONE.PRETRAINED"),
}


def config_of(cls):
    """The defaults, with a backbone."""
    cfg = get_cfg_default()
    clusterprompt.extend_cfg(cfg)
    cfg.TRAINER.NAME, cfg.MODEL.BACKBONE.NAME = cls.__name__, "tiny"
    cfg.merge_from_list(NEEDED.get(cls.__name__, []))
    return cfg


def put(cfg, key, value):
    """Set a dotted key past yacs, as a host's code can."""
    *nodes, name = key.split(".")
    for node in nodes:
        cfg = cfg[node]
    cfg[name] = value


def boundaries(rule):
    """Return values just inside and just outside of a rule."""
    if isinstance(rule, allowed.Whole):
        outside = [rule.least - 1, rule.most + 1, -(10**12), 10**15]
        return [rule.least, rule.most, *rule.also], [value for value in outside if value not in rule.also]
    if isinstance(rule, allowed.Real):
        ends = [(rule.least, rule.above, -math.inf), (rule.most, rule.below, math.inf)]
        return (
            [math.nextafter(end, -beyond) if left_out else end for end, left_out, beyond in ends],
            [end if left_out else math.nextafter(end, beyond) for end, left_out, beyond in ends],
        )
    if isinstance(rule, allowed.OneOf):
        return list(rule.values), [value for value in ("", "no such name", 10**9) if value not in rule.values]
    if isinstance(rule, allowed.Flag):
        return [True, False], [0, 1, "yes", ""]
    if isinstance(rule, allowed.Words):
        none = [None, True, False]
        return ["a photo of a", "", *(none if rule.optional else ())], ["a {}", "a {name}", "}", "a\nb", "\ud800"]
    if isinstance(rule, allowed.Template):
        return ["", "a {}."], ["no braces", "{} {}", "{name}", "{:>20}", "{{}}"]
    if isinstance(rule, allowed.Text):
        return ["a b", *([""] if rule.empty else [])], ["a\0b", "a\nb", *([] if rule.empty else ["", " "])]
    if isinstance(rule, allowed.Several):
        inside, outside = boundaries(rule.each)
        count = rule.length or 2
        lists = [[value] * count for value in outside] + ([[], inside[:1] * (count + 1)] if rule.length else [])
        return [[value] * count for value in inside], lists + ([inside[::-1]] if rule.rising else [])
    return [], []


def check_rule(cls, cfg, key, rule):
    """Give one key good values and bad ones."""
    inside, outside = boundaries(rule)
    anything = [object(), {}, b"x", 1j, math.nan, math.inf, -math.inf, [math.nan], [None]]
    anything += [] if None in inside else [None]
    other = [value for value in (3, 2.5, "word", True, [1]) if type(value) not in map(type, _kinds(rule))]
    for value in [*outside, *anything, *other]:
        put(cfg, key, value)
        with pytest.raises(ValueError, match="; allowed: ") as caught:
            cls.check_cfg(cfg)
        message = str(caught.value)
        assert message.startswith(f"{key} is ") and "\n" not in message and len(message) < 700
        assert str(rule) in message
    for value in inside:
        put(cfg, key, value)
        allowed.check(cfg, {key: rule})


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_every_option(cls):
    """Catches: a value below, above, of another type, None, NaN, infinite or empty that is taken, or refused without
    its key, value and what is allowed, in more than one line; a good value that is refused.
    """
    cfg = config_of(cls)
    for key, rule in cls.rules().items():
        good = config.get(cfg, key)
        check_rule(cls, cfg, key, rule)
        put(cfg, key, good)


def test_every_key_of_dassl():
    """Catches: the same, for the keys of Dassl that trainers here honour."""
    cfg = config_of(METHODS[0])
    for key, rule in dassl_keys.rules().items():
        good = config.get(cfg, key)
        check_rule(METHODS[0], cfg, key, rule)
        put(cfg, key, good)


def _kinds(rule):
    """Return examples of the types that a rule may take."""
    if isinstance(rule, allowed.LikeDefault):
        return [rule.default, 0] if isinstance(rule.default, float) else [rule.default, []]
    inside, _ = boundaries(rule)
    return [*inside, 1, 1.0] if isinstance(rule, allowed.Real) else inside


def test_every_option_says_what_it_takes():
    """Catches: an option whose values only its type limits; a rule without a meaning; a default that is not allowed."""
    for cls in METHODS:
        for key, rule in cls.rules().items():
            assert not isinstance(rule, allowed.LikeDefault) and rule.meaning, f"{cls.__name__} {key}"
    bare = {key for key, rule in dassl_keys.rules().items() if isinstance(rule, allowed.LikeDefault)}
    assert bare <= UNREAD
    for cls in METHODS:
        cls.check_cfg(config_of(cls))


def test_plain_options_of_a_users_trainer():
    """Catches: a trainer with `options` alone that cannot run, or whose values nothing checks; a shared rule that
    breaks an option of the same name with another meaning.
    """
    options = {"PREC": "fp32", "N_CTX": "auto", "SCALE": 2.0, "STEPS": 3, "ON": False, "SIZES": (1, 2), "ANY": None}
    mine = type("Mine", (PromptTrainer,), {"options": options})
    rules = mine.rules()
    cfg = config_of(METHODS[0])
    cfg.TRAINER.MINE = type(cfg)(options)
    mine.check_cfg(cfg)
    assert rules["TRAINER.MINE.N_CTX"].takes("none") and not rules["TRAINER.MINE.N_CTX"].takes(3)
    for name, value in {"SCALE": "big", "STEPS": 1.5, "ON": 1, "SIZES": 3, "PREC": "fp8", "ANY": math.nan}.items():
        cfg.TRAINER.MINE.update(options)
        cfg.TRAINER.MINE[name] = value
        with pytest.raises(ValueError, match=f"TRAINER.MINE.{name} is "):
            mine.check_cfg(cfg)


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_the_table(cls, capsys):
    """Catches: `--options` that needs data or a yaml, leaves an option out, or shows another default."""
    assert train.main(["--trainer", cls.__name__, "--options"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["key", "default", "allowed", "meaning"]
    for name, default in TRAINER_REGISTRY.get(cls.__name__).options.items():
        rows = [line.split()[:2] for line in shown if line.startswith(f"TRAINER.{cls.node()}.{name} ")]
        assert rows == [[f"TRAINER.{cls.node()}.{name}", repr(default).split()[0]]]
    assert all(any(line.startswith(key) for line in shown) for key in ("OPTIM.LR", "SEED", "TEST.FINAL_MODEL"))


def test_the_table_of_no_trainer(capsys):
    """Catches: a traceback where the name is forgotten or wrong."""
    assert train.main(["--options"]) == 2 and "name a --trainer of ATPrompt" in capsys.readouterr().err
    assert train.main(["--options", "--trainer", "TACO"]) == 2 and "Did you mean 'TAC'?" in capsys.readouterr().err


def test_together():
    """Catches: settings that torch refuses with a traceback, or that leave nothing to average."""
    by_name = {cls.__name__: cls for cls in METHODS}
    cfg = config_of(by_name["CoOp"])
    cfg.OPTIM.NAME, cfg.OPTIM.SGD_NESTEROV, cfg.OPTIM.MOMENTUM = "sgd", True, 0.0
    with pytest.raises(ValueError, match="SGD_NESTEROV True needs OPTIM.MOMENTUM above 0"):
        by_name["CoOp"].check_cfg(cfg)
    cfg = config_of(by_name["PromptSRC"])
    cfg.TRAINER.PROMPTSRC.GPA_MEAN = 1000
    with pytest.raises(ValueError, match="GPA_MEAN 1000 and GPA_STD 1 give none of the epochs 1 to 10 a weight"):
        by_name["PromptSRC"].check_cfg(cfg)


@pytest.mark.parametrize(
    "bad", [[0], [5, 5], [3, 1], [0, float("nan")], [0, float("inf")], ["a", "b"], [0, 1, 2], None]
)
def test_range(bad):
    """Catches: a range of grey values that divides by zero, or turns a data set into its negative."""
    rule = allowed.Range("")
    assert rule.takes([0, 4095]) and rule.takes((0, 1.5)) and rule.takes([]) and not rule.takes(bad)
