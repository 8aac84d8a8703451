"""Do the runs of a job, in a process of its own. For the engines of ``clusterprompt run``, not for people.

    python -m clusterprompt.commands.worker --resume|--overwrite SPEC ...

Each SPEC is a `clusterprompt.running.spec.RunSpec` as JSON.
"""

from __future__ import annotations

import sys
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


if __name__ == "__main__":
    sys.exit(main())
