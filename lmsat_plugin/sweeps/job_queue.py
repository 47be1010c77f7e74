"""The jobs that a sweep has left, in their order, and when those that met passing trouble are tried again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from lmsat_plugin.errors import PassingError
from lmsat_plugin.passing import pause_before
from lmsat_plugin.sweeps.jobs import Job

_SEVERAL = 3
"""So many checkpoints in a row that meet the same trouble to the end are enough to stop."""


class JobQueue:
    """Jobs in the order in which they are to be run. One that met trouble goes to the end, and waits."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = list(jobs)
        self._due: dict[Job, float] = {}
        self._all_due = 0.0
        self._troubles: Counter[Job] = Counter()
        self._row: list[Job] = []
        self._source = ""
        self._last: set[Job] = set()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def waiting(self) -> bool:
        """Whether a job is there that will be tried again."""
        return any(job in self._due for job in self._jobs)

    @property
    def in_trouble(self) -> bool:
        """Whether the last job met trouble."""
        return bool(self._row)

    def due(self) -> list[Job]:
        """Return the jobs that need not wait."""
        now = time.monotonic()
        return [job for job in self._jobs if max(self._due.get(job, now), self._all_due) <= now]

    def remove(self, job: Job) -> None:
        """Take a job out."""
        self._jobs.remove(job)

    def put_last(self, job: Job) -> bool:
        """Move a job to the end; return False if that was done before."""
        if job in self._last:
            return False
        self._last.add(job)
        self._jobs.remove(job)
        self._jobs.append(job)
        return True

    def passed(self) -> None:
        """Note that a job met no trouble from outside."""
        self._row = []

    def postpone(self, job: Job, error: PassingError) -> float | None:
        """Put a job that was taken out at the end; return the seconds that it waits, or None if it is given up.

        Where several in a row met trouble from one source, all wait. Raises `PassingError` if that lasts.
        """
        if error.source != self._source:
            self._row, self._source = [], error.source
        self._row.append(job)
        self._troubles[job] += 1
        pause = pause_before(max(self._troubles[job], len(self._row)), error)
        several = len(set(self._row))
        if pause is None:
            if several >= _SEVERAL:
                message = f"{several} checkpoints in a row met the same trouble, and the sweep stops: {error}"
                raise PassingError(message, source=error.source)
            return None
        self._jobs.append(job)
        self._due[job] = time.monotonic() + pause
        if several > 1:
            self._all_due = self._due[job]
        return pause
