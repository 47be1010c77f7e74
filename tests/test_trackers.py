"""Trackers: what they write is read back, in any order of checkpoints, from a sweep that was interrupted."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sqlite3
import struct
import subprocess
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from lmsat_plugin import CheckpointEvaluated, LmsatError, SweepFinished, hookimpl
from lmsat_plugin.plugins import load, plugins
from lmsat_plugin.trackers import TRACKERS, Tracker

if TYPE_CHECKING:
    from pathlib import Path

# Model, step and tokens: a sweep and its continuation; the steps go back within and between them.
SWEEPS = [
    [("lab/one", 10, 1000), ("lab/two", 5, None), ("lab/one", 2, 200)],
    [("lab/two", 1, None), ("lab/one", 4, 400), ("lab/final", None, None)],
]
SCRIPT = """
import json, sys
from pathlib import Path

from pluggy import PluginManager

from lmsat_plugin import CheckpointEvaluated, SweepFinished, hookspecs
from lmsat_plugin.plugins import Plugins
from lmsat_plugin.trackers import TRACKERS

trackers, output, checkpoints = json.loads(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
found = Plugins(PluginManager("lmsat"))
found.manager.add_hookspecs(hookspecs)
for tracker in TRACKERS:
    found.register(tracker(), tracker.name, "built in")
for model, step, tokens in checkpoints:
    metrics = {"lmsat_loss/loss": 1 / (step or 1), "lmsat_loss/loss_stderr": float("nan")}
    path = output / "results.json"
    found.tell(
        CheckpointEvaluated(
            model=model, revision=f"step{step}", step=step, tokens=tokens,
            metrics=metrics, path=path, output=output, trackers=trackers,
        )
    )
found.tell(SweepFinished(output=output, trackers=trackers))
"""


def run_sweeps(output: Path, trackers: dict, **environment: str) -> None:
    """Run each sweep in a process of its own. Standard output is left to the sweep."""
    for checkpoints in SWEEPS:
        arguments = [json.dumps(trackers), str(output), json.dumps(checkpoints)]
        command = [sys.executable, "-c", SCRIPT, *arguments]
        run = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert run.stdout == ""
        assert "failed" not in run.stderr


def test_tensorboard_has_each_metric_by_step_and_by_tokens(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    output = tmp_path / "sweep"
    run_sweeps(output, {"tensorboard": {}})
    found = {}
    for folder in (output / "tensorboard").iterdir():
        events = accumulator.EventAccumulator(str(folder)).Reload()
        tags = events.Tags()["scalars"]
        found[folder.name] = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}
    assert found == {
        "lab__one": {
            "lmsat_loss/loss/by_step": [(10, pytest.approx(0.1)), (2, 0.5), (4, 0.25)],
            "lmsat_loss/loss/by_tokens": [(1000, pytest.approx(0.1)), (200, 0.5), (400, 0.25)],
        },
        "lab__two": {"lmsat_loss/loss/by_step": [(5, pytest.approx(0.2)), (1, 1.0)]},
        "lab__final": {"lmsat_loss/loss": [(0, 1.0)]},
    }


def evaluated(output: Path, trackers: dict, metrics: dict) -> CheckpointEvaluated:
    return CheckpointEvaluated(
        model="lab/one",
        revision="main",
        step=1,
        tokens=None,
        metrics=metrics,
        path=output / "file",
        output=output,
        trackers=trackers,
    )


def test_tensorboard_writes_where_it_is_told(tmp_path):
    pytest.importorskip("tensorboard")
    found, trackers = load(), {"tensorboard": {"log_dir": str(tmp_path / "logs")}}
    found.tell(evaluated(tmp_path / "sweep", trackers, {"lmsat_loss/loss": 2.0}))
    found.tell(SweepFinished(tmp_path / "sweep", trackers))
    assert len(list((tmp_path / "logs" / "lab__one").iterdir())) == 1
    assert not (tmp_path / "sweep").exists()


def test_each_model_has_a_tensorboard_folder_of_its_own(tmp_path):
    pytest.importorskip("tensorboard")
    found, trackers = load(), {"tensorboard": {}}
    names = ["a/b", "a__b", "a//b", "a b"]
    for name in names:
        found.tell(dataclasses.replace(evaluated(tmp_path, trackers, {"loss": 2.0}), model=name))
    found.tell(SweepFinished(tmp_path, trackers))
    folders = sorted((tmp_path / "tensorboard").iterdir())
    assert [len(list(folder.iterdir())) for folder in folders] == [1] * len(names)
    assert "a__b" in [folder.name for folder in folders]


def test_trackio_continues_a_run_per_model(tmp_path):
    pytest.importorskip("trackio")
    run_sweeps(tmp_path / "a sweep", {"trackio": {"auto_log_cpu": False}}, TRACKIO_DIR=str(tmp_path / "store"))
    with sqlite3.connect(tmp_path / "store" / "a__sweep.db") as connection:
        rows = connection.execute("SELECT run_name, run_id, step, metrics FROM metrics ORDER BY id").fetchall()
    assert len({(name, identity) for name, identity, *_ in rows}) == 3
    loss, one = "lmsat_loss/loss", "lab/one"
    logged = [(name, step, json.loads(metrics)) for name, _, step, metrics in rows]
    assert [entry for entry in logged if entry[0] == one] == [
        (one, 10, {"revision": "step10", "tokens": 1000, loss: 0.1}),
        (one, 2, {"revision": "step2", "tokens": 200, loss: 0.5}),
        (one, 4, {"revision": "step4", "tokens": 400, loss: 0.25}),
    ]
    assert [(step, set(metrics)) for name, step, metrics in logged if name == "lab/two"] == [
        (5, {"revision", loss}),
        (1, {"revision", loss}),
    ]


def wandb_records(path: Path) -> list:
    """Return what a .wandb file holds: protocol buffers in LevelDB's log format, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    block, data, at, whole, found = 32768, path.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if (left := block - at % block) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            found.append(Record.FromString(whole))
            whole = b""
    return found


def test_wandb_offline_has_steps_and_tokens_as_axes_and_one_id_per_model(tmp_path):
    pytest.importorskip("wandb")
    settings = {"mode": "offline", "dir": str(tmp_path), "tags": ["lmsat"]}
    run_sweeps(tmp_path / "sweep", {"wandb": settings}, WANDB_SILENT="true")
    runs: dict[str, list] = {}
    identities, axes = set(), set()
    files = (tmp_path / "wandb").rglob("*.wandb")
    for path in sorted(files, key=lambda path: path.stat().st_mtime):
        records = wandb_records(path)
        [run] = [record.run for record in records if record.HasField("run")]
        assert (run.project, list(run.tags)) == ("sweep", ["lmsat"])
        identities.add((run.display_name, run.run_id))
        axes |= {(r.metric.glob_name, r.metric.step_metric) for r in records if r.HasField("metric")}
        for record in records:
            if record.HasField("history"):
                items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                logged = {key: json.loads(value) for key, value in items.items() if not key.startswith("_")}
                runs.setdefault(run.display_name, []).append(logged)
    assert len(identities) == 3
    assert axes == {("*", "step")}
    loss = "lmsat_loss/loss"
    assert runs == {
        "lab/one": [
            {"revision": "step10", "step": 10, "tokens": 1000, loss: 0.1},
            {"revision": "step2", "step": 2, "tokens": 200, loss: 0.5},
            {"revision": "step4", "step": 4, "tokens": 400, loss: 0.25},
        ],
        "lab/two": [{"revision": "step5", "step": 5, loss: 0.2}, {"revision": "step1", "step": 1, loss: 1}],
        "lab/final": [{"revision": "stepNone", loss: 1}],
    }


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_missing_package_is_one_sentence_with_the_extra(name, monkeypatch):
    package = next(tracker.package for tracker in TRACKERS if tracker.name == name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(LmsatError, match=rf"'{name}' does not import.*pip install 'lmsat-plugin\[{name}\]'$"):
        plugins().check_trackers({name: {}})


def test_bad_trackers_are_named_before_a_sweep_begins(request):
    pytest.importorskip("tensorboard")
    plugins().check_trackers({})
    plugins().check_trackers({"tensorboard": {"log_dir": "here"}})
    with pytest.raises(LmsatError, match="unknown setting 'logdir': did you mean log_dir"):
        plugins().check_trackers({"tensorboard": {"logdir": "here"}})
    with pytest.raises(LmsatError, match=r"no tracker is named 'tensorbord' \(known: .*tensorboard\)"):
        plugins().check_trackers({"tensorbord": {}})

    listener = ModuleType("listener")
    listener.lmsat_checkpoint_evaluated = hookimpl(lambda event: None)
    plugins().manager.register(listener)
    request.addfinalizer(lambda: plugins().manager.unregister(listener))
    plugins().check_trackers({"mine": {"any": "setting"}})


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_settings_are_the_arguments_that_make_no_run(name):
    pytest.importorskip(name)
    plugins().check_trackers({name: {"project": "mine", "config": {"lr": 1e-3}}})
    with pytest.raises(LmsatError, match="unknown setting 'resume'"):
        plugins().check_trackers({name: {"resume": "never"}})


def test_nothing_is_imported_for_a_sweep_without_trackers(tmp_path):
    code = SCRIPT + "assert not {'wandb', 'trackio', 'tensorboard', 'torch'} & sys.modules.keys()"
    arguments = [json.dumps({}), str(tmp_path), json.dumps(SWEEPS[0])]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)


def test_a_metric_that_is_not_finite_is_left_out(tmp_path):
    class Memory(Tracker):
        name = "memory"

        def start(self, event, settings):
            return [settings]

        def known_settings(self):
            return ()

        def finish(self, run):
            pass

        def log(self, run, event, metrics):
            run.append(metrics)

    found, tracker = load(), Memory()
    found.register(tracker, "memory", "test")
    metrics = {"a": 1.0, "b": math.nan, "c": math.inf, "d": -math.inf}
    found.tell(evaluated(tmp_path, {"memory": {"some": "setting"}}, metrics))
    assert tracker.runs == {(tmp_path, "lab/one"): [{"some": "setting"}, {"a": 1.0}]}


@pytest.mark.parametrize(
    ("part", "series"),
    [
        ({}, "m"),
        ({"run": "seed3"}, "m (seed3)"),
        ({"branch": "stage2", "run": "ingredient1"}, "m (stage2, ingredient1)"),
    ],
)
def test_runs_and_stages_that_begin_again_are_curves_of_their_own(tmp_path, part, series):
    assert dataclasses.replace(evaluated(tmp_path, {}, {}), model="m", **part).series == series
