"""The executor ``slurm``: a sweep on a Slurm cluster, as one array with a checkpoint a job.

A job cannot be queued again before it has unpickled its `SlurmJob`: this module imports nothing that takes long.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.outside_text import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmsat_plugin.sweeps.config import Options, SlurmSettings, SweepConfig
    from lmsat_plugin.sweeps.jobs import Job
    from lmsat_plugin.sweeps.plan import Plan
    from lmsat_plugin.sweeps.store import Store
    from lmsat_plugin.sweeps.summary import Summary


@dataclass
class SlurmJob:
    """One checkpoint, as a job that submitit runs; preempted or out of time, it is queued again."""

    arguments: tuple[str, ...]
    launcher: str

    def __call__(self) -> int:
        """Run the sweep of the one checkpoint."""
        python = [sys.executable, "-m"]
        if self.launcher == "accelerate":
            python += ["accelerate.commands.launch", "--multi_gpu", "-m"]
        # A process of its own, so that what kills it leaves the job to say so.
        return subprocess.call([*python, "lmsat_plugin.cli", *self.arguments])

    def checkpoint(self) -> Any:
        """Be queued again: what is measured is kept in the output folder."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def run_slurm(config: SweepConfig, options: Options, worker_options: Sequence[str], *, wait: bool) -> Summary:
    """Submit one Slurm array with a job for each checkpoint that is not done; ``wait`` until they are through.

    Raises `LmsatError` without submitit or Slurm, and for a submission that Slurm refuses.
    """
    try:
        import submitit
    except ImportError:
        raise LmsatError(
            "the slurm executor needs submitit: install it with pip install 'lmsat-plugin[slurm]'"
        ) from None
    from lmsat_plugin.sweeps.jobs import choose_jobs
    from lmsat_plugin.sweeps.plan import Plan
    from lmsat_plugin.sweeps.store import Store
    from lmsat_plugin.sweeps.summary import read_summary

    plan, store = Plan(config), Store(config.output)
    store.prepare()
    again = ["sweep", str(store.keep_config(config)), *worker_options]
    jobs = choose_jobs(plan.jobs, options)
    todo = [job for job in jobs if _has_work(plan, store, job, options)]
    if not todo:
        return read_summary(plan, store, jobs)
    executor = submitit.AutoExecutor(folder=store.private / "slurm" / "%A", cluster="slurm")
    executor.update_parameters(**_slurm_parameters(config.slurm))
    try:
        with executor.batch():
            submitted = [executor.submit(_slurm_job(config.slurm, again, job)) for job in todo]
    except (submitit.core.utils.FailedJobError, RuntimeError, OSError, ValueError) as error:
        raise LmsatError(f"Slurm refuses the jobs ({' '.join(str(error).split())}): correct `slurm`") from error
    name = submitted[0].job_id.partition("_")[0]
    show(f"Submitted {len(todo)} checkpoints as Slurm array {name}; logs: {store.private / 'slurm' / name}")
    if wait:
        while not all(job.done() for job in submitted):
            time.sleep(2)
        return read_summary(plan, store, jobs)
    print("Run the same command with --dry-run to see how far they are, and without to queue what is left.")
    summary = read_summary(plan, store, jobs)
    summary.elsewhere = 0
    return summary


def _has_work(plan: Plan, store: Store, job: Job, options: Options) -> bool:
    stored = store.read(job.checkpoint)
    return bool(plan.pending(job, stored, job.known_weights(stored), options))


def _slurm_job(settings: SlurmSettings, again: Sequence[str], job: Job) -> SlurmJob:
    only = f"{job.checkpoint.model}@{job.checkpoint.name}"
    return SlurmJob((*again, "--only", only, f"--worker={job.checkpoint.name}"), settings.launcher)


def _slurm_parameters(settings: SlurmSettings) -> dict[str, Any]:
    given = {
        "slurm_partition": settings.partition,
        "slurm_account": settings.account,
        "slurm_qos": settings.qos,
        "slurm_constraint": settings.constraint,
        "mem_gb": settings.mem_gb,
        "slurm_gpus_per_node": settings.gpus_per_node or None,
        "slurm_setup": settings.setup or None,
    }
    return {
        "name": "lmsat",
        "timeout_min": settings.time,
        "cpus_per_task": settings.cpus_per_task,
        "slurm_array_parallelism": settings.array_parallelism,
        "slurm_additional_parameters": {"requeue": True, **settings.additional},
        **{key: value for key, value in given.items() if value is not None},
    }
