"""The one way in which a command says an error: one line on stderr and exit code 2."""

from __future__ import annotations

import sys
import traceback
from typing import Callable, NoReturn

# What bad input raises, said in one line. Anything else is a fault of the program and keeps its traceback.
USER_ERRORS = (ValueError, OSError, ImportError, AssertionError, FloatingPointError, NotImplementedError)
USAGE = 2
INTERRUPTED = 130


def is_user_error(error: BaseException) -> bool:
    """Tell what the user can put right from a fault of the program."""
    # The stand-in's CheckpointError is a RuntimeError; real Dassl has no such class.
    return isinstance(error, USER_ERRORS) or type(error).__name__ == "CheckpointError"


def message(error: BaseException) -> str:
    """Return an error in one line, without the traceback that a data loader's worker wraps it in."""
    text = str(error) or type(error).__name__
    if text.startswith("Caught "):
        text = text.strip().splitlines()[-1]
    return text


def fail(error: BaseException | str, with_traceback: bool = False) -> NoReturn:
    """Print an error in one line and end with code 2.

    Raises:
        SystemExit: Always.
    """
    if isinstance(error, str):
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(USAGE)
    if with_traceback:
        traceback.print_exception(error)
    print(f"error: {message(error)}", file=sys.stderr)
    raise SystemExit(USAGE) from error


def guarded(main: Callable[[], object], *, with_traceback: bool = False, resume: str = "") -> int:
    """Run a command; turn what the user can put right into one line.

    Args:
        main: Does the work; may return an exit code.
        with_traceback: Print where an error came from as well.
        resume: How to go on after Ctrl-C, for the message.

    Returns:
        The exit code: that of ``main`` (0 for None), or 130 after Ctrl-C.

    Raises:
        SystemExit: Code 2, after one line on stderr.
    """
    try:
        code = main()
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        print(f"interrupted{'; ' + resume if resume else ''}", file=sys.stderr)
        return INTERRUPTED
    except BaseException as error:
        if not is_user_error(error):
            raise
        fail(error, with_traceback)
