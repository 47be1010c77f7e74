"""A sweep from its configuration to its results, in this process, once or as checkpoints appear."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.hookspecs import SweepFinished
from lmsat_plugin.plugins import plugins
from lmsat_plugin.sweeps.downloads import Downloads
from lmsat_plugin.sweeps.fingerprint import stamp_of
from lmsat_plugin.sweeps.interrupts import Interrupts
from lmsat_plugin.sweeps.measurer import Launch, Measurer
from lmsat_plugin.sweeps.plan import Job, Plan, find_jobs, share
from lmsat_plugin.sweeps.progress import Progress
from lmsat_plugin.sweeps.runner import Runner, Summary
from lmsat_plugin.sweeps.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmsat_plugin.sweeps.config import SweepConfig


@dataclass(frozen=True)
class Options:
    """How to run a sweep: nothing in here changes a result."""

    shard: tuple[int, int] | None = None
    """Part i of n, counted from 1."""
    only: tuple[str, str] | None = None
    """The model and the revision of the one checkpoint to measure."""
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    """What tells this run from others; the workers of one run share it."""
    force: bool = False
    retry_failed: bool = False
    wait: bool = True
    """Whether to wait for the checkpoints that other processes are measuring."""
    watch: float | None = None
    """Seconds between two looks for new checkpoints; None ends the sweep when all are measured."""
    prefix: str = ""


def run_sweep(config: SweepConfig, options: Options | None = None) -> Summary:
    """Measure what is not measured yet; return what became of it.

    On the other processes of an ``accelerate launch`` the summary is empty.

    Raises:
        LmsatError: For a configuration that cannot be run, and where results cannot be written.
        KeyboardInterrupt: On Ctrl-C or SIGTERM.
    """
    from lmsat_plugin.harness.checkpoint_evaluator import quiet

    quiet()
    options = options or Options()
    plan = Plan(config)
    launch = Launch(Measurer(plan))
    if launch.rank:
        launch.serve()
        return Summary()
    try:
        plugins().check_trackers(config.trackers)
        store = Store(config.output)
        store.prepare()
        summary = _run(plan, store, make_downloads(config, store), launch, options)
    except Exception:
        # Not after an interrupt: the other processes may be in the middle of something, and the launcher ends them.
        launch.finish()
        raise
    finally:
        plugins().tell(SweepFinished(output=config.output, trackers=config.trackers))
    launch.finish()
    return summary


def make_downloads(config: SweepConfig, store: Store) -> Downloads:
    """Return where a sweep's downloads go."""
    args = [config.model_args, *(entry.model_args for entry in config.models)]
    return Downloads(
        store.private / "downloads",
        None if config.keep == "all" else config.keep,
        trust_remote_code=any(found.get("trust_remote_code") for found in args),
    )


def _run(plan: Plan, store: Store, downloads: Downloads, launch: Launch, options: Options) -> Summary:
    jobs = chosen(plan.jobs, options) if options.watch is None else []
    progress, interrupts = Progress(len(jobs), options.prefix), Interrupts()
    runner = Runner(
        plan,
        store,
        downloads,
        launch,
        progress,
        interrupts,
        run=options.run,
        force=options.force,
        retry_failed=options.retry_failed,
        wait=options.wait and options.watch is None,
    )
    try:
        with interrupts.handled():
            if options.watch is None:
                runner.run(jobs)
            else:
                _watch(plan, runner, progress, interrupts, options)
        if not options.prefix:
            # A worker reports nothing: whoever started it does.
            runner.summary.identical = identical(plan, store)
    finally:
        progress.close()
        store.clean_claims()
    return runner.summary


def _watch(plan: Plan, runner: Runner, progress: Progress, interrupts: Interrupts, options: Options) -> None:
    """Measure checkpoints as they appear. One that is still being written changes from one look to the next."""
    assert options.watch is not None
    before: dict[Job, Any] = {}
    through: dict[Job, Any] = {}
    waiting = None
    while True:
        interrupts.check()
        try:
            found = chosen(find_jobs(plan.config), options)
        except LmsatError as error:
            # A run that has not saved its first checkpoint yet, or a name that is wrong.
            if str(error) != waiting:
                print(f"Waiting: {error}", flush=True)
            found, waiting = [], str(error)
        now = {job: stamp_of(job.checkpoint.folder) if job.checkpoint.folder else None for job in found}
        ready = [job for job in found if job in before and before[job] == now[job] != through.get(job, {})]
        if ready:
            progress.expect(len(through.keys() | set(ready)))
            runner.run(ready)
            through.update({job: now[job] for job in ready})
        before = now
        time.sleep(options.watch)


def chosen(jobs: Sequence[Job], options: Options) -> list[Job]:
    """Return the jobs that the options leave."""
    if options.only is None:
        return share(jobs, options.shard)
    found = [job for job in jobs if (job.checkpoint.model, job.checkpoint.revision) == options.only]
    if not found:
        raise LmsatError(f"the sweep has no checkpoint {'@'.join(options.only)}: see `lmsat sweep --dry-run`")
    return found


def identical(plan: Plan, store: Store) -> list[list[str]]:
    """Return the groups of checkpoints whose weights are the same, as their results say."""
    groups: dict[str, list[str]] = {}
    for job in plan.jobs:
        checkpoint = job.checkpoint
        stored = store.read(checkpoint.model, checkpoint.revision)
        hashes = [known.get("weights_sha256") for known in stored.checkpoints]
        if hashes and hashes[-1]:
            groups.setdefault(hashes[-1], []).append(job.label)
    return [labels for labels in groups.values() if len(labels) > 1]


def summarise(plan: Plan, store: Store, jobs: Sequence[Job]) -> Summary:
    """Return what the output folder says of the jobs, whoever did them."""
    summary = Summary()
    for job in jobs:
        stored = store.read(job.checkpoint.model, job.checkpoint.revision)
        weights = job.known_weights(stored)
        if failures := plan.failures(job, stored, weights):
            summary.failed[job.label] = failures[0][1]
        elif plan.pending(job, stored, weights):
            summary.elsewhere += 1
        else:
            summary.measured += 1
    summary.identical = identical(plan, store)
    store.clean_claims()
    return summary


@dataclass
class State:
    """What a sweep would do with one model: numbers of results, and the bytes to download."""

    checkpoints: int = 0
    results: int = 0
    done: int = 0
    failed: int = 0
    todo: int = 0
    download_bytes: int = 0


def survey(plan: Plan, store: Store, downloads: Downloads, jobs: Sequence[Job]) -> dict[str, State]:
    """Return the state of each model: what a dry run shows. Nothing is written, and nothing downloaded."""
    found: dict[str, State] = {}
    sizes: dict[str, int] = {}
    waiting: Counter[str] = Counter()
    for job in jobs:
        checkpoint = job.checkpoint
        state = found.setdefault(checkpoint.model, State())
        stored = store.read(checkpoint.model, checkpoint.revision)
        weights = job.known_weights(stored)
        results = len(plan.work(job, weights))
        failed = len(plan.failures(job, stored, weights))
        undone = len(plan.pending(job, stored, weights))
        state.checkpoints += 1
        state.results += results
        state.done += results - undone
        state.failed += failed
        state.todo += undone - failed
        if checkpoint.folder is None and failed < undone:
            # One request tells the size of a checkpoint; those of a series are alike.
            if checkpoint.model not in sizes:
                sizes[checkpoint.model] = downloads.size(checkpoint)
            waiting[checkpoint.model] += 1
    for model, count in waiting.items():
        found[model].download_bytes = sizes[model] * count
    return found
