"""Sweeps that are killed or interrupted: nothing is lost, and nothing is measured twice."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from exhaustive import EXHAUSTIVE
from killing import Case
from places import HELPERS
from quiz import write_quiz
from result_trees import write_result
from sweep_outputs import files_of, strays
from training_formats import save_wrapped
from warm_lmsat import WarmLmsat, shared

from lmsat_plugin.sweeps.interrupts import Interrupts

KILLS = {
    # In CI, and with LMSAT_EXHAUSTIVE=1.
    "sweep": (8, 60),
    "two sweeps": (4, 30),
    "downloads": (6, 40),
    "conversions": (4, 40),
    "heads": (5, 30),
    "n-grams": (3, 16),
    "report": (1, 8),
    "hub folder": (3, 16),
}


@pytest.fixture(scope="module")
def series(save, documents, tmp_path_factory) -> Path:
    """Return a folder with a series of three checkpoints, a corpus, and a multiple-choice task."""
    folder = tmp_path_factory.mktemp("series")
    (folder / "run").mkdir()
    for step in range(0, 300, 100):
        save(folder / "run" / f"step{step}", step)
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    write_quiz(folder / "quiz", train=4, test=6)
    return folder


def sweep_of(folder: Path, output: Path, **changes: Any) -> list[str]:
    """Write the configuration of a sweep over the series in a folder, and return the command's arguments."""
    values = {
        "models": [str(folder / "run")],
        "tasks": ["lmsat_loss", "lmsat_head", "quiz"],
        "include_path": str(folder / "quiz"),
        "corpus": str(folder / "corpus.jsonl"),
        "max_tokens": 600,
        "log_samples": True,
        "device": "cpu",
        "output": str(output),
        **changes,
    }
    path = output.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(values))
    return ["sweep", str(path)]


def first(folder: Path, output: Path) -> list[str]:
    """Return the arguments of another sweep, of one checkpoint and somewhere else."""
    return sweep_of(folder, output.with_name("first"), models=[str(folder / "run/step0")])


def kill(what: str, warm: WarmLmsat, output: Path, arguments: list[str], **other: Any) -> None:
    """Kill a command as often as it says above, and check what is there after each kill and after the next run."""
    kills = KILLS[what][EXHAUSTIVE]
    # Others than those of CI come after them.
    case = Case(arguments=arguments, output=str(output), kills=kills, seed=len(what), **other)
    killing = warm.start(str(HELPERS / "killing.py"), case.to_json())
    assert killing.wait(timeout=1800) == 0, killing.output
    print(what, killing.output)
    assert int(re.findall(r"(\d+) kills in", killing.output)[0]) >= kills


@pytest.mark.parametrize("what", ["sweep", "two sweeps"])
def test_sweeps_that_are_killed(what, series, tmp_path):
    """The results are those of a sweep that nobody killed, however often, and of each value there is one."""
    output = tmp_path / "out"
    warm_up, at_once = first(series, output), 1 + (what == "two sweeps")
    kill(what, shared(), output, sweep_of(series, output), warm_up=warm_up, at_once=at_once)


def test_sweeps_that_are_killed_while_they_download(series, tokenizer, empty_hub, warm_with_hub, tmp_path, monkeypatch):
    """What was left of a download is continued, or removed, and no more stays than is to be kept."""
    folders = {path.name: path for path in (series / "run").iterdir()}
    empty_hub.branches["org/killed"] = {**folders, "main": folders["step200"]}
    monkeypatch.setattr(empty_hub, "seconds_per_block", 0.03)
    output = tmp_path / "out"
    arguments = sweep_of(series, output, models=["org/killed"], tasks=["lmsat_head"], log_samples=False)
    kill("downloads", warm_with_hub, output, arguments, warm_up=first(series, output))


def test_sweeps_that_are_killed_while_they_convert(series, tmp_path):
    """Nothing half-converted is measured, or stays."""
    run = tmp_path / "trained"
    run.mkdir()
    for seed, name in enumerate(("step1.pt", "step20.pt", "step300.pt")):
        save_wrapped(run / name, seed, "gpt_neox")
    output = tmp_path / "out"
    copying = f"{sys.executable} -c 'import shutil, sys; shutil.copyfile(*sys.argv[1:])' {{input}} {{output}}"
    built_in = {"pretrained": str(run), "config": str(series / "run/step0")}
    models = [built_in, {**built_in, "name": "copied", "convert": copying}]
    arguments = sweep_of(series, output, models=models, tasks=["lmsat_head"], log_samples=False, keep="all")
    kill("conversions", shared(), output, arguments, warm_up=first(series, output))
    assert not [path for path in output.rglob("*") if path.name == "scratch"]


def test_trainings_of_heads_that_are_killed(series, tmp_path):
    """A training goes on from its state, to the same heads, and no state is left."""
    output = tmp_path / "out"
    training = {"ranks": [4, 16], "train_tokens": 3000, "batch_tokens": 512, "heads": str(output / "heads")}
    arguments = sweep_of(
        series, output, models=[str(series / "run/step0")], tasks=["lmsat_rank_head"], metadata=training
    )
    patches = (("lmsat_plugin.probes.rank_head.training_state", "_SAVE_SECONDS", 0.0),)
    kill("heads", shared(), output, arguments, warm_up=first(series, output), patches=patches)


def test_countings_of_ngrams_that_are_killed(series, tmp_path):
    output = tmp_path / "out"
    config = {
        "corpora": [str(series / "corpus.jsonl")],
        "tokenizers": [str(series / "run" / step) for step in ("step0", "step100")],
        "output": str(output),
        "order": 3,
    }
    (tmp_path / "ngrams.yaml").write_text(yaml.safe_dump(config))
    arguments = ["ngram", "--config", str(tmp_path / "ngrams.yaml"), "--temporary", str(tmp_path)]
    patches = (("lmsat_plugin.ngrams.records", "_IN_MEMORY", 100),)
    kill("n-grams", shared(), output, arguments, patches=patches)
    assert not list(tmp_path.glob("tmp*"))


@pytest.mark.parametrize("what", ["report", "hub folder"])
def test_reports_and_leaderboards_that_are_killed_while_they_are_written(what, tmp_path):
    for model, step in itertools.product(("org/small", "org/large"), range(1, 7)):
        loss = 2 + 2 / step + 0.1 * len(model)
        write_result(tmp_path / "tree", model, step, {"lmsat_loss": {"loss": (loss, 0.006)}}, 10 ** len(model))
    output = tmp_path / "out"
    command = ["report", "--output"] if what == "report" else ["leaderboard", "--hub"]
    warm_up, arguments = ([*command, str(folder), str(tmp_path / "tree")] for folder in (tmp_path / "first", output))
    kill(what, shared(), output, arguments, warm_up=warm_up)


def test_there_are_as_many_kills_as_promised():
    ci, exhaustive = (sum(kills) for kills in zip(*KILLS.values(), strict=True))
    assert (ci, exhaustive) == (34, 240)


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


def test_a_worker_does_not_outlive_the_process_that_started_it():
    """Not even one that is killed, and cannot end it."""
    worker = (
        "import time; from lmsat_plugin.sweeps.interrupts import end_with_parent; end_with_parent(); time.sleep(60)"
    )
    parent = f"""
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", {worker!r}], stdin=subprocess.PIPE)
print(worker.pid, flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    pid = int(process.stdout.readline())
    process.kill()
    process.wait()
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        if "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]:
            break
        time.sleep(0.05)
    else:
        assert time.monotonic() < end
