"""What became of a sweep's checkpoints: counted while they are measured, or read from the output folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lmsat_plugin.sweeps.jobs import Job
from lmsat_plugin.sweeps.plan import Plan
from lmsat_plugin.sweeps.store import Store


@dataclass(kw_only=True)
class Summary:
    """Numbers of checkpoints, and the reasons of failures."""

    measured: int = 0
    done_before: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """From a checkpoint's label to the reason."""
    elsewhere: int = 0
    """Checkpoints that other processes were measuring to the end."""
    identical: list[list[str]] = field(default_factory=list)
    """Labels of checkpoints that have the same weights."""

    def count(self, job: Job, error: str | None, *, before: bool) -> None:
        """Count a checkpoint that has failed, or was measured: now or ``before``."""
        if error is not None:
            self.failed[job.label] = error
        elif before:
            self.done_before += 1
        else:
            self.measured += 1


def read_summary(plan: Plan, store: Store, jobs: Sequence[Job]) -> Summary:
    """Return what the output folder says of the jobs, whichever process measured them."""
    summary = Summary(identical=find_identical(plan, store))
    for job in jobs:
        stored = store.read(job.checkpoint)
        weights = job.known_weights(stored)
        if failures := plan.failures(job, stored, weights):
            summary.failed[job.label] = failures[0][1]
        elif plan.pending(job, stored, weights):
            summary.elsewhere += 1
        else:
            summary.measured += 1
    store.claims.clean()
    return summary


def find_identical(plan: Plan, store: Store) -> list[list[str]]:
    """Return the groups of checkpoints whose weights are the same, as their results say."""
    groups: dict[str, list[str]] = {}
    for job in plan.jobs:
        hashes = [noted.get("weights_sha256") for noted in store.read(job.checkpoint).checkpoints]
        if hashes and hashes[-1]:
            groups.setdefault(hashes[-1], []).append(job.label)
    return [labels for labels in groups.values() if len(labels) > 1]
