"""Do the runs of a job, in a process of its own. For the engines of ``clusterprompt run``, not for people.

    python -m clusterprompt.commands.worker --resume|--overwrite SPEC ...

Each SPEC is a `clusterprompt.running.spec.RunSpec` as JSON. Stdin is a pipe from the engine, which is never written
to: where it ends, the engine is gone, and so is this process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence

from ..running.chain import run_chain
from ..running.spec import RunSpec
from .errors import guarded


def main(argv: Sequence[str] | None = None) -> int:
    """Do the runs of a job; return the exit code."""
    mode, *texts = sys.argv[1:] if argv is None else argv
    specs = [RunSpec.of_json(text) for text in texts]

    def work() -> None:
        for spec in specs:
            print(spec.train_options().command())
        run_chain(specs, resume=mode == "--resume", overwrite=mode == "--overwrite")

    return guarded(work)


def end_with_engine(stdin: int = 0) -> None:
    """End this process by SIGTERM as soon as its stdin is closed."""

    def watch() -> None:
        while os.read(stdin, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    end_with_engine()
    sys.exit(main())
