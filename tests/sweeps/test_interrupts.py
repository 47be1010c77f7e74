"""Sweeps that are killed or interrupted: nothing is lost, and nothing is measured twice."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
import yaml
from places import HELPERS
from sweep_outputs import files_of, strays, values_of
from warm_lmsat import shared

from lmsat_plugin.cli.main import main
from lmsat_plugin.sweeps.interrupts import Interrupts


@pytest.fixture(scope="module")
def seven(save, documents, tmp_path_factory) -> dict[str, object]:
    """Return a sweep over seven checkpoints."""
    folder = tmp_path_factory.mktemp("seven")
    (folder / "run").mkdir()
    for step in range(0, 700, 100):
        save(folder / "run" / f"step{step}", step)
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    return {
        "models": [str(folder / "run")],
        "tasks": ["lmsat_*"],
        "corpus": str(folder / "corpus.jsonl"),
        "max_tokens": 600,
        "device": "cpu",
    }


@pytest.fixture(scope="module")
def unkilled(seven, tmp_path_factory) -> dict[tuple, float]:
    """Return the values of a sweep that nobody killed."""
    folder = tmp_path_factory.mktemp("unkilled")
    (folder / "sweep.yaml").write_text(yaml.safe_dump({**seven, "output": str(folder)}))
    assert main(["sweep", str(folder / "sweep.yaml")]) == 0
    return values_of(folder)


@pytest.mark.parametrize("at_once", [1, 2])
def test_killed_at_any_instant_and_started_again(seven, unkilled, tmp_path, at_once):
    """The results are those of a sweep that nobody killed. LMSAT_TEST_KILLS says how often (50, to be sure)."""
    config = tmp_path / "sweep.yaml"
    config.write_text(yaml.safe_dump({**seven, "output": str(tmp_path / "out")}))
    kills = os.environ.get("LMSAT_TEST_KILLS", "6")
    killing = shared().start(str(HELPERS / "kill_sweep.py"), str(config), kills, str(at_once))
    assert killing.wait(timeout=560) == 0, killing.output
    assert values_of(tmp_path / "out") == unkilled
    assert not strays(tmp_path / "out")
    for path in (tmp_path / "out").rglob("arrays_*.safetensors"):
        assert path.with_name(path.name.replace("arrays_", "results_")).with_suffix(".json").exists()


def test_ctrl_c_keeps_what_is_measured_and_says_how_to_go_on(start, configure, save, run_folder, tmp_path):
    for step in range(200, 3000, 100):
        save(run_folder / f"step{step}", step)
    process = start(configure(max_tokens=3000))
    process.first_line()
    process.send(signal.SIGINT)
    assert process.wait(timeout=60) == 130, process.output
    assert "Go on with: lmsat sweep" in process.output
    assert "Traceback" not in process.output
    assert 1 <= len(files_of(tmp_path / "out")) < 30
    assert not strays(tmp_path / "out")


def test_an_interrupt_waits_for_the_write():
    interrupts, seen = Interrupts(), []

    def write():
        with interrupts.handled(), interrupts.held():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            seen.append("written")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert seen == ["written"]
