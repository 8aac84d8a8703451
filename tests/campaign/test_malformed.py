"""The short form of the campaign of malformed settings."""

import random

import pytest
from campaign import malformed

pytestmark = pytest.mark.slow


def complaints(found):
    """Return what should not be, in words."""
    return [f"{name}: {case}" for name in ("traceback", "nonsense", "vague") for case in found[name]]


def test_option_values():
    """Catches: a malformed value of an option or of a key of Dassl that ends in a traceback, or is taken in silence."""
    cases = malformed.option_cases()
    assert len(cases) > 5000
    found = malformed.run(random.Random(1).sample(cases, 200))
    assert not complaints(found)
    assert len(found["refused"]) > 160


def test_yamls(tmp_path):
    """Catches: a malformed yaml that ends in a traceback, is taken in silence or runs as code, whatever its name."""
    cases = random.Random(1).sample(malformed.yaml_cases(tmp_path), 50)
    found = malformed.run(cases)
    assert not complaints(found)


def test_files(tmp_path):
    """Catches: a malformed split file, or yaml of a data set, that ends in a traceback or is taken in silence."""
    found = malformed.run(malformed.file_cases(tmp_path))
    assert not complaints(found)
    assert len(found["refused"]) > 2 * len(malformed.SPLITS) - 5


@pytest.mark.parametrize(
    "key, value, good",
    [("OPTIM.LR", "nan", False), ("OPTIM.LR", "0.5", True), ("TRAINER.TAC.N_CTX_TEXT", "0", False)],
)
def test_the_lists_are_used(key, value, good):
    """Catches: a campaign that calls everything good that is accepted."""
    assert malformed.makes_sense(key, value) == good
