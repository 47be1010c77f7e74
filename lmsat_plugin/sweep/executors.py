"""Where a sweep runs besides this process: in several processes of this machine, or on a cluster.

Every worker runs the same sweep. They share the work through the claims of the output folder, so that none
waits for another, and one that dies leaves its checkpoint to the others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.sweep.fingerprint import fingerprint, stamp_of
from lmsat_plugin.sweep.plan import Plan
from lmsat_plugin.sweep.run import chosen, identical
from lmsat_plugin.sweep.runner import Summary
from lmsat_plugin.sweep.store import Store, canonical

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmsat_plugin.sweep.config import SlurmSettings, SweepConfig
    from lmsat_plugin.sweep.plan import Job
    from lmsat_plugin.sweep.run import Options

# A checkpoint at which so many workers were killed is taken to be the reason.
_FATAL_DEATHS = 2


def run_processes(config: SweepConfig, options: Options, again: Sequence[str]) -> Summary:
    """Run a sweep in ``config.workers`` processes, each with its share of the GPUs or of the cores.

    ``again`` are the arguments of ``lmsat`` that run the sweep in one process. A worker that is killed is
    replaced; a checkpoint at which two of them were killed is recorded as failed.

    Raises:
        LmsatError: For a configuration that cannot be run.
        KeyboardInterrupt: On Ctrl-C; the workers finish their writes.
    """
    plan, store = Plan(config), Store(config.output)
    store.prepare()
    jobs = chosen(plan.jobs, options)
    gpus = _visible_gpus()
    count = min(config.workers or max(1, len(gpus)), max(1, len(jobs)))
    extra = [f"--shard={options.shard[0]}/{options.shard[1]}"] if options.shard else []
    workers = {
        number: _Worker(number, count, [*again, *extra], _share_of_machine(number - 1, count, gpus))
        for number in range(1, count + 1)
    }
    deaths: Counter[str] = Counter()
    try:
        while workers:
            time.sleep(0.2)
            for number, worker in list(workers.items()):
                code = worker.poll()
                if code is None:
                    continue
                del workers[number]
                # 1: a failed write or a failed checkpoint; 2: bad input. Only a kill is worth another worker.
                if code < 0 or code > 128:
                    label = store.died_at(worker.pid) or "starting"
                    deaths[label] += 1
                    print(
                        f"worker {number} was killed (exit code {code}) at {label}",
                        file=sys.stderr,
                        flush=True,
                    )
                    if deaths[label] >= _FATAL_DEATHS:
                        _record_death(plan, store, jobs, label, code)
                    if deaths[label] <= _FATAL_DEATHS and label != "starting":
                        workers[number] = worker.again()
    except KeyboardInterrupt:
        for worker in workers.values():
            worker.terminate()
        raise
    return _summary(plan, store, jobs)


class _Worker:
    """A process that runs the sweep; its lines are printed as they come."""

    def __init__(
        self, number: int, count: int, arguments: Sequence[str], environment: dict[str, str]
    ) -> None:
        self._made_of = (number, count, arguments, environment)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lmsat_plugin.cli", *arguments, f"--worker={number}/{count}"],
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self.pid = self._process.pid
        threading.Thread(target=self._print, daemon=True).start()

    def _print(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            print(line, end="", flush=True)

    def poll(self) -> int | None:
        return self._process.poll()

    def again(self) -> _Worker:
        return _Worker(*self._made_of)

    def terminate(self) -> None:
        """End it, after the write in hand."""
        self._process.terminate()
        self._process.wait()


def _visible_gpus() -> list[str]:
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def _share_of_machine(index: int, count: int, gpus: Sequence[str]) -> dict[str, str]:
    """Return the environment that gives a worker its GPUs, or its cores."""
    if gpus:
        mine = list(gpus[index::count]) or [gpus[index % len(gpus)]]
        return {"CUDA_VISIBLE_DEVICES": ",".join(mine)}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores // count)))}


def _record_death(plan: Plan, store: Store, jobs: Sequence[Job], label: str, code: int) -> None:
    """Record that measuring a checkpoint kills the process that does it."""
    for job in (job for job in jobs if job.label == label):
        checkpoint = job.checkpoint
        facts: dict[str, Any] = {"model": checkpoint.model, "revision": checkpoint.revision}
        weights = checkpoint.commit
        if checkpoint.folder is not None:
            weights = fingerprint(checkpoint.folder).identity
            facts.update(identity=weights, files=stamp_of(checkpoint.folder))
        stored = store.read(checkpoint.model, checkpoint.revision)
        reason = (
            f"measuring it killed {_FATAL_DEATHS} processes (exit code {code}), most likely for want of memory: "
            "use a smaller batch_size, fewer workers or a larger machine"
        )
        store.write_failures(stored, [(i, reason) for *_, i in plan.pending(job, stored, weights)], facts)


def _summary(plan: Plan, store: Store, jobs: Sequence[Job]) -> Summary:
    """Return what the output folder says of the jobs, whoever did them."""
    from lmsat_plugin.sweep.run import known_weights

    summary = Summary()
    for job in jobs:
        stored = store.read(job.checkpoint.model, job.checkpoint.revision)
        identities = [canonical(identity) for *_, identity in plan.work(job, known_weights(job, stored))]
        reasons = [stored.failed[i] for i in identities if i in stored.failed and i not in stored.done]
        if reasons:
            summary.failed[job.label] = reasons[0]
        elif all(identity in stored.done for identity in identities):
            summary.measured += 1
        else:
            summary.elsewhere += 1
    summary.identical = identical(plan, store)
    store.clean_claims()
    return summary


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
        process = subprocess.Popen([*python, "lmsat_plugin.cli", *self.arguments])
        return process.wait()

    def checkpoint(self) -> Any:
        """Be queued again: what is measured is kept in the output folder."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def run_slurm(config: SweepConfig, options: Options, again: Sequence[str], *, wait: bool) -> Summary:
    """Submit one Slurm array with a job for each checkpoint that is not done; ``wait`` until they are through.

    Raises:
        LmsatError: Without submitit or Slurm, and for a submission that Slurm refuses.
    """
    try:
        import submitit
    except ImportError:
        raise LmsatError(
            "the slurm executor needs submitit: install it with pip install 'lmsat-plugin[slurm]'"
        ) from None
    plan, store = Plan(config), Store(config.output)
    store.prepare()
    jobs = chosen(plan.jobs, options)
    todo = [job for job in jobs if _has_work(plan, store, job, options)]
    if not todo:
        return _summary(plan, store, jobs)
    executor = submitit.AutoExecutor(folder=store.private / "slurm" / "%A", cluster="slurm")
    executor.update_parameters(**_slurm_parameters(config.slurm))
    try:
        with executor.batch():
            submitted = [executor.submit(_slurm_job(config.slurm, again, job)) for job in todo]
    except (submitit.core.utils.FailedJobError, RuntimeError, OSError, ValueError) as error:
        raise LmsatError(
            f"Slurm refuses the jobs ({' '.join(str(error).split())}): correct `slurm`"
        ) from error
    name = submitted[0].job_id.partition("_")[0]
    print(f"Submitted {len(todo)} checkpoints as Slurm array {name}; logs: {store.private / 'slurm' / name}")
    if wait:
        while not all(job.done() for job in submitted):
            time.sleep(2)
        return _summary(plan, store, jobs)
    print("Run the same command with --dry-run to see how far they are, and without to queue what is left.")
    summary = _summary(plan, store, jobs)
    summary.elsewhere = 0
    return summary


def _has_work(plan: Plan, store: Store, job: Job, options: Options) -> bool:
    from lmsat_plugin.sweep.run import known_weights

    stored = store.read(job.checkpoint.model, job.checkpoint.revision)
    retry = options.retry_failed or options.force
    return bool(
        plan.pending(job, stored, known_weights(job, stored), force=options.force, retry_failed=retry)
    )


def _slurm_job(settings: SlurmSettings, again: Sequence[str], job: Job) -> SlurmJob:
    only = f"{job.checkpoint.model}@{job.checkpoint.revision}"
    return SlurmJob((*again, "--only", only, f"--worker={job.checkpoint.revision}"), settings.launcher)


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
