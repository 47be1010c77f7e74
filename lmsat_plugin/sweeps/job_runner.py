"""Measure a sweep's checkpoints one after another: claim, download, load, evaluate, write."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lmsat_plugin.errors import BrokenDeviceError, PassingError
from lmsat_plugin.harness.result_document import metrics_of
from lmsat_plugin.hookspecs import CheckpointEvaluated
from lmsat_plugin.measurement.references import KeptTensors, Reference
from lmsat_plugin.model.loading import HeadNotFoundError
from lmsat_plugin.passing import patiently
from lmsat_plugin.plugins import plugins
from lmsat_plugin.probe import Need
from lmsat_plugin.sweeps.additions import only_asked
from lmsat_plugin.sweeps.background import Background
from lmsat_plugin.sweeps.checkpoint_folders import CheckpointFolders
from lmsat_plugin.sweeps.config import Options
from lmsat_plugin.sweeps.fingerprint import Fingerprint, SeenFiles, describe_base, fingerprint, on_base, remembered
from lmsat_plugin.sweeps.interrupts import Interrupts
from lmsat_plugin.sweeps.job_errors import raise_outside, reason_of
from lmsat_plugin.sweeps.job_queue import JobQueue
from lmsat_plugin.sweeps.jobs import Job
from lmsat_plugin.sweeps.launch import Launch
from lmsat_plugin.sweeps.plan import Plan, PlannedResult
from lmsat_plugin.sweeps.progress_display import ProgressDisplay
from lmsat_plugin.sweeps.reference_folders import JobReferences
from lmsat_plugin.sweeps.store import DEADLY, Claim, NewResult, Store
from lmsat_plugin.sweeps.stored import AUTO_PREFIX, Identity, Stored, canonical, check_source, superseded
from lmsat_plugin.sweeps.summary import Summary
from lmsat_plugin.sweeps.twins import Twins, results_of_twin

_POLL_SECONDS = 0.5


_Fetched = tuple[Path, Fingerprint | None]
"""The folder; without a fingerprint if only the shard with the head was fetched."""


@dataclass(kw_only=True)
class _StartedJob:
    """A job whose checkpoint is claimed and on its way to the disk, and what was measured of it so far."""

    job: Job
    claim: Claim
    stored: Stored
    head_only: bool
    fetched: Future[_Fetched | None] = field(default_factory=Future)  # None where one of the same files is measured
    seen: SeenFiles | None = None
    """The checkpoint's files as they were before they were read."""
    noted: dict[str, Any]
    """What results note of the checkpoint."""
    values: dict[str, float] = field(default_factory=dict)
    references: dict[str, Reference] = field(default_factory=dict)
    """The checkpoints beside which it is seen, by the setting that names them."""
    seen_references: list[SeenFiles] = field(default_factory=list)

    def check_files(self) -> None:
        """Raise `ChangedError` if files of the checkpoint are not what they were. A download may still get more."""
        if self.seen is not None:
            self.seen.check(may_grow=self.job.checkpoint.on_hub)
        for seen in self.seen_references:
            seen.check()


@dataclass(kw_only=True)
class JobRunner:
    """Runs the jobs of a plan that are neither done nor claimed by another process."""

    plan: Plan
    store: Store
    folders: CheckpointFolders
    launch: Launch
    display: ProgressDisplay
    interrupts: Interrupts
    options: Options
    summary: Summary = field(default_factory=Summary)
    _background: Background = field(default_factory=Background)
    _unfinished: dict[Job, Any] = field(default_factory=dict)
    """From the jobs that others have claimed to the stamp of their results when these were read last."""
    _twins: Twins = field(init=False)
    references: JobReferences = field(init=False)

    def __post_init__(self) -> None:
        """Keep what checkpoints are compared by in the sweep's own folder."""
        kept = KeptTensors(self.store.private / "compared")
        self.references = JobReferences(plan=self.plan, store=self.store, folders=self.folders, kept=kept)

    def run(self, jobs: Sequence[Job]) -> None:
        """Run the jobs; `summary` counts what became of them.

        Raises:
            LmsatError: Where no job can go on: results cannot be written, a task does not load, the device is broken.
            KeyboardInterrupt: When interrupted; a file that is being written is finished first.
        """
        queue = JobQueue(jobs)
        self._twins = Twins(jobs, self.folders.downloads, self.store)
        wait = self.options.wait and self.options.watch is None
        following: _StartedJob | None = None
        try:
            while True:
                self.interrupts.check()
                current, following = following or self._start_next(queue), None
                if current is None:
                    if not queue or not (wait or queue.waiting):
                        break
                    time.sleep(_POLL_SECONDS)
                    continue
                done = broken = False
                try:
                    # The next one is fetched and read while this one is measured.
                    following = None if queue.in_trouble else self._start_next(queue)
                    self._measure(current)
                    queue.passed()
                    done = True
                except PassingError as error:
                    self._postpone(queue, current.job, error)
                except BrokenDeviceError:
                    broken = True
                    raise
                finally:
                    current.claim.release(lost=broken or self.launch.lost, forget=done)
        finally:
            if following is not None:
                following.claim.release(forget=False)
        self.summary.elsewhere = len(queue)

    def _postpone(self, queue: JobQueue, job: Job, error: PassingError) -> None:
        """Have a job tried again later, or leave it to the next sweep."""
        pause = queue.postpone(job, error)
        if pause is None:
            self._release(job)
            self.summary.left[job.label] = str(error)
        self.display.postpone(job.label, str(error), pause)

    def _release(self, job: Job) -> None:
        self.folders.release(job)
        self.references.release(job)

    def _start_next(self, queue: JobQueue) -> _StartedJob | None:
        """Claim the first job that has something to do, and begin to fetch it; drop those that are done."""
        for job in queue.due():
            # Results are read once without a claim, which is cheap, and again only where they have changed.
            stamp = self.store.stamp(job.checkpoint)
            if self._unfinished.get(job) != stamp:
                stored = self.store.read(job.checkpoint)
                if not self._left(job, stored):
                    queue.remove(job)
                    self._unfinished.pop(job, None)
                    with self.interrupts.held():
                        self.store.tidy(job.checkpoint, stored)
                    continue
                self._unfinished[job] = stamp
            if (claim := patiently(partial(self.store.claim, job.checkpoint))) is None:
                continue
            if self._is_put_off(queue, job, claim):
                claim.release(forget=False)
                continue
            queue.remove(job)
            self._unfinished.pop(job)
            try:
                if started := self._start(job, claim):
                    return started
            except BaseException:
                claim.release(forget=False)
                raise
            claim.release()
        return None

    def _is_put_off(self, queue: JobQueue, job: Job, claim: Claim) -> bool:
        """Return whether a checkpoint that has ended launches, or workers, is not to be measured now."""
        if len(claim.ended) < DEADLY:
            return False
        deadly = f"measuring it has ended {len(claim.ended)} processes or launches, most likely for want of memory"
        if claim.ended.count(self.options.run) >= DEADLY:
            queue.remove(job)
            self.summary.left[job.label] = f"{deadly}: use a smaller batch_size, fewer workers or a larger machine"
            return True
        if put_off := queue.put_last(job):
            self.display.say(f"{job.label}: {deadly}: it comes last")
        return put_off

    def _start(self, job: Job, claim: Claim) -> _StartedJob | None:
        """Begin to fetch a job's checkpoint; None if others have done the job before it was claimed."""
        stored = self.store.read(job.checkpoint)
        self.store.mend(stored)
        with self.interrupts.held():
            self.store.restate(stored, job.checkpoint.place)
        if not (work := self._left(job, stored)):
            return None
        head_only = self.launch.size == 1 and all(result.unit.needs == Need.HEAD for result in work)
        started = _StartedJob(job=job, claim=claim, stored=stored, head_only=head_only, noted=job.describe())
        started.fetched = self._background.submit(self._prepare, started)
        return started

    def _left(self, job: Job, stored: Stored) -> list[PlannedResult]:
        """Return what seems to be left to do of a job; count it if there is nothing."""
        plan, weights = self.plan, job.known_weights(stored)
        if weights is None and not job.has_noted_files(stored) and (stored.done or stored.failed):
            # Other files than the results were made of: reading them will tell.
            return plan.work(job, None)
        work = plan.pending(job, stored, weights, self.options)
        if not work:
            failures = plan.failures(job, stored, weights)
            self._count(job, failures[0][1] if failures else None, before=True)
        return work

    def _prepare(self, started: _StartedJob) -> _Fetched | None:
        return None if self._twins.comes_first(started.job) else self._fetch(started)

    def _fetch(self, started: _StartedJob) -> _Fetched:
        checkpoint = started.job.checkpoint
        converts = started.job.converts
        folder = self.folders.fetch(started.job, started.noted, head_only=started.head_only)
        # Looked at before they are read, so that no later change passes for what was read.
        started.seen = seen = SeenFiles.of(folder)
        if checkpoint.folder is not None and not converts:
            started.noted["files"] = seen.stamp
        # Another time a conversion may write something else.
        known = None if converts else remembered(seen.stamp, started.stored.checkpoints)
        if known is None and not (started.head_only and checkpoint.on_hub):
            known = fingerprint(folder)
            if not checkpoint.on_hub:
                seen.check()
                self.store.note_seen(checkpoint, started.stored, {"files": started.noted["files"], **asdict(known)})
        started.noted |= describe_base(folder)
        if self.plan.reference_settings:
            weights = known.identity if known is not None and not checkpoint.on_hub else checkpoint.content
            work = self.plan.work(started.job, weights)
            started.references, started.seen_references = self.references.fetch(started.job, work)
        return folder, known

    def _measure(self, started: _StartedJob) -> None:
        """Measure one checkpoint as far as it can be measured, and record what cannot.

        Raises `PassingError` where another try may do better.
        """
        job, taken_over = started.job, False
        self.display.begin(job.label)
        started.claim.note(job.label, self.options.run)
        work: list[PlannedResult] = []
        failures: list[tuple[Identity, str]] = []
        weights = job.checkpoint.content
        try:
            fetched = started.fetched.result()
            if fetched is None:
                taken_over = self._take_over(started)
                if self.plan.pending(job, started.stored, weights, self.options):
                    fetched = self._fetch(started)
            folder, known = fetched or (Path(), None)
            if known is not None:
                started.noted["weights_sha256"] = known.weights_sha256
                if not job.checkpoint.on_hub:
                    weights = started.noted["identity"] = known.identity
            if job.checkpoint.on_hub:
                weights = on_base(weights, started.noted)
            if fetched and not started.head_only and (policy := self.plan.find_auto_prefix(job, folder)) is not None:
                started.noted[AUTO_PREFIX] = policy
            work = self.plan.pending(job, started.stored, weights, self.options)
            if work:
                check_source(job.checkpoint, started.stored, weights)
                self._load(started, folder)
                if started.references:
                    self.launch.call("compare", self.references.of(job, weights, started.references))
        except Exception as error:
            raise_outside(error)
            work = self.plan.pending(job, started.stored, weights, self.options)
            failures = [(result.identity, reason_of(error)) for result in work]
        else:
            for batch in dict.fromkeys(result.batch for result in work):
                failures += self._evaluate(started, [result for result in work if result.batch == batch])
        if failures:
            # What fails while its files change is not what will be there.
            started.check_files()
        self._release(job)
        # What failed before, and was not to be tried again, still stands.
        tried = {canonical(result.identity) for result in work}
        failed_before = self.plan.failures(job, started.stored, weights)
        failures += [failure for failure in failed_before if canonical(failure[0]) not in tried]
        patiently(lambda: self._write_failures(started, failures))
        self._count(job, failures[0][1] if failures else None, before=not (work or taken_over), values=started.values)

    def _take_over(self, started: _StartedJob) -> bool:
        """Write as the results of a checkpoint those of others of the same files; return whether there were any."""
        job, weights, taken_over = started.job, started.job.checkpoint.content, False
        check_source(job.checkpoint, started.stored, weights)
        for twin in self._twins.of(job):
            self.plan.recall_auto_prefix(job, self.store.read(twin.checkpoint))
            wanted = [result.identity for result in self.plan.pending(job, started.stored, weights, self.options)]
            for new in results_of_twin(self.store, job, twin, wanted=wanted, options=self.options):
                self._record(started, new)
                taken_over = True
            started.stored = self.store.read(job.checkpoint)
        return taken_over

    def _load(self, started: _StartedJob, folder: Path) -> None:
        job = started.job
        with suppress(HeadNotFoundError):
            self.launch.call("load", job, folder, started.head_only)
            return
        whole = self.folders.fetch(job, {}) if job.checkpoint.on_hub else folder
        self.launch.call("load", job, whole, False)

    def _evaluate(self, started: _StartedJob, asked: Sequence[PlannedResult]) -> list[tuple[Identity, str]]:
        """Evaluate results of one batch together; where that fails, task by task, so that one does not cost the others.

        Adds what was measured to ``started.values``; returns what failed.
        """
        names = list(dict.fromkeys(result.unit.task for result in asked))
        try:
            results, arrays = self.launch.call("evaluate", started.job, asked[0].batch, names)
        except Exception as error:
            raise_outside(error)
            reason = reason_of(error)
        else:
            self._record_evaluation(started, asked, *only_asked(asked, results, arrays))
            return []
        # Outside the except clause, whose traceback holds the tensors that have to go.
        if len(names) == 1:
            return [(result.identity, reason) for result in asked]
        of_tasks = ([result for result in asked if result.unit.task == name] for name in names)
        return [failure for results in of_tasks for failure in self._evaluate(started, results)]

    def _record_evaluation(
        self,
        started: _StartedJob,
        asked: Sequence[PlannedResult],
        results: dict[str, Any],
        arrays: Mapping[str, np.ndarray],
    ) -> None:
        """Write what was evaluated, unless the files it was made of have changed meanwhile."""
        started.check_files()
        self.plan.check_inputs(started.job, asked)
        if started.references:
            self.references.accept(started.job, asked[0].identity["weights"])
        identities = [result.identity for result in asked]
        new = NewResult(
            results=results,
            arrays=arrays,
            identities=identities,
            supersedes=superseded(started.stored, identities, results.get("group_subtasks") or {}),
            checkpoint=started.noted,
            run=self.options.run,
        )
        self._record(started, new)

    def _record(self, started: _StartedJob, new: NewResult) -> None:
        """Write a result, and tell plugins of it."""
        checkpoint = started.job.checkpoint
        metrics = metrics_of(new.results)
        files = self.store.pack(checkpoint, new)
        patiently(lambda: self._write(files))
        started.values.update(metrics)
        plugins().tell(
            CheckpointEvaluated(
                model=checkpoint.model,
                revision=checkpoint.revision,
                step=checkpoint.step,
                tokens=checkpoint.tokens,
                metrics=metrics,
                path=list(files)[-1],
                output=self.store.output,
                trackers=self.plan.config.trackers,
                run=checkpoint.run,
                branch=checkpoint.branch,
            )
        )

    def _write(self, files: Mapping[Path, bytes]) -> None:
        with self.interrupts.held():
            self.store.write(files)

    def _write_failures(self, started: _StartedJob, failures: Sequence[tuple[Identity, str]]) -> None:
        with self.interrupts.held():
            self.store.write_failures(started.stored, failures, checkpoint=started.noted, run=self.options.run)

    def _count(self, job: Job, error: str | None, *, before: bool, values: dict[str, float] | None = None) -> None:
        self.summary.count(job, error, before=before)
        self.display.end(job.label, values or {}, error, before=before)
