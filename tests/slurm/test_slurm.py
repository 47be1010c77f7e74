"""A sweep through a real Slurm on this machine: `make test-slurm` installs and starts it, and runs this."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import yaml
from tiny_models import make_model

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not os.environ.get("LMSAT_TEST_SLURM"), reason="needs a Slurm: make test-slurm")
STEPS = (0, 10, 20, 30)


def command(*arguments: str) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lmsat(*arguments: str) -> str:
    return command(sys.executable, "-m", "lmsat_plugin.cli", *arguments)


def wait_for(condition, seconds: float = 180):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, command("squeue", "--all")
        time.sleep(0.2)
    return found


def running() -> list[str]:
    return command("squeue", "--noheader", "--states=RUNNING", "--format=%A").split()


def at_work(output: Path) -> list[str]:
    """Return the running jobs that are measuring, by their claims."""
    claims = [path.read_text() for path in output.rglob("claims/*.json")]
    labels = {json.loads(text)["at"] for text in claims if text}
    lines = command("squeue", "--noheader", "--states=RUNNING", "--format=%K %A").splitlines()
    jobs = (line.split() for line in lines)
    return [job for index, job in jobs if index.isdigit() and f"run step{STEPS[int(index)]}" in labels]


def restarts(job: str) -> int:
    return int(re.search(r"Restarts=(\d+)", command("scontrol", "show", "job", job))[1])


def values(output: Path) -> dict[tuple[str, str, str], float]:
    return {
        (path.parent.name, task, metric): value
        for path in output.rglob("results_*.json")
        for task, metrics in json.loads(path.read_text())["results"].items()
        for metric, value in metrics.items()
        if isinstance(value, float)
    }


@pytest.fixture
def configuration(tmp_path, tokenizer, corpus_file) -> Path:
    for step in STEPS:
        make_model("gpt_neox", step).save_pretrained(tmp_path / "run" / f"step{step}")
        tokenizer.save_pretrained(tmp_path / "run" / f"step{step}")
    config = {
        "models": [str(tmp_path / "run")],
        "tasks": ["lmsat_*"],
        "corpus": str(corpus_file),
        "output": str(tmp_path / "out"),
        "device": "cpu",
        "executor": "slurm",
        "slurm": {"cpus_per_task": 1, "time": 10, "array_parallelism": 2},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "sweep.yaml"


def test_a_sweep_through_slurm(configuration, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = lmsat("sweep", str(configuration))
    assert f"Submitted {len(STEPS)} checkpoints as Slurm array" in said

    # One job is requeued while it runs, as when its node is wanted for another; one is told that its time is up.
    first = wait_for(running)[0]
    command("scontrol", "requeue", first)
    wait_for(lambda: restarts(first) == 1)
    second = wait_for(lambda: [job for job in at_work(tmp_path / "out") if job != first])[0]
    # scancel's exit code is an error where the job has no process of its own beside the step's.
    subprocess.run(["scancel", "--signal=USR2", second])
    wait_for(lambda: restarts(second) == 1)
    wait_for(lambda: not command("squeue", "--noheader").strip(), 300)

    # What was submitted and is done is not submitted again.
    again = lmsat("sweep", str(configuration), "--wait")
    assert f"{len(STEPS)} measured" in again, again
    assert "Submitted" not in again
    lmsat("sweep", str(configuration), "--executor", "local", f"output={tmp_path / 'local'}")
    assert values(tmp_path / "out") == values(tmp_path / "local")
    assert len(list((tmp_path / "out").rglob("results_*.json"))) == len(STEPS)
    assert not list((tmp_path / "out").rglob("claims/*"))


def test_failures_are_recorded_and_waited_for(configuration, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "run" / "step10" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    done = subprocess.run(
        [sys.executable, "-m", "lmsat_plugin.cli", "sweep", str(configuration), "--wait"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{len(STEPS) - 1} measured, 0 done before, 1 failed" in done.stdout
    assert "model.safetensors is cut short" in done.stderr
