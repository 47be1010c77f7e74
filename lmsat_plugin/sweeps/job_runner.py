"""Measure a sweep's checkpoints one after another: claim, download, load, evaluate, write."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmsat_plugin.errors import LmsatError, first_sentence, wants_traceback
from lmsat_plugin.harness.shared_tasks import TaskError
from lmsat_plugin.hookspecs import CheckpointEvaluated
from lmsat_plugin.model.loading import HeadNotFoundError
from lmsat_plugin.plugins import plugins
from lmsat_plugin.probe import Need
from lmsat_plugin.sweeps.background import Background
from lmsat_plugin.sweeps.claims import Claim
from lmsat_plugin.sweeps.downloads import Downloads
from lmsat_plugin.sweeps.fingerprint import Fingerprint, fingerprint, known_files, remembered
from lmsat_plugin.sweeps.interrupts import Interrupts
from lmsat_plugin.sweeps.jobs import Job
from lmsat_plugin.sweeps.launch import Launch
from lmsat_plugin.sweeps.options import Options
from lmsat_plugin.sweeps.plan import Plan, PlannedResult
from lmsat_plugin.sweeps.progress_display import ProgressDisplay
from lmsat_plugin.sweeps.store import NewResult, Store
from lmsat_plugin.sweeps.stored import Identity, Stored, canonical
from lmsat_plugin.sweeps.summary import Summary

_POLL_SECONDS = 0.5
# What a result is measured anew for and the old one stands no more; other settings make another result.
_REPLACED_BY = ("weights", "version")


@dataclass(frozen=True, kw_only=True)
class SweepContext:
    """What a sweep works with."""

    plan: Plan
    store: Store
    downloads: Downloads
    launch: Launch
    display: ProgressDisplay
    interrupts: Interrupts
    options: Options


@dataclass(frozen=True)
class _Fetched:
    """A checkpoint on disk; without a fingerprint if only the shard with the head was fetched."""

    folder: Path
    fingerprint: Fingerprint | None


@dataclass(kw_only=True)
class _StartedJob:
    """A job whose checkpoint is claimed and on its way to the disk, and what was measured of it so far."""

    job: Job
    claim: Claim
    stored: Stored
    head_only: bool
    fetched: Future[_Fetched]
    noted: dict[str, Any]
    """What results note of the checkpoint."""
    values: dict[str, float] = field(default_factory=dict)


class JobRunner:
    """Runs the jobs of a plan that are neither done nor claimed by another process."""

    def __init__(self, context: SweepContext) -> None:
        self._context = context
        self._background = Background()
        self._unfinished: dict[Job, Any] = {}
        """From the jobs that others have claimed to the stamp of their results when these were read last."""
        self.summary = Summary()

    def run(self, jobs: Sequence[Job]) -> Summary:
        """Run the jobs.

        Raises:
            LmsatError: Where going on makes no sense: results cannot be written, a task cannot be loaded, the
                device is broken.
            KeyboardInterrupt: When interrupted; a file that is being written is finished first.
        """
        options = self._context.options
        wait = options.wait and options.watch is None
        pending = deque(jobs)
        following: _StartedJob | None = None
        try:
            while True:
                self._context.interrupts.check()
                current, following = following or self._start_next(pending), None
                if current is None:
                    if not pending or not wait:
                        break
                    time.sleep(_POLL_SECONDS)
                    continue
                try:
                    # The next one is fetched and read while this one is measured.
                    following = self._start_next(pending)
                    self._measure(current)
                finally:
                    current.claim.release()
        finally:
            if following is not None:
                following.claim.release()
        self.summary.elsewhere = len(pending)
        return self.summary

    def _start_next(self, pending: deque[Job]) -> _StartedJob | None:
        """Claim the first job that has something to do, and begin to fetch it; drop those that are done."""
        store = self._context.store
        for job in list(pending):
            # Results are read once without a claim, which is cheap, and again only where they have changed.
            stamp = store.stamp(job.checkpoint)
            if self._unfinished.get(job) != stamp:
                if not self._left(job, store.read(job.checkpoint)):
                    pending.remove(job)
                    self._unfinished.pop(job, None)
                    continue
                self._unfinished[job] = stamp
            claim = store.claim(job.checkpoint)
            if claim is None:
                continue
            pending.remove(job)
            self._unfinished.pop(job)
            try:
                if started := self._start(job, claim):
                    return started
            except BaseException:
                claim.release()
                raise
            claim.release()
        return None

    def _start(self, job: Job, claim: Claim) -> _StartedJob | None:
        """Begin to fetch a job's checkpoint; None if others have done the job before it was claimed."""
        context = self._context
        stored = context.store.read(job.checkpoint)
        context.store.mend(stored)
        work = self._left(job, stored)
        if not work:
            return None
        head_only = context.launch.size == 1 and all(result.unit.needs == Need.HEAD for result in work)
        return _StartedJob(
            job=job,
            claim=claim,
            stored=stored,
            head_only=head_only,
            fetched=self._background.submit(self._fetch, job, stored, head_only),
            noted=job.describe(),
        )

    def _left(self, job: Job, stored: Stored) -> list[PlannedResult]:
        """Return what seems to be left to do of a job; count it if there is nothing."""
        plan, folder, weights = self._context.plan, job.checkpoint.folder, job.known_weights(stored)
        known = folder is None or weights is not None or known_files(folder, stored.checkpoints) is not None
        if not known and (stored.done or stored.failed):
            # Other files than the results were made of: reading them will tell.
            return plan.work(job, None)
        work = plan.pending(job, stored, weights, self._context.options)
        if not work:
            failures = plan.failures(job, stored, weights)
            self._count(job, failures[0][1] if failures else None, before=True)
        return work

    def _fetch(self, job: Job, stored: Stored, head_only: bool) -> _Fetched:
        folder = self._context.downloads.fetch(job.checkpoint, head_only=head_only)
        known = remembered(folder, stored.checkpoints)
        if known is None and not (head_only and job.checkpoint.folder is None):
            known = fingerprint(folder)
        return _Fetched(folder, known)

    def _measure(self, started: _StartedJob) -> None:
        """Measure one checkpoint as far as it can be measured, and record what cannot."""
        context, job, stored = self._context, started.job, started.stored
        context.display.begin(job.label)
        started.claim.note(job.label)
        work: list[PlannedResult] = []
        failures: list[tuple[Identity, str]] = []
        weights = job.checkpoint.commit
        try:
            fetched = started.fetched.result()
            if fetched.fingerprint is not None:
                started.noted["weights_sha256"] = fetched.fingerprint.weights_sha256
                if job.checkpoint.folder is not None:
                    weights = started.noted["identity"] = fetched.fingerprint.identity
            work = context.plan.pending(job, stored, weights, context.options)
            if work:
                self._load(started, fetched)
        except Exception as error:
            work = context.plan.pending(job, stored, weights, context.options)
            failures = [(result.identity, _reason(error)) for result in work]
        else:
            for batch in dict.fromkeys(result.batch for result in work):
                failures += self._evaluate(started, [result for result in work if result.batch == batch])
        context.downloads.release(job.checkpoint)
        # What failed before, and was not to be tried again, still stands.
        tried = {canonical(result.identity) for result in work}
        known = context.plan.failures(job, stored, weights)
        failures += [failure for failure in known if canonical(failure[0]) not in tried]
        with context.interrupts.held():
            context.store.write_failures(stored, failures, checkpoint=started.noted, run=context.options.run)
        self._count(job, failures[0][1] if failures else None, before=not work, values=started.values)

    def _load(self, started: _StartedJob, fetched: _Fetched) -> None:
        launch, job = self._context.launch, started.job
        try:
            launch.call("load", job, fetched.folder, started.head_only)
        except HeadNotFoundError:
            launch.call("load", job, self._context.downloads.fetch(job.checkpoint), False)

    def _evaluate(self, started: _StartedJob, asked: Sequence[PlannedResult]) -> list[tuple[Identity, str]]:
        """Evaluate results of one batch together; where that fails, one by one, so that one does not cost the others.

        Adds what was measured to ``started.values``; returns what failed.
        """
        names = [result.unit.task for result in asked]
        try:
            results, arrays = self._context.launch.call("evaluate", started.job, asked[0].batch, names)
        except TaskError:
            raise
        except Exception as error:
            if "CUDA error" in str(error):
                raise LmsatError(
                    f"the GPU is in a broken state ({first_sentence(error)}): start the sweep again"
                ) from error
            if len(asked) == 1:
                return [(asked[0].identity, _reason(error))]
            return [failure for result in asked for failure in self._evaluate(started, [result])]
        identities = [result.identity for result in asked]
        members = results.get("group_subtasks") or {}
        new = NewResult(
            results=results,
            arrays=arrays,
            identities=identities,
            supersedes=_superseded(started.stored, identities, members),
            checkpoint=started.noted,
            run=self._context.options.run,
        )
        checkpoint, store = started.job.checkpoint, self._context.store
        with self._context.interrupts.held():
            path = store.write(checkpoint, new)
        metrics = metrics_of(results)
        started.values.update(metrics)
        plugins().tell(
            CheckpointEvaluated(
                model=checkpoint.model,
                revision=checkpoint.revision,
                step=checkpoint.step,
                tokens=checkpoint.tokens,
                metrics=metrics,
                path=path,
                output=store.output,
                trackers=self._context.plan.config.trackers,
            )
        )
        return []

    def _count(self, job: Job, error: str | None, *, before: bool, values: dict[str, float] | None = None) -> None:
        self.summary.count(job, error, before=before)
        self._context.display.end(job.label, values or {}, error, before=before)


def _superseded(stored: Stored, identities: Sequence[Identity], members: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the result files, with their tasks, that new results take the place of.

    ``members`` lists what each group consists of: with a group go its tasks.
    """

    def rest(identity: Identity) -> str:
        return canonical({key: value for key, value in identity.items() if key not in _REPLACED_BY})

    def with_members(name: str) -> list[str]:
        return [name, *(task for member in members.get(name, ()) for task in with_members(member))]

    ours = {rest(identity) for identity in identities}
    files: dict[str, list[str]] = {}
    for text, name in stored.done.items():
        identity = json.loads(text)
        if rest(identity) in ours:
            files.setdefault(name, []).extend(with_members(identity["task"]))
    return files


def metrics_of(results: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of lm-eval's results, named ``task/metric``, with the filter where it is not ``none``."""
    metrics = {}
    for task, values in results["results"].items():
        for key, value in values.items():
            metric, comma, chosen = key.partition(",")
            if comma and isinstance(value, int | float):
                metrics[f"{task}/{metric}" if chosen == "none" else f"{task}/{key}"] = float(value)
    return metrics


def _reason(error: BaseException) -> str:
    if wants_traceback():
        import traceback

        traceback.print_exception(error)
    if isinstance(error, LmsatError):
        return str(error)
    return f"{type(error).__name__} ({first_sentence(error)}): LMSAT_DEBUG=1 shows where"
