"""The executor ``processes``: a sweep in several processes of this machine.

Every worker runs the same sweep. They share the work through the claims in the output folder: none waits for
another, and one that dies leaves its checkpoint to the others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence

from lmsat_plugin.outside_text import show
from lmsat_plugin.sweeps.config import Options, SweepConfig
from lmsat_plugin.sweeps.interrupts import Interrupts
from lmsat_plugin.sweeps.jobs import choose_jobs
from lmsat_plugin.sweeps.plan import Plan
from lmsat_plugin.sweeps.store import DEADLY, Store
from lmsat_plugin.sweeps.summary import Summary, read_summary


def run_processes(config: SweepConfig, options: Options, worker_options: Sequence[str]) -> Summary:
    """Run a sweep in ``config.workers`` processes, each with its share of the GPUs and of the cores.

    ``worker_options`` are those of ``lmsat sweep`` with which a worker runs it. A worker that is killed is replaced; a
    checkpoint at which two of them were killed is left, and named in the summary.

    Raises `LmsatError` for a configuration that cannot be run, and KeyboardInterrupt on Ctrl-C, once the workers have
    finished their writes.
    """
    plan, store = Plan(config), Store(config.output)
    store.prepare()
    again = ["sweep", str(store.keep_config(config)), *worker_options]
    jobs = choose_jobs(plan.jobs, options)
    gpus = _visible_gpus()
    count = min(config.workers or max(1, len(gpus)), max(1, len(jobs)))
    workers: dict[int, _Worker] = {}
    deaths: Counter[str] = Counter()
    left: dict[str, str] = {}

    def successor(worker: _Worker, code: int) -> _Worker | None:
        """Return the worker that replaces one that has ended; None if another would be of no use."""
        # Any other end than a kill would come again.
        if 0 <= code <= 128:
            return None
        label = store.died_at(worker.pid) or "starting"
        deaths[label] += 1
        message = f"worker {worker.number} was killed (exit code {code}) at {label}"
        show(message, file=sys.stderr)
        if deaths[label] >= DEADLY:
            left[label] = (
                f"measuring it killed {DEADLY} processes (exit code {code}), most likely for want of memory: "
                "use a smaller batch_size, fewer workers or a larger machine"
            )
        return worker.again() if deaths[label] <= DEADLY and label != "starting" else None

    with Interrupts().handled():
        try:
            for number in range(1, count + 1):
                share = _share_of_machine(number - 1, count, gpus)
                workers[number] = _Worker(number, count, again, share)
            while workers:
                time.sleep(0.2)
                for number, worker in list(workers.items()):
                    if (code := worker.poll()) is None:
                        continue
                    del workers[number]
                    if replacement := successor(worker, code):
                        workers[number] = replacement
        except KeyboardInterrupt:
            for worker in workers.values():
                worker.terminate()
            raise
    return read_summary(plan, store, jobs, left)


class _Worker:
    """A process that runs the sweep; its lines are printed as they come."""

    def __init__(self, number: int, count: int, arguments: Sequence[str], environment: dict[str, str]) -> None:
        self.number = number
        self._made_of = (number, count, arguments, environment)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lmsat_plugin.cli", *arguments, f"--worker={number}/{count}"],
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            # Nothing is written to it: it ends when this process does, however that may be, and the worker with it.
            stdin=subprocess.PIPE,
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
        """End it, once it has written the file that it is writing."""
        self._process.terminate()
        self._process.wait()


def _visible_gpus() -> list[str]:
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def _share_of_machine(index: int, count: int, gpus: Sequence[str]) -> dict[str, str]:
    """Return the environment that gives a worker its share of the GPUs and of the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores // count)))}
    if gpus:
        mine = list(gpus[index::count]) or [gpus[index % len(gpus)]]
        share["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
    return share
