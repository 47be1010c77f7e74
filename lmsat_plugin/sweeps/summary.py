"""What became of a sweep's checkpoints, and what a dry run shows: results done, failed, to do; bytes to download."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lmsat_plugin.sweeps.downloads import Downloads
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
    left: dict[str, str] = field(default_factory=dict)
    """From the label of a checkpoint that met passing trouble to the end to that trouble."""
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


def read_summary(plan: Plan, store: Store, jobs: Sequence[Job], left: Mapping[str, str] | None = None) -> Summary:
    """Return what the output folder says of the jobs, whichever process measured them.

    ``left`` has the reasons for which checkpoints may not be measured, by label.
    """
    summary = Summary(identical=find_identical(plan, store))
    for job in jobs:
        stored = store.read(job.checkpoint)
        weights = job.known_weights(stored)
        if failures := plan.failures(job, stored, weights):
            summary.failed[job.label] = failures[0][1]
        elif plan.pending(job, stored, weights):
            if left and job.label in left:
                summary.left[job.label] = left[job.label]
            else:
                summary.elsewhere += 1
        else:
            summary.measured += 1
    store.clean_claims()
    return summary


def find_identical(plan: Plan, store: Store) -> list[list[str]]:
    """Return the groups of checkpoints whose weights are the same, as their results say."""
    groups: dict[str, list[str]] = {}
    for job in plan.jobs:
        hashes = [noted.get("weights_sha256") for noted in store.read(job.checkpoint).checkpoints]
        if hashes and hashes[-1]:
            groups.setdefault(hashes[-1], []).append(job.label)
    return [labels for labels in groups.values() if len(labels) > 1]


@dataclass(kw_only=True)
class ModelWork:
    """What a sweep would do with one model: numbers of results, and the bytes to download."""

    checkpoints: int = 0
    results: int = 0
    done: int = 0
    failed: int = 0
    todo: int = 0
    download_bytes: int = 0


def count_work(plan: Plan, store: Store, downloads: Downloads, jobs: Sequence[Job]) -> dict[str, ModelWork]:
    """Return what there is to do, by model. Nothing is written, and nothing downloaded."""
    models: dict[str, ModelWork] = {}
    sizes: dict[str, int] = {}
    for job in jobs:
        checkpoint = job.checkpoint
        work = models.setdefault(checkpoint.model, ModelWork())
        stored = store.read(checkpoint)
        weights = job.known_weights(stored)
        results = len(plan.work(job, weights))
        failed = len(plan.failures(job, stored, weights))
        undone = len(plan.pending(job, stored, weights))
        work.checkpoints += 1
        work.results += results
        work.done += results - undone
        work.failed += failed
        work.todo += undone - failed
        if checkpoint.folder is None and failed < undone:
            # One request tells the size of a checkpoint; those of a series are alike.
            if checkpoint.model not in sizes:
                sizes[checkpoint.model] = downloads.size(checkpoint)
            work.download_bytes += sizes[checkpoint.model]
    return models
