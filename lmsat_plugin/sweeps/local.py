"""The executor ``local``: a sweep in this process, once, or again and again as checkpoints appear and are complete."""

from __future__ import annotations

import time
from typing import Any

from lmsat_plugin.errors import LmsatError, PassingError
from lmsat_plugin.harness.command import quiet
from lmsat_plugin.hookspecs import SweepFinished
from lmsat_plugin.outside_text import show
from lmsat_plugin.plugins import plugins
from lmsat_plugin.sweeps.checkpoint_folders import CheckpointFolders
from lmsat_plugin.sweeps.config import Options, SweepConfig
from lmsat_plugin.sweeps.downloads import make_downloads
from lmsat_plugin.sweeps.interrupts import Interrupts
from lmsat_plugin.sweeps.job_evaluator import JobEvaluator
from lmsat_plugin.sweeps.job_runner import JobRunner
from lmsat_plugin.sweeps.jobs import Job, choose_jobs
from lmsat_plugin.sweeps.launch import Launch, LaunchLostError
from lmsat_plugin.sweeps.plan import Plan
from lmsat_plugin.sweeps.progress_display import ProgressDisplay
from lmsat_plugin.sweeps.store import Store
from lmsat_plugin.sweeps.summary import Summary, find_identical


def run_sweep(config: SweepConfig, options: Options | None = None) -> Summary:
    """Measure what is not measured yet; return what became of it.

    On the other processes of an ``accelerate launch`` the summary is empty. Raises `LmsatError` for a configuration
    that cannot be run, and where results cannot be written; KeyboardInterrupt on Ctrl-C or SIGTERM.
    """
    quiet()
    options = options or Options()
    plan = Plan(config)
    launch = Launch(JobEvaluator(plan))
    if launch.rank:
        launch.serve()
        return Summary()
    try:
        plugins().check_trackers(config.trackers)
        store = Store(config.output)
        store.prepare()
        summary = _run(plan, store, launch, options)
        store.check_there()
    except Exception:
        # Not after an interrupt: the other processes may be in the middle of something, and the launcher ends them.
        launch.finish()
        raise
    except KeyboardInterrupt:
        if launch.lost:
            # A launcher interrupts the others when one has died.
            raise LaunchLostError("a process of the launch is gone: start the sweep again") from None
        raise
    finally:
        plugins().tell(SweepFinished(output=config.output, trackers=config.trackers))
    launch.finish()
    return summary


def _run(plan: Plan, store: Store, launch: Launch, options: Options) -> Summary:
    jobs = plan.in_order(choose_jobs(plan.jobs, options)) if options.watch is None else []
    runner = JobRunner(
        plan=plan,
        store=store,
        folders=CheckpointFolders(store.private, make_downloads(plan.config, store.private), plan.config.kept),
        launch=launch,
        display=ProgressDisplay(len(jobs), options.prefix),
        interrupts=Interrupts(),
        options=options,
    )
    try:
        with runner.interrupts.handled():
            if options.watch is None:
                runner.run(jobs)
            else:
                _watch(runner, options.watch)
        if not options.prefix:
            # A worker reports nothing: whoever started it does.
            runner.summary.identical = find_identical(plan, store)
    finally:
        runner.display.close()
        store.clean_claims()
        runner.folders.close()
        runner.references.close()
    return runner.summary


def _watch(runner: JobRunner, seconds: float) -> None:
    """Measure checkpoints as they appear. One that is still being written changes from one look to the next."""
    before: dict[Job, Any] = {}
    through: dict[Job, Any] = {}
    waiting = None
    while True:
        runner.interrupts.check()
        try:
            jobs = runner.plan.in_order(choose_jobs(runner.plan.look_again(), runner.options))
        except LmsatError as error:
            # A run that has not saved its first checkpoint yet, or a name that is wrong.
            if str(error) != waiting:
                show(f"Waiting: {error}")
            jobs, waiting = [], str(error)
        now = {job: runner.plan.seen(job) for job in jobs}
        ready = [job for job in jobs if job in before and before[job] == now[job] != through.get(job, {})]
        if ready:
            runner.display.expect(len(through.keys() | set(ready)))
            try:
                runner.run(ready)
            except PassingError as error:
                show(f"Waiting: {error}")
            else:
                left, runner.summary.left = runner.summary.left, {}
                through.update({job: now[job] for job in ready if job.label not in left})
        before = now
        time.sleep(seconds)
