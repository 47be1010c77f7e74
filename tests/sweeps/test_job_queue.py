"""Trouble from outside within a sweep: it is waited for, never recorded as a checkpoint's failure, and named."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sweep_outputs import files_of

from lmsat_plugin import passing
from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError, PassingError
from lmsat_plugin.harness.checkpoint_evaluator import CheckpointEvaluator
from lmsat_plugin.results.failures import read_failures
from lmsat_plugin.series.finding import Checkpoint
from lmsat_plugin.sweeps import job_runner
from lmsat_plugin.sweeps.config import load_config
from lmsat_plugin.sweeps.downloads import Downloads
from lmsat_plugin.sweeps.job_queue import JobQueue
from lmsat_plugin.sweeps.jobs import Job
from lmsat_plugin.sweeps.local import run_sweep


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(passing, "PAUSES", (0.01,) * 7)
    monkeypatch.setattr(job_runner, "_POLL_SECONDS", 0.01)


def jobs(count: int) -> list[Job]:
    return [Job(Checkpoint(model="m", pretrained="m", revision=f"step{n}"), {}) for n in range(count)]


def trouble(source: str = "the server") -> PassingError:
    return PassingError(f"{source} is away", source=source)


def test_one_in_trouble_goes_to_the_end_and_waits(monkeypatch):
    monkeypatch.setattr(passing, "PAUSES", (1000.0,) * 7)
    first, second = jobs(2)
    queue = JobQueue([first, second])
    queue.remove(first)
    assert queue.postpone(first, trouble()) > 800
    assert (queue.due(), len(queue), queue.waiting) == ([second], 2, True)
    # Two in a row: it is not their fault, and none is asked for meanwhile.
    queue.remove(second)
    queue.postpone(second, trouble())
    assert (queue.due(), len(queue)) == ([], 2)


@pytest.mark.parametrize(("count", "stops"), [(1, False), (2, False), (3, True), (20, True)])
def test_several_in_a_row_stop_the_sweep(count, stops):
    queue, tries = JobQueue(jobs(count)), 0
    with (
        pytest.raises(LmsatError, match=r"in a row .* stops: the server is away")
        if stops
        else pytest.raises(StopIteration)
    ):
        while True:
            tries += 1
            job = next(iter(queue._jobs))
            queue.remove(job)
            queue.postpone(job, trouble())
    assert tries == PassingError.tries + (0 if stops else count)


def test_trouble_of_different_sources_or_between_successes_is_no_row():
    queue = JobQueue(jobs(20))
    for number in range(20):
        job = queue._jobs[0]
        queue.remove(job)
        queue.postpone(job, trouble(f"disk {number}"))
        if number % 3 == 0:
            queue.passed()
            assert not queue.in_trouble


def test_a_server_that_is_away_for_good_stops_the_sweep(configure, tmp_path, monkeypatch, capsys):
    with pytest.MonkeyPatch.context() as patch:

        def fetch(*arguments, **keywords):
            raise trouble()

        patch.setattr(Downloads, "fetch", fetch)
        assert main(["sweep", str(configure())]) == 2
    error = capsys.readouterr().err
    assert error.endswith(
        "lmsat: error: 3 checkpoints in a row met the same trouble, and the sweep stops: the server is away\n"
    )
    assert not list((tmp_path / "out").rglob("failures.json"))
    assert main(["sweep", str(configure())]) == 0


def test_a_disk_that_fails_for_a_moment_costs_nothing(configure, run_folder, tmp_path, monkeypatch):
    """Full when a result is written, and then when it is not; failing when weights are read."""
    sync, opened, calls = os.fsync, Path.open, []

    def full(descriptor):
        calls.append("sync")
        if calls.count("sync") in (1, 2, 4):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    def failing(self, *arguments, **keywords):
        if self.name == "model.safetensors" and self.parent.name == "step10" and "read" not in calls:
            calls.append("read")
            raise OSError(errno.EIO, "Input/output error")
        return opened(self, *arguments, **keywords)

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(Path, "open", failing)
    evaluate, evaluated = CheckpointEvaluator.evaluate, []
    monkeypatch.setattr(
        CheckpointEvaluator, "evaluate", lambda self, *a, **k: evaluated.append(1) or evaluate(self, *a, **k)
    )
    summary = run_sweep(load_config(configure()))
    assert (summary.measured, summary.failed, summary.left) == (3, {}, {})
    assert len(evaluated) == len(files_of(tmp_path / "out")) == 3
    assert "read" in calls
    assert not list((tmp_path / "out").rglob("failures.json"))


def test_a_mount_that_is_lost_for_a_moment_costs_nothing(configure, run_folder, tmp_path, monkeypatch):
    glob, calls = Path.glob, []

    def failing(self, pattern, **keywords):
        if self.name == "step10" and self.parent == run_folder and len(calls) < 20:
            calls.append(pattern)
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return glob(self, pattern, **keywords)

    monkeypatch.setattr(Path, "glob", failing)
    summary = run_sweep(load_config(configure(tasks=["lmsat_loss"])))
    assert len(calls) == 20
    assert (summary.measured, summary.failed, summary.left) == (3, {}, {})
    assert not list((tmp_path / "out").rglob("failures.json"))


def test_memory_that_others_hold_is_waited_for(configure, run_folder, tmp_path, monkeypatch):
    loaded = CheckpointEvaluator.load
    calls = []

    def load(self, *arguments, **keywords):
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        loaded(self, *arguments, **keywords)

    monkeypatch.setattr(CheckpointEvaluator, "load", load)
    gpu = {"is_available": True, "device_count": 1, "mem_get_info": (1 << 30, 80 << 30), "memory_reserved": 1 << 30}
    config = load_config(configure(models=[str(run_folder / "step0")], tasks=["lmsat_loss"]))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in gpu.items():
            patch.setattr(torch.cuda, name, lambda *_, value=value: value)
        patch.setattr(CheckpointEvaluator, "evaluate", lambda *_, **__: pytest.fail("not loaded"))
        with pytest.raises(BaseException, match="not loaded"):
            run_sweep(config)
    assert len(calls) == 2
    assert not list((tmp_path / "out").rglob("failures.json"))

    # Where nobody else is there, it is the checkpoint's own failure.
    calls.clear()
    summary = run_sweep(config)
    assert list(summary.failed) == ["run step0"]


def test_a_broken_gpu_ends_the_sweep_and_is_no_failure(configure, tmp_path, monkeypatch, capsys):
    def load(self, *arguments, **keywords):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(CheckpointEvaluator, "load", load)
    assert main(["sweep", str(configure())]) > 128, "a worker that ends so is replaced"
    assert "the GPU is in a broken state" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("failures.json"))
    # It counts as a death, so that the next worker does not run into the same checkpoint for ever.
    [note] = (tmp_path / "out").rglob("claims/*.json")
    assert json.loads(note.read_text())["pid"] == os.getpid()


def test_what_failed_is_tried_again_with_other_software(configure, run_folder, tmp_path):
    (run_folder / "step10" / "model.safetensors").write_bytes(b"")
    config = load_config(configure(models=[str(run_folder / "step10")]))
    assert run_sweep(config).failed
    path = tmp_path / "out/run/step10/failures.json"
    record = read_failures(path)

    def tried() -> bool:
        before = path.stat().st_mtime_ns
        assert run_sweep(config).failed
        return path.stat().st_mtime_ns != before

    assert not tried()
    path.write_bytes(replace(record, software={**record.software, "transformers": "0"}).to_bytes())
    assert tried()
    # Records of old versions stay; they have neither a digest nor kinds.
    old = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("software", "sha256")}
    old["failures"] = [{key: entry[key] for key in ("identity", "error")} for entry in old["failures"]]
    path.write_text(json.dumps(old))
    assert not tried()


def test_a_folder_that_cannot_be_written_is_no_failure_of_the_checkpoint(configure, tmp_path, monkeypatch):
    training = {"ranks": [4], "train_tokens": 600, "batch_tokens": 128, "heads": str(tmp_path / "heads")}
    config = load_config(configure(tasks=["lmsat_rank_head"], metadata=training))
    make = tempfile.TemporaryFile

    def refuse(*args, **options):
        if "heads" in str(options.get("dir")):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return make(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "TemporaryFile", refuse)
        with pytest.raises(LmsatError, match=r"cannot write to .*heads \(Permission denied\): choose another folder"):
            run_sweep(config)
    assert not list((tmp_path / "out").rglob("failures.json"))
    assert not run_sweep(config).failed
