"""Run a plan: claim, fetch, load, measure, write, one checkpoint after another."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from lmsat_plugin.errors import LmsatError, first_sentence, wants_traceback
from lmsat_plugin.harness.shared_tasks import TaskError
from lmsat_plugin.hookspecs import CheckpointEvaluated
from lmsat_plugin.model.head_only import HeadNotFoundError
from lmsat_plugin.plugins import plugins
from lmsat_plugin.probe import Need
from lmsat_plugin.sweeps.fingerprint import Fingerprint, fingerprint, known_files, remembered
from lmsat_plugin.sweeps.store import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lmsat_plugin.sweeps.downloads import Downloads
    from lmsat_plugin.sweeps.interrupts import Interrupts
    from lmsat_plugin.sweeps.measurer import Launch
    from lmsat_plugin.sweeps.plan import Job, Plan, Unit
    from lmsat_plugin.sweeps.progress import Progress
    from lmsat_plugin.sweeps.store import Claim, Identity, Store, Stored

_POLL_SECONDS = 0.5
# What a result is measured anew for and the old one stands no more; other settings make another result.
_REPLACED_BY = ("weights", "version")


@dataclass
class Summary:
    """What became of the jobs."""

    measured: int = 0
    done_before: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """From a checkpoint's label to the reason."""
    elsewhere: int = 0
    """Checkpoints that other processes were measuring to the end."""
    identical: list[list[str]] = field(default_factory=list)
    """Labels of checkpoints that have the same weights."""


@dataclass(frozen=True)
class _Fetched:
    """A checkpoint on disk; without a fingerprint if only the shard with the head was fetched."""

    folder: Path
    fingerprint: Fingerprint | None


@dataclass
class _Started:
    """A checkpoint that is claimed, and on its way to the disk."""

    job: Job
    claim: Claim
    stored: Stored
    head_only: bool
    fetched: Future[_Fetched]


Work = list[tuple[int, "Unit", "Identity"]]
"""Units to measure, with the number of their batch."""


class Runner:
    """Runs the jobs of a plan that are neither done nor claimed by another process.

    Args:
        run: The name of this run, which the workers of one share.
        force: Measure again what is done before it.
        retry_failed: Try again what has failed before it.
        wait: Wait for the checkpoints that others are measuring, and take over those that they leave.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        downloads: Downloads,
        launch: Launch,
        progress: Progress,
        interrupts: Interrupts,
        *,
        run: str,
        force: bool = False,
        retry_failed: bool = False,
        wait: bool = True,
    ) -> None:
        self._plan, self._store, self._downloads = plan, store, downloads
        self._launch, self._progress = launch, progress
        self._pending = partial(plan.pending, run=run, force=force, retry_failed=retry_failed or force)
        self._run, self._wait = run, wait
        self._interrupts = interrupts
        self._background = _Background()
        self.summary = Summary()

    def run(self, jobs: Sequence[Job]) -> Summary:
        """Run the jobs.

        Raises:
            LmsatError: Where going on makes no sense: results cannot be written, a task cannot be loaded, the
                device is broken.
            KeyboardInterrupt: When interrupted; a file that is being written is finished first.
        """
        pending = deque(jobs)
        following: _Started | None = None
        try:
            while True:
                self._interrupts.check()
                current, following = following or self._start_next(pending), None
                if current is None:
                    if not pending or not self._wait:
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

    def _start_next(self, pending: deque[Job]) -> _Started | None:
        """Claim the first job that has something to do, and begin to fetch it; drop those that are done."""
        for job in list(pending):
            checkpoint = job.checkpoint
            # Once without a claim, which is cheap, and again with it: others may have done it in between.
            if not self._left(job, self._store.read(checkpoint.model, checkpoint.revision)):
                pending.remove(job)
                continue
            claim = self._store.claim(checkpoint.model, checkpoint.revision)
            if claim is None:
                continue
            pending.remove(job)
            try:
                stored = self._store.read(checkpoint.model, checkpoint.revision)
                self._store.mend(stored)
                work = self._left(job, stored)
                if not work:
                    claim.release()
                    continue
                head_only = self._launch.size == 1 and all(unit.needs == Need.HEAD for _, unit, _ in work)
                fetched = self._background.submit(self._fetch, job, stored, head_only)
            except BaseException:
                claim.release()
                raise
            return _Started(job, claim, stored, head_only, fetched)
        return None

    def _left(self, job: Job, stored: Stored) -> Work:
        """Return what seems to be left to do of a job; count it if there is nothing."""
        folder, weights = job.checkpoint.folder, job.known_weights(stored)
        known = folder is None or weights is not None or known_files(folder, stored.checkpoints) is not None
        if not known and (stored.done or stored.failed):
            # Other files than the results were made of: reading them will tell.
            return self._plan.work(job, None)
        work = self._pending(job, stored, weights)
        if not work:
            failures = self._plan.failures(job, stored, weights)
            self._count(job, failures[0][1] if failures else None, before=True)
        return work

    def _fetch(self, job: Job, stored: Stored, head_only: bool) -> _Fetched:
        folder = self._downloads.fetch(job.checkpoint, head_only=head_only)
        known = remembered(folder, stored.checkpoints)
        if known is None and not (head_only and job.checkpoint.folder is None):
            known = fingerprint(folder)
        return _Fetched(folder, known)

    def _measure(self, started: _Started) -> None:
        """Measure one checkpoint as far as it can be measured, and record what cannot."""
        job, stored = started.job, started.stored
        checkpoint = job.checkpoint
        self._progress.begin(job.label)
        started.claim.note(job.label)
        facts = job.facts
        work: Work = []
        failures: list[tuple[Identity, str]] = []
        values: dict[str, float] = {}
        weights = checkpoint.commit
        try:
            fetched = started.fetched.result()
            if fetched.fingerprint is not None:
                facts["weights_sha256"] = fetched.fingerprint.weights_sha256
                if checkpoint.folder is not None:
                    weights = fetched.fingerprint.identity
                    facts["identity"] = weights
            work = self._pending(job, stored, weights)
            if work:
                self._load(started, fetched)
        except Exception as error:
            work = self._pending(job, stored, weights)
            failures = [(identity, _reason(error)) for *_, identity in work]
        else:
            for batch in dict.fromkeys(batch for batch, *_ in work):
                asked = [(unit, identity) for number, unit, identity in work if number == batch]
                failures += self._evaluate(started, batch, asked, facts, values)
        self._downloads.release(checkpoint)
        # What failed before, and was not to be tried again, still stands.
        tried = {canonical(identity) for *_, identity in work}
        failures += [
            failure
            for failure in self._plan.failures(job, stored, weights)
            if canonical(failure[0]) not in tried
        ]
        with self._interrupts.held():
            self._store.write_failures(stored, failures, facts, self._run)
        self._count(job, failures[0][1] if failures else None, before=not work, values=values)

    def _load(self, started: _Started, fetched: _Fetched) -> None:
        job = started.job
        try:
            self._launch.call("load", job, fetched.folder, started.head_only)
        except HeadNotFoundError:
            self._launch.call("load", job, self._downloads.fetch(job.checkpoint), False)

    def _evaluate(
        self,
        started: _Started,
        batch: int,
        asked: Sequence[tuple[Unit, Identity]],
        facts: dict[str, Any],
        values: dict[str, float],
    ) -> list[tuple[Identity, str]]:
        """Evaluate units together; where that fails, one by one, so that one does not cost the others.

        Adds what was measured to ``values``; returns what failed.
        """
        job = started.job
        try:
            results, arrays = self._launch.call("evaluate", job, batch, [unit.task for unit, _ in asked])
        except TaskError:
            raise
        except Exception as error:
            if "CUDA error" in str(error):
                raise LmsatError(
                    f"the GPU is in a broken state ({first_sentence(error)}): start the sweep again"
                ) from error
            if len(asked) == 1:
                return [(asked[0][1], _reason(error))]
            return [
                failure for one in asked for failure in self._evaluate(started, batch, [one], facts, values)
            ]
        checkpoint, identities = job.checkpoint, [identity for _, identity in asked]
        supersedes = _superseded(started.stored, identities, results.get("group_subtasks") or {})
        with self._interrupts.held():
            path = self._store.write(
                checkpoint.model,
                checkpoint.revision,
                results,
                arrays,
                identities,
                facts,
                supersedes,
                self._run,
            )
        found = metrics_of(results)
        values.update(found)
        plugins().tell(
            CheckpointEvaluated(
                model=checkpoint.model,
                revision=checkpoint.revision,
                step=checkpoint.step,
                tokens=checkpoint.tokens,
                metrics=found,
                path=path,
                output=self._store.output,
                trackers=self._plan.config.trackers,
            )
        )
        return []

    def _count(
        self,
        job: Job,
        error: str | None,
        *,
        before: bool = False,
        values: dict[str, float] | None = None,
    ) -> None:
        if error is not None:
            self.summary.failed[job.label] = error
        elif before:
            self.summary.done_before += 1
        else:
            self.summary.measured += 1
        self._progress.end(job.label, values or {}, error, before=before)


def _superseded(
    stored: Stored, identities: Sequence[Identity], members: dict[str, list[str]]
) -> dict[str, list[str]]:
    """Return the result files, with their tasks, that new results take the place of.

    ``members`` says what the groups consist of: with a group go its tasks.
    """

    def rest(identity: Identity) -> str:
        return canonical({key: value for key, value in identity.items() if key not in _REPLACED_BY})

    def with_members(name: str) -> list[str]:
        return [name, *(task for member in members.get(name, ()) for task in with_members(member))]

    ours = {rest(identity) for identity in identities}
    found: dict[str, list[str]] = {}
    for text, name in stored.done.items():
        identity = json.loads(text)
        if rest(identity) in ours:
            found.setdefault(name, []).extend(with_members(identity["task"]))
    return found


def metrics_of(results: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of lm-eval's results, named ``task/metric``, with the filter where it is not ``none``."""
    found = {}
    for task, values in results["results"].items():
        for key, value in values.items():
            metric, comma, chosen = key.partition(",")
            if comma and isinstance(value, int | float):
                found[f"{task}/{metric}" if chosen == "none" else f"{task}/{key}"] = float(value)
    return found


def _reason(error: BaseException) -> str:
    if wants_traceback():
        import traceback

        traceback.print_exception(error)
    if isinstance(error, LmsatError):
        return str(error)
    return f"{type(error).__name__} ({first_sentence(error)}): LMSAT_DEBUG=1 shows where"


class _Background:
    """One thread that does one thing after another. It does not keep the process from ending."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]]
        self._queue = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="lmsat-fetch")
            self._thread.start()
        future: Future[Any] = Future()
        self._queue.put((future, function, arguments))
        return future

    def _run(self) -> None:
        while True:
            future, function, arguments = self._queue.get()
            try:
                future.set_result(function(*arguments))
            except BaseException as error:
                with suppress(Exception):
                    future.set_exception(error)
