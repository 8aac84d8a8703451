import io
import os
import random
import sys

import numpy as np
import pytest
import torch
from dassl.utils import setup_logger

sys.path.insert(0, os.path.dirname(__file__))  # toolbox_toys, for tests and for the processes they start

from toolbox_toys import toy_cfg, write_pictures  # noqa: E402


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    write_pictures(root)
    return str(root)


@pytest.fixture
def cfg(pictures, tmp_path):
    """A function from KEY, VALUE, ... to a config whose output is below the test's folder."""

    def make(*pairs, out="out"):
        return toy_cfg(pictures, tmp_path / out, *pairs)

    return make


@pytest.fixture
def log_to():
    """Dassl's `setup_logger`, undone at the end. Real Dassl's logger would close pytest's console when it is freed."""
    loggers = []

    def start(output):
        setup_logger(output)
        loggers.extend([sys.stdout] if output else [])

    yield start
    if sys.stdout in loggers:
        sys.stdout = loggers[0].console
    for logger in loggers:
        logger.console = io.StringIO()
        logger.close()


@pytest.fixture(autouse=True)
def process_state():
    """Give each test, and leave, the random generators as they were."""
    torch_state, np_state, py_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    yield
    torch.set_rng_state(torch_state)
    np.random.set_state(np_state)
    random.setstate(py_state)
