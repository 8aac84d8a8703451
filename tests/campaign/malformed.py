"""Give malformed values to every option and key of Dassl, and malformed yamls and split files to their readers; count.

    python tests/campaign/malformed.py [--cases N] [--seed N] [--only options | yamls | files]

Nothing is trained: each case makes a run's config, which is where settings are checked. Prints how many cases were
tried, refused in one line, ended in a traceback, were accepted with reason, and were accepted in silence though they
make no sense. Exit code 1 where there is a traceback, such nonsense, or a refusal that does not name what was given.
"""

import argparse
import contextlib
import io
import itertools
import random
import re
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from clusterprompt import dassl_compat

dassl_compat.prepare()

from clusterprompt import dassl_keys  # noqa: E402
from clusterprompt.commands import train as command  # noqa: E402
from clusterprompt.commands.errors import guarded  # noqa: E402
from clusterprompt.registration import own_trainers  # noqa: E402
from clusterprompt.running.train import make_cfg  # noqa: E402

# As words of a command line; yacs reads numbers, lists and names such as True in them.
VALUES = (
    *("None", "nan", "1e400", "-1e400", "-1e30", "1e30", "", " ", "''", "[]", "()", "{}", "{'a': 1}"),
    *("-999999999", "-7", "-1", "-0.5", "0", "0.0", "0.5", "1.5", "999999999", "99999999999999999999999"),
    *("True", "False", "nonsense", "a {name} b", "{0.__class__}", "{:>2000000000}", "a {", "line\nbreak", "\x1b[31m"),
    *("[None]", "[1, None]", "[-1, -1]", "['x', 'y']", "[1e400, 1e400, 1e400]", "(" * 300, "1,2,3", "b'bytes'", "1j"),
    *("../../x", "lambda: 0", "0x7fffffffffffffff", "é", "\ud83d"),
)
# Values that make sense all the same, written down by hand, apart from the program's own tables, by the last part of
# the key. Keys of Dassl that nothing here reads take any finite value of their kind.
UNREAD = set("VERSION NUM_LABELED STL10_FOLD CIFAR_C_LEVEL DROPOUT".split())
TEXTS = set("CIFAR_C_TYPE ACTIVATION ROOT NAME CSV DESCRIPTIONS WANDB INIT_WEIGHTS OUTPUT_DIR".split())
SWITCHES = set(
    "RECLUSTER MASK RETRIEVAL CSC RETURN_IMG0 SGD_NESTEROV NO_TEST PER_CLASS_RESULT COMPUTE_CMAT USE_CUDA VERBOSE GM "
    "PRETRAINED BN SAME_AS_X ALL_AS_UNLABELED STAGED_LR WARMUP_RECOUNT FINETUNE SEARCH_HP OFFICIAL".split()
)
COUNTS = set(
    "SEED NUM_WORKERS CACHE_VIEWS CACHE_MB PROMPT_DEPTH_VISION WARMUP_EPOCH CHECKPOINT_FREQ CROP_PADDING CUTOUT_N "
    "CUTOUT_LEN RANDAUGMENT_N RANDAUGMENT_M N_DOMAIN SGD_DAMPNING TEXT_LOSS_WEIGHT IMAGE_LOSS_WEIGHT GPA_MEAN "
    "N_ITERS".split()
)
SHARES = set(
    "MOMENTUM RMSPROP_ALPHA ADAM_BETA1 ADAM_BETA2 RGS_P GB_P VAL_PERCENT IMAGE_DROPOUT TARGET_DROPOUT "
    "COLORJITTER_H RATIO DROPOUT_RATE".split()
)
WEIGHTS = set(
    "LR WEIGHT_DECAY BASE_LR_MULT WARMUP_CONS_LR WARMUP_MIN_LR GN_MEAN GN_STD COLORJITTER_B COLORJITTER_C "
    "COLORJITTER_S W ALPHA LAMBDA KEY IMAGE_TO_TEXT RESIDUAL_SCALE INIT_ALPHA INIT_BETA".split()
)
LISTS = {"TRANSFORMS", "SOURCE_DOMAINS", "TARGET_DOMAINS", "NEW_LAYERS", "HIDDEN_LAYERS"}
NAMES = LISTS - {"TRANSFORMS", "HIDDEN_LAYERS"}
GOOD = {
    "True": SWITCHES | {"CTX_INIT"},
    "False": SWITCHES | {"CTX_INIT", "NO_TRANSFORM"},
    "None": {"CTX_INIT"},
    "0": COUNTS | SHARES | WEIGHTS,
    "0.0": SHARES | WEIGHTS,
    "0.5": SHARES | WEIGHTS | {"T", "GAMMA", "EPS"},
    "1.5": WEIGHTS | {"T"},
    "-0.5": {"GN_MEAN"},
    "-7": {"GN_MEAN", "GPA_MEAN"},
    "-1": set(
        "SEED NUM_SHOTS PROMPT_DEPTH PROMPT_DEPTH_TEXT PROMPT_DEPTH_VISION PROMPT_LAYER WARMUP_EPOCH GN_MEAN "
        "GPA_MEAN".split()
    ),
    "999999999": {"SEED", "PRINT_FREQ"},
    "[]": LISTS | {"STEPSIZE", "REP_LAYERS"},
    "()": LISTS | {"STEPSIZE"},
    "1,2,3": {"PIXEL_STD", "STEPSIZE", "HIDDEN_LAYERS"},
    "['x', 'y']": NAMES,
    "[-1, -1]": {"STEPSIZE"},
    "": {"CTX_INIT", "TEMPLATE", "RESUME"},
    " ": {"CTX_INIT"},
    "''": {"CTX_INIT", "TEMPLATE", "RESUME", "TEACHER_NAME"},
    "{}": {"TEMPLATE"},
}

YAMLS = {
    "OPTIM: [": "broken",
    "OPTIM: {LR: 0.1, LR: 0.2}": "a key twice",
    "OPTIM:\n  LR: 0.1\nOPTIM:\n  MAX_EPOCH: 3": "a group twice",
    "- OPTIM": "a list",
    "just words": "words",
    "7": "a number",
    "OPTIM: 3": "a number for a group",
    "OPTIM:": "nothing for a group",
    "OPTIM: {}": "an empty group",
    "OPTIM:\n  LR:": "nothing for a number",
    "OPTIM:\n  LR: {A: 1}": "a group for a number",
    "OPTIM:\n  LR: [0.1]": "a list for a number",
    "OPTIM:\n  LR: 2024-01-01": "a date",
    "OPTIM:\n  LR: 2024-13-45": "a date that does not exist",
    "OPTIM:\n  LR: !!binary aGVsbG8=": "bytes",
    "OPTIM:\n  LR: !!set {a, b}": "a set",
    "OPTIM:\n  LR: .nan": "not a number",
    "OPTIM:\n  LR: -.inf": "infinite",
    "OPTIM:\n  LR: ~": "null",
    "OPTIM:\n  MAX_EPOCH: 1.5": "a fraction for a whole number",
    "OPTIM:\n  MAX_EPOCH: true": "a switch for a number",
    "1: 2": "a number as key",
    "null: 2": "null as key",
    "? [1, 2]\n: 3": "a list as key",
    "? {a: b}\n: 3": "a group as key",
    "OPTIM.LR: -1": "a dotted key",
    "a: &a [*a]": "a circle",
    "OPTIM: &a {LR: *a}": "a circle below a group",
    "!!python/object/apply:os.system ['false']": "code",
    "SEED: !!python/name:os.system": "a name of Python",
    "SEED: __import__('os').system('false')": "an expression",
    "\t\tOPTIM: 1": "tabs",
    "OPTIM:\n  LR: 0.1\n MAX_EPOCH: 3": "bad indentation",
    "TRAINER:\n  NAME: 3": "a number as a name",
    "TRAINER:\n  TAC: 1": "a number for a node",
    "TRAINER:\n  TAC:\n    N_CTX: 5": "a key of another method",
    "INPUT:\n  SIZE: 224": "a number for a pair",
    "INPUT:\n  SIZE: (224,)": "one value for a pair",
    "INPUT:\n  PIXEL_STD: [1.0]": "one value for three",
    "INPUT:\n  PIXEL_STD: [0, 0, 0]": "a divisor of zero",
    "INPUT:\n  TRANSFORMS: random_flip": "a word for a list",
    "INPUT:\n  TRANSFORMS: [flip]": "an unknown word in a list",
    "INPUT:\n  RRCROP_SCALE: (1.0, 0.4)": "a range upside down",
    "[" * 5000: "deep lists",
    "a: " + "{a: " * 3000: "deep groups",
    "\x00": "a null byte",
    "\ufeff\ufeffOPTIM: 1": "marks of byte order",
    "%YAML 9.9\n---\nSEED: 1": "another version of yaml",
    "---\nSEED: 1\n---\nSEED: 2": "two documents",
    "OPTIM:\n  LR: '" + "9" * 500 + "'": "a number of 500 digits",
}


# Split files: of a data set in CoOp's layout, and of a user's own images.
ROWS = '[["a.jpg", 0, "x"], ["b.jpg", 1, "y"]]'
SPLITS = {
    '{"train": ': "broken",
    "": "empty",
    "null": "null",
    "[]": "a list",
    "NaN": "not a number",
    '"words"': "words",
    "\ufeff{}": "a mark of byte order",
    "[" * 100_000: "deep lists",
    '{"train":' * 100_000: "deep groups",
    f'{{"train": {ROWS}, "val": {ROWS}, "test": {ROWS}, "train": []}}': "a part twice",
    f'{{"train": {ROWS}, "val": [], "test": {ROWS}, "notes": {{"a": 1, "a": 2}}}}': "a key twice, deeper",
    f'{{"train": {ROWS}, "val": []}}': "a part is missing",
    f'{{"train": {{}}, "val": {ROWS}, "test": {ROWS}}}': "a group for a list",
    f'{{"train": null, "val": {ROWS}, "test": {ROWS}}}': "null for a list",
    '{"train": [], "val": [], "test": []}': "no image",
    **{
        f'{{"train": [{row}], "val": {ROWS}, "test": {ROWS}}}': f"a row {row[:40]}"
        for row in (
            "1",
            "[]",
            "null",
            '"a.jpg"',
            '["a.jpg", 0]',
            '["a.jpg", 0, "x", 1]',
            '["a.jpg", "0", "x"]',
            '["a.jpg", 0.0, "x"]',
            '["a.jpg", true, "x"]',
            '["a.jpg", NaN, "x"]',
            '["a.jpg", 1e999, "x"]',
            '["a.jpg", -1, "x"]',
            '["a.jpg", 7, "x"]',
            f'["a.jpg", {"9" * 300}, "x"]',
            f'["a.jpg", {"9" * 5000}, "x"]',
            '["a.jpg", 0, ""]',
            '["a.jpg", 0, null]',
            '["a.jpg", 0, "y"]',
            '["../../etc/passwd", 0, "x"]',
            '["nowhere.jpg", 0, "x"]',
            '["\\u0000", 0, "x"]',
            '["\\ud800", 0, "x"]',
            '[["a.jpg"], 0, "x"]',
            '[{"a": 1}, 0, "x"]',
            "[" * 300 + "]" * 300,
        )
    },
}


HARMLESS = {"a dotted key", "another version of yaml"}  # read as what they plainly say


class Case(NamedTuple):
    """One try: words of a command line, what was malformed in it, and the value given."""

    words: tuple[str, ...]
    key: str
    value: str

    def __str__(self) -> str:
        return f"{self.words[1]} {self.key} {self.value[:60]!r}"


def makes_sense(key: str, value: str) -> bool:
    """Tell by the lists above whether a value from VALUES is a good one after all."""
    name = key.split(".")[-1]
    if name in GOOD.get(value, ()):
        return True
    if name in UNREAD:
        return not re.search("None|nan|1e400", value)
    # Words that yacs reads as text; what a path or a name can be is not for a config to say.
    if name == "CTX_INIT":
        return value.isprintable() and not set("{}") & set(value)
    return name in TEXTS and value.replace("\ud83d", "").isprintable()  # paths may hold bytes of no character


def option_cases() -> list[Case]:
    """Return the cases of all trainers' own options, and of Dassl's keys with one trainer after the other."""
    cases, trainers = [], own_trainers()
    for trainer in trainers:
        cases += [_case(trainer, key, value) for key in trainer.rules() for value in VALUES]
    turns = itertools.cycle(trainers)
    return cases + [_case(next(turns), key, value) for key in dassl_keys.rules() for value in VALUES]


def _case(trainer: type, key: str, value: str) -> Case:
    base = ("DATASET.NAME", "Caltech101", "MODEL.BACKBONE.NAME", "tiny", "DATALOADER.RETURN_IMG0", "True")
    return Case(("--trainer", trainer.__name__, *base, key, value), key, value)


def yaml_cases(folder: Path) -> list[Case]:
    """Write the malformed yamls, under several names; return their cases."""
    cases = []
    for number, text in enumerate(YAMLS):
        for ending in (".yaml", ".YAML", ".json", ".txt", ".py", ""):
            path = folder / f"{number}{ending}"
            path.write_text(text, encoding="utf-8")
            cases.append(Case((*_case(own_trainers()[0], "", "").words[:6], "--config-file", str(path)), "", text))
    (folder / "latin.yaml").write_bytes(b"SEED: \xff")
    cases.append(Case(("--trainer", "CoOp", "--config-file", str(folder / "latin.yaml")), "", "bytes that are no text"))
    return cases


def file_cases(folder: Path) -> list[Case]:
    """Write the malformed split files and the yamls of data sets; return their cases: the door, and the file."""
    cases = []
    for number, text in enumerate(SPLITS):
        for door, name, place in (
            ("split", "split_zhou_Caltech101.json", "caltech-101/101_ObjectCategories"),
            ("own split", "split_clusterprompt.json", "."),
        ):
            root = folder / f"{door}{number}"
            images = root / place
            for path in ("a.jpg", "b.jpg") if door == "split" else ("x/a.jpg", "y/b.jpg"):
                (images / path).parent.mkdir(parents=True, exist_ok=True)
                (images / path).touch()
            file = (root / "caltech-101" if door == "split" else root) / name
            file.write_text(text, encoding="utf-8")
            cases.append(Case((door, str(file)), "", SPLITS[text]))
    for number, text in enumerate(YAMLS):
        path = folder / f"{number}.yaml"
        path.write_text(text, encoding="utf-8")
        cases.append(Case(("yaml of a data set", str(path)), "", YAMLS[text]))
    return cases


def read_file(case: Case) -> str:
    """Give a case's file to its reader; return the outcome as :func:`outcome` does."""
    door, file = case.words
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = guarded(lambda: _read(door, Path(file)) and None)
    except (Exception, SystemExit):
        return "traceback"
    if code == 0:  # a yaml says whether its data are drawn; what else stands in it is looked at when a run begins
        return "accepted" if door == "yaml of a data set" and case.value not in REFUSED else "nonsense"
    error = said.getvalue()
    length = len(error.replace(str(Path(file).parent), ""))
    one_line = error.startswith("error: ") and error.count("\n") == 1 and length < 900
    return "refused" if one_line and (Path(file).name in error or "listed images" in error) else "vague"


# Yamls of data sets that are refused before anything is asked of them.
REFUSED = {"broken", "a key twice", "a group twice", "a list", "words", "a number", "deep lists", "deep groups", "tabs"}


def _read(door: str, file: Path) -> None:
    from clusterprompt.datasets.caltech101 import Caltech101
    from clusterprompt.datasets.image_folder import ImageFolder
    from clusterprompt.running.spec import is_drawn

    if door == "yaml of a data set":
        is_drawn(str(file))
        return
    root = file.parent.parent if door == "split" else file.parent
    words = ("--trainer", "CoOp", "--root", str(root), "DATASET.NAME", "Caltech101", "MODEL.BACKBONE.NAME", "tiny")
    cfg = make_cfg(command.train_options(command.parse(words)))
    (Caltech101 if door == "split" else ImageFolder)(cfg)


def outcome(case: Case) -> str:
    """Make the config of a case.

    Returns:
        ``refused``, ``vague`` (refused without the key or the value), ``traceback``, ``accepted`` with reason, or
        ``nonsense``.
    """
    said = io.StringIO()
    try:
        options = command.train_options(command.parse(case.words))
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = guarded(lambda: make_cfg(options) and None)
    except (Exception, SystemExit):
        return "traceback"
    error = said.getvalue()
    if code == 0:
        good = makes_sense(case.key, case.value) if case.key else YAMLS.get(case.value) in HARMLESS
        return "accepted" if good else "nonsense"
    one_line = error.startswith("error: ") and error.count("\n") == 1 and len(error) < 700
    named = case.key or Path(case.words[-1]).name
    given = any(words in error for words in (named, "; allowed: ", "unknown data set", "no data set is named"))
    return "refused" if one_line and given else "vague"


def run(cases: list[Case]) -> dict[str, list[Case]]:
    """Try the cases; return them by outcome."""
    found: dict[str, list[Case]] = {name: [] for name in ("refused", "accepted", "vague", "traceback", "nonsense")}
    for case in cases:
        found[(outcome if case.words[0] == "--trainer" else read_file)(case)].append(case)
    return found


def main() -> int:
    """Run the campaign; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=0, help="cases of options, drawn at random; default: all")
    parser.add_argument("--only", choices=("options", "yamls", "files"), help="one kind; default: all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the drawing")
    args = parser.parse_args()
    options = option_cases()
    if args.cases:
        options = random.Random(args.seed).sample(options, min(args.cases, len(options)))
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in ("yamls", "files"):
            Path(folder, name).mkdir()
        kinds = {
            "options": ("option values", options),
            "yamls": ("yamls", yaml_cases(Path(folder, "yamls"))),
            "files": ("split files and yamls of data sets", file_cases(Path(folder, "files"))),
        }
        for title, cases in kinds.values() if not args.only else [kinds[args.only]]:
            found = run(cases)
            print(
                f"{title}: {len(cases)} tried, {len(found['refused'])} refused in one line, {len(found['traceback'])} "
                f"tracebacks, {len(found['accepted'])} accepted with reason, {len(found['nonsense'])} accepted "
                f"nonsense, {len(found['vague'])} refused vaguely"
            )
            for name in ("traceback", "nonsense", "vague"):
                bad += len(found[name])
                for case in found[name]:
                    print(f"  {name}: {case}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
