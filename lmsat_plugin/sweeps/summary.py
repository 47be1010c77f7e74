"""What became of a sweep's checkpoints, and what a dry run shows: results done, failed, to do; bytes to download."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lmsat_plugin.errors import LmsatError, PassingError
from lmsat_plugin.sweeps.downloads import Downloads
from lmsat_plugin.sweeps.jobs import Job
from lmsat_plugin.sweeps.plan import Plan
from lmsat_plugin.sweeps.store import Store
from lmsat_plugin.sweeps.stored import canonical, of_whole

ASKED = 200
"""Checkpoints about whose files a dry run asks the Hub, at most."""


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
            # What arguments put on the weights makes another model.
            put_on = {key: job.model_args.get(key) for key in ("peft", "delta")}
            groups.setdefault(f"{hashes[-1]} {canonical(put_on)}", []).append(job.label)
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
    of_unknown_size: int = 0
    """Checkpoints to download that the Hub was not asked about: their bytes are the mean of the others'."""
    equal: int = 0
    """Checkpoints that need no download, since others of equal files are measured."""


def count_work(plan: Plan, store: Store, downloads: Downloads, jobs: Sequence[Job]) -> dict[str, ModelWork]:
    """Return what there is to do, by model, without writing or downloading anything.

    The Hub is asked about the files of `ASKED` checkpoints at most, eight at once.
    """
    models: dict[str, ModelWork] = {}
    to_download: list[Job] = []
    parts: list[Job] = []
    for job in jobs:
        checkpoint = job.checkpoint
        work = models.setdefault(checkpoint.model, ModelWork())
        stored = store.read(checkpoint)
        weights = job.known_weights(stored)
        # A result of which only a group of values is missing is one to be measured.
        results = len({of_whole(result.identity) for result in plan.work(job, weights)})
        failed = len({of_whole(identity) for identity, _ in plan.failures(job, stored, weights)})
        undone = len({of_whole(result.identity) for result in plan.pending(job, stored, weights)})
        work.checkpoints += 1
        work.results += results
        work.done += results - undone
        work.failed += failed
        work.todo += undone - failed
        if failed < undone:
            parts += [part for part in job.parts if part.checkpoint.on_hub]
            to_download += [job] if checkpoint.on_hub else []
    # Averages share their parts with each other, and with the checkpoints that are measured themselves.
    there = {(job.checkpoint.pretrained, job.checkpoint.content) for job in to_download}
    others = {(part.checkpoint.pretrained, part.checkpoint.content): part for part in parts}
    to_download += [part for key, part in others.items() if key not in there]
    _count_bytes(models, downloads, to_download)
    return models


def _count_bytes(models: dict[str, ModelWork], downloads: Downloads, jobs: Sequence[Job]) -> None:
    """Add what the downloads of jobs take. Those that are not asked about have the mean size of their model's."""
    sizes: dict[str, list[int]] = {}
    contents: set[object] = set()
    if not downloads.cannot_ask:
        downloads.listings.ask([job.checkpoint for job in jobs[:ASKED]])
    for number, job in enumerate(jobs):
        work, content = models[job.checkpoint.model], downloads.content(job.checkpoint)
        if content is None and number >= ASKED and not downloads.cannot_ask:
            work.of_unknown_size += 1
        elif content is not None and (content, canonical(job.model_args)) in contents:
            work.equal += 1
        else:
            contents.add((content, canonical(job.model_args)))
            sizes.setdefault(job.checkpoint.model, []).append(_size_of(downloads, job))
    every = [size for of_model in sizes.values() for size in of_model]
    for model, work in models.items():
        known = sizes.get(model, [])
        work.download_bytes = sum(known)
        if known := known or every:
            work.download_bytes += work.of_unknown_size * sum(known) // len(known)


def _size_of(downloads: Downloads, job: Job) -> int:
    """Return the bytes of a download; 0 for what cannot be measured, such as shards of another program."""
    try:
        return downloads.size(job.checkpoint)
    except PassingError:
        raise
    except LmsatError:
        if downloads.cannot_ask:
            raise
        return 0


def describe_downloads(work: Mapping[str, ModelWork]) -> list[str]:
    """Return in sentences what the numbers of bytes to download do not say."""
    lines = []
    if unknown := sum(each.of_unknown_size for each in work.values()):
        lines.append(
            f"The Hub was asked for the sizes of {ASKED} checkpoints; {unknown:,} others are taken to be as large."
        )
    if equal := sum(each.equal for each in work.values()):
        lines.append(f"Checkpoints with the files of others, which are measured with these: {equal:,}.")
    return lines
