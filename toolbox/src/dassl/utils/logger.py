"""The log file: what goes to stdout, kept."""

import os
import sys
import time

from .tools import mkdir_if_missing


class Logger:
    """A stand-in for ``sys.stdout`` that writes to it and to a file.

    The file is line-buffered, so that a process that dies, or ends by ``os._exit``, leaves what it printed. Progress
    bars and warnings go to stderr and are not kept.

    Args:
        fpath: The file; None: write to the console only.
    """

    def __init__(self, fpath: str | None = None):
        # A second logger takes over from the first: the results of one run have no place in the log of another.
        if isinstance(sys.stdout, Logger):
            sys.stdout.close()
            self.console = sys.stdout.console
        else:
            self.console = sys.stdout
        self.file = None
        if fpath is not None:
            mkdir_if_missing(os.path.dirname(fpath))
            self.file = open(fpath, "a", buffering=1, encoding="utf-8")

    def write(self, msg: str) -> int:
        self.console.write(msg)
        if self.file is not None:
            self.file.write(msg)
        return len(msg)

    def flush(self) -> None:
        self.console.flush()
        if self.file is not None:
            self.file.flush()
            os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the file. The console stays open, and later output goes there."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def isatty(self) -> bool:
        return self.console.isatty()

    def fileno(self) -> int:
        return self.console.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self):
        return self.console.encoding

    @property
    def errors(self):
        return self.console.errors

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def setup_logger(output: str | None = None) -> None:
    """Keep everything printed from now on in a file as well.

    Args:
        output: A path that ends in .txt or .log is the file; anything else is a folder, for ``log.txt`` in it. If the
            file exists, the new one has the time appended to its name. None or empty: do nothing.
    """
    if not output:
        return
    fpath = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
    if os.path.exists(fpath):
        fpath += time.strftime("-%Y-%m-%d-%H-%M-%S")
    sys.stdout = Logger(fpath)
