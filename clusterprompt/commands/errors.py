"""The one way in which a command says an error: one line on stderr, exit code 2."""

from __future__ import annotations

import os
import select
import sys
import traceback
from collections.abc import Callable

from ..record.names import printable

# What bad input raises, said in one line. Anything else is a fault of the program and keeps its traceback.
USER_ERRORS = (ValueError, OSError, ImportError, AssertionError, FloatingPointError, NotImplementedError)
USAGE = 2
INTERRUPTED = 130


def is_user_error(error: BaseException) -> bool:
    """Tell what the user can put right from a fault of the program."""
    # The stand-in's CheckpointError is a RuntimeError; real Dassl has no such class.
    return isinstance(error, USER_ERRORS) or type(error).__name__ == "CheckpointError"


def message(error: BaseException) -> str:
    """Return an error's text, without the traceback that a data loader's worker wraps it in."""
    text = str(error) or type(error).__name__
    return text.strip().splitlines()[-1] if text.startswith("Caught ") else text


def guarded(work: Callable[[], int | None], *, with_traceback: bool = False, go_on: str = "") -> int:
    """Do a command's work; turn what the user can put right into one line.

    Args:
        work: Returns the exit code; None means 0.
        with_traceback: Also print where an error came from.
        go_on: How to go on after Ctrl-C, such as "the same command goes on from here".

    Returns:
        The exit code: that of ``work``, 2 after an error that the user can put right, 130 after Ctrl-C.
    """
    try:
        code = work() or 0
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print(f"\ninterrupted{'; ' + go_on if go_on else ''}", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and reader_is_gone():
            return 0
        if not is_user_error(error):
            raise
        if with_traceback:
            traceback.print_exception(error)
        print(printable(f"error: {message(error)}", keep="\n\t"), file=sys.stderr)
        return USAGE


def reader_is_gone() -> bool:
    """Tell whether whoever read stdout has seen enough, as ``head`` has; if so, drop the rest of the output."""
    watcher = select.poll()
    watcher.register(sys.stdout.fileno(), 0)  # a pipe without a reader is always reported
    if not any(event & select.POLLERR for _, event in watcher.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # also for what Python flushes at its end
    return True
