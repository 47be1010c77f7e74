"""Waiting for the checkpoints that others measure: what it costs, and when it ends."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
from sweep_outputs import files_of

from lmsat_plugin.cli.main import main
from lmsat_plugin.series.finding import Checkpoint
from lmsat_plugin.sweeps import job_runner, stored
from lmsat_plugin.sweeps.config import load_config
from lmsat_plugin.sweeps.local import run_sweep
from lmsat_plugin.sweeps.store import Store

COPIES = 300


@pytest.fixture
def claimed(configure, tmp_path):
    """Return the claim of another process on step10, whose folder holds hundreds of results; the loss is left."""
    assert main(["sweep", str(configure(tasks=["lmsat_head"]))]) == 0
    [path] = (tmp_path / "out" / "run" / "step10").glob("results_*.json")
    for copy in range(COPIES):
        shutil.copy(path, path.with_name(f"results_1999-01-01T00-00-00.{copy:06}.json"))
    store = Store(tmp_path / "out")
    claim = store.claim(Checkpoint(model="run", pretrained="", revision="step10"))
    assert claim is not None
    yield claim
    claim.release()


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Return the names of the result files that are read, as they are read."""
    read, names = stored._load_trusted, []

    def reading(path):
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(stored, "_load_trusted", reading)
    return names


def at_each_poll(monkeypatch, look) -> None:
    """Call a function with the number of the poll instead of sleeping."""
    polls = iter(range(1000))
    monkeypatch.setattr(job_runner, "time", SimpleNamespace(sleep=lambda seconds: look(next(polls))))


def test_waiting_reads_no_result_that_has_not_changed(configure, tmp_path, claimed, reads, monkeypatch):
    read_at: list[int] = []

    def look(poll: int) -> None:
        read_at.append(len(reads))
        if poll == 20:
            claimed.release()

    at_each_poll(monkeypatch, look)
    summary = run_sweep(load_config(configure()))
    assert (summary.measured, summary.elsewhere) == (3, 0)
    assert len(read_at) == 21
    assert read_at[0] > COPIES, "the results are read once"
    assert set(read_at) == {read_at[0]}
    done = [document for path, document in files_of(tmp_path / "out").items() if "/step10/" in path]
    assert sum("lmsat_loss" in document["results"] for document in done) == 1


def test_waiting_ends_when_another_process_has_written_what_is_left(configure, tmp_path, claimed, reads, monkeypatch):
    """Even while that process is still at work on something else there."""
    elsewhere = tmp_path / "elsewhere"
    assert main(["sweep", str(configure(output=str(elsewhere))), "--only", "run@step10"]) == 0
    [path] = (elsewhere / "run" / "step10").glob("results_*.json")
    [arrays] = (elsewhere / "run" / "step10").glob("arrays_*")

    def look(poll: int) -> None:
        if poll == 3:
            # In the order in which a sweep writes them.
            for file in (arrays, path):
                shutil.copy(file, tmp_path / "out" / "run" / "step10")

    at_each_poll(monkeypatch, look)
    summary = run_sweep(load_config(configure()))
    assert (summary.measured, summary.done_before, summary.elsewhere) == (2, 1, 0)
    assert path.name in reads
    assert json.loads(path.read_text())["config"]["lmsat"]["identities"]
