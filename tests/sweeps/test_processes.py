"""Workers that are killed: a checkpoint that kills two is left and named, not recorded as failed."""

from __future__ import annotations

import json
import os
import signal

import pytest
from sweep_outputs import files_of

from lmsat_plugin.sweeps import processes
from lmsat_plugin.sweeps.config import Options, load_config
from lmsat_plugin.sweeps.local import run_sweep
from lmsat_plugin.sweeps.store import Store


@pytest.fixture
def deadly(monkeypatch) -> list[int]:
    """Return the numbers of the workers that were started, each of which is killed at once."""
    started: list[int] = []

    class Worker:
        def __init__(self, number: int, *_) -> None:
            self.number, self.pid = number, os.getpid()
            started.append(number)

        def poll(self) -> int:
            return -signal.SIGKILL

        def again(self):
            return Worker(self.number)

    monkeypatch.setattr(processes, "_Worker", Worker)
    monkeypatch.setattr(Store, "died_at", lambda store, pid: "run step10")
    return started


def test_a_checkpoint_that_kills_two_workers_is_left(configure, tmp_path, deadly):
    config = load_config(configure(workers=1))
    summary = processes.run_processes(config, Options(), [])
    assert (list(summary.left), summary.elsewhere, summary.failed) == (["run step10"], 2, {})
    assert "measuring it killed 2 processes" in summary.left["run step10"]
    assert len(deadly) == 3
    assert not list((tmp_path / "out").rglob("failures.json"))


def test_a_worker_leaves_what_has_killed_two_others(configure, tmp_path):
    """The next sweep tries it, after all others."""
    note = tmp_path / "out/.lmsat/claims/run--step10.json"
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps({"pid": 1, "at": "run step10", "run": "this", "ended": ["this"]}))
    config = load_config(configure(tasks=["lmsat_loss"]))
    summary = run_sweep(config, Options(run="this"))
    assert (summary.measured, list(summary.left), summary.failed) == (2, ["run step10"], {})
    assert json.loads(note.read_text()) == {"ended": ["this", "this"]}
    assert run_sweep(config).measured == 1
    assert len(files_of(tmp_path / "out")) == 3
    assert not note.exists()


@pytest.mark.parametrize("gpus", [[], ["0", "1"], ["3"]])
def test_workers_share_cores_and_gpus(monkeypatch, gpus):
    """On GPUs too: what is decomposed on the CPU would take all cores in each worker."""
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(9)), raising=False)
    shares = [processes._share_of_machine(index, 2, gpus) for index in range(2)]
    assert [share["OMP_NUM_THREADS"] for share in shares] == ["4", "4"]
    expected = {0: [None, None], 1: ["3", "3"], 2: ["0", "1"]}[len(gpus)]
    assert [share.get("CUDA_VISIBLE_DEVICES") for share in shares] == expected
