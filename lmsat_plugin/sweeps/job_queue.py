"""The jobs that a sweep has left, in their order, and when those that met passing trouble are tried again."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable

from lmsat_plugin.errors import PassingError
from lmsat_plugin.sweeps.jobs import Job

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0)
"""Seconds to wait before each further try, in all longer than a server is usually away."""


class JobQueue:
    """Jobs in the order in which they are to be run. One that met trouble goes to the end, and waits."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = list(jobs)
        self._due: dict[Job, float] = {}
        self._troubles: Counter[Job] = Counter()
        self.given_up: dict[Job, str] = {}
        """Jobs that met trouble too often, with the reason."""

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def waiting(self) -> bool:
        """Whether a job is there that will be tried again."""
        return any(job in self._due for job in self._jobs)

    def due(self) -> list[Job]:
        """Return the jobs that need not wait."""
        now = time.monotonic()
        return [job for job in self._jobs if self._due.get(job, now) <= now]

    def remove(self, job: Job) -> None:
        """Take a job out."""
        self._jobs.remove(job)
        self._due.pop(job, None)

    def postpone(self, job: Job, error: PassingError) -> float | None:
        """Put a job that was taken out at the end; return the seconds that it waits, or None if it is given up."""
        self._troubles[job] += 1
        number = self._troubles[job]
        if number >= error.tries:
            self.given_up[job] = str(error)
            return None
        # Jitter: several processes that wait for one server do not come back at the same instant.
        pause = max(error.retry_after, PAUSES[min(number, len(PAUSES)) - 1] * random.uniform(0.9, 1.2))
        self._jobs.append(job)
        self._due[job] = time.monotonic() + pause
        return pause
