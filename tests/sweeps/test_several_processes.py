"""Several processes on one output folder: two sweeps, workers of one, a launch of two."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from places import HELPERS
from sweep_outputs import files_of, strays, values_of

from lmsat_plugin.cli.main import main


def test_two_sweeps_at_once_share_the_work(start, configure, save, run_folder, tmp_path):
    for step in range(200, 1000, 100):
        save(run_folder / f"step{step}", step)
    config = configure()
    both = [start(config), start(config)]
    assert [process.wait() for process in both] == [0, 0], [process.output for process in both]
    assert len(files_of(tmp_path / "out")) == 11
    values_of(tmp_path / "out")
    assert not strays(tmp_path / "out")


def pids_at_work(output: Path) -> list[int]:
    pids = []
    for path in output.rglob("claims/*.json"):
        with suppress(OSError, ValueError):
            pids.append(json.loads(path.read_text())["pid"])
    return pids


def test_workers_share_the_work_and_one_that_is_killed_is_replaced(start, configure, save, run_folder, tmp_path):
    for step in range(200, 900, 100):
        save(run_folder / f"step{step}", step)
    workers = {"script": HELPERS / "forked_workers.py"}
    process = start(configure(), "--executor", "processes", "--workers", "2", **workers)
    process.first_line()
    # Between two checkpoints a worker has none.
    while not (pids := pids_at_work(tmp_path / "out")):
        assert process.returncode is None
    os.kill(pids[0], signal.SIGKILL)
    assert process.wait() == 0, process.output
    assert "was killed" in process.output
    assert len(files_of(tmp_path / "out")) == 10
    values_of(tmp_path / "out")
    assert not strays(tmp_path / "out")

    # Workers that measure all again do so once, and a checkpoint that fails is tried by one of them.
    (run_folder / "step10" / "model.safetensors").write_bytes(b"")
    process = start(configure(), "--executor", "processes", "--workers", "2", "--force", **workers)
    assert process.wait() == 1, process.output
    assert process.output.count("failed: ") == 1, process.output
    assert len(files_of(tmp_path / "out")) == 19


def test_a_launch_of_two_processes_gives_the_values_of_one(configure, quiz, run_folder, tmp_path):
    """One checkpoint fails on both: it is recorded once, and they go on together."""
    weights = run_folder / "step10" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    tasks = {"tasks": ["lmsat_*", "quiz"], "include_path": str(quiz()), "batch_size": 4}
    assert main(["sweep", str(configure(**tasks, output=str(tmp_path / "one")))]) == 1
    config = configure(**tasks, device=None)
    launcher = ["torch.distributed.run", "--nproc_per_node=2", "--rdzv_backend=c10d"]
    launcher += ["--rdzv_endpoint=localhost:0", "-m", "lmsat_plugin.cli"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "sweep", str(config)],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "2 measured, 0 done before, 1 failed" in done.stdout, done.stdout + done.stderr[-3000:]
    assert done.stdout.count("Checkpoints: ") == 1
    one, two = values_of(tmp_path / "one"), values_of(tmp_path / "out")
    assert one.keys() == two.keys()
    assert all(two[key] == pytest.approx(value, rel=1e-6) for key, value in one.items())
    assert len(list((tmp_path / "out").rglob("failures.json"))) == 1
