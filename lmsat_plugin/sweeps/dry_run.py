"""What a dry run shows: of each model, the results done, failed and still to do, and the bytes to download."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lmsat_plugin.sweeps.downloads import Downloads
from lmsat_plugin.sweeps.jobs import Job
from lmsat_plugin.sweeps.plan import Plan
from lmsat_plugin.sweeps.store import Store


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
    missing: Counter[str] = Counter()
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
            missing[checkpoint.model] += 1
    for model, count in missing.items():
        models[model].download_bytes = sizes[model] * count
    return models
