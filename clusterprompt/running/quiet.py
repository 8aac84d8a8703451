"""Read data without a word."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what is only read once more from telling about itself."""
    ours = logging.getLogger(__name__.partition(".")[0])
    level = ours.level
    try:
        ours.setLevel(logging.ERROR)
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        ours.setLevel(level)
