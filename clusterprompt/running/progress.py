"""A bar, and a line for each job that ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from .machine import duration
from .plan import Job


def say(text: str) -> None:
    """Print a line above the bar."""
    tqdm.write(text)
    sys.stdout.flush()


class Progress:
    """What is done of a plan, and how long the rest will take.

    Args:
        todo: All jobs.
    """

    def __init__(self, todo: Sequence[Job]):
        self.total, self.seconds_done, self.began = len(todo), 0.0, time.time()
        self.bar = tqdm(total=len(todo), unit="run", disable=None)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    def done(self, job: Job, lost: Sequence[Job], reason: str, left: Sequence[Job]) -> None:
        """Report the end of a job.

        Args:
            job: The job.
            lost: Jobs that cannot be run because it failed.
            reason: Why it failed; empty if it did not.
            left: Jobs that wait or run.
        """
        self.seconds_done += job.guess + sum(other.guess for other in lost)
        rest = (time.time() - self.began) / self.seconds_done * sum(other.guess for other in left)
        self.bar.update(1 + len(lost))
        outcome = f"failed: {reason}" if reason else job.outcome()
        to_go = f"; {duration(rest)} to go" if left else ""
        say(f"  [{self.total - len(left)}/{self.total}] {job.name}: {outcome}{to_go}")
