"""What is known of metrics is known once: probes, tasks, readers and exports agree."""

from __future__ import annotations

import math
import re

import pytest
from places import ROOT
from result_files import new, write

from lmsat_plugin import metrics
from lmsat_plugin.analysis.chance import chance_level
from lmsat_plugin.metrics import (
    ACCURACIES,
    Metric,
    axis_label,
    directions,
    is_measurement,
    metric,
    probe_of_task,
    task_of_probe,
)
from lmsat_plugin.plugins import plugins
from lmsat_plugin.results import load_results


def known() -> list[Metric]:
    return [metric(name) for row in metrics._ROWS for name in row[0].split()]


def test_each_metric_is_listed_once():
    names = [one.name for one in known()]
    assert len(names) == len(set(names))
    for one in known():
        assert (one.low is None) == (one.high is None)
        assert one.low is None or one.low < one.high
        assert not one.is_share or (one.low, one.high) == (0, 1)
        assert not one.is_ratio or one.higher_is_better is False


def test_what_is_not_listed_has_a_name_only():
    assert metric("my_metric") == Metric(name="my_metric")
    assert metric("my_perplexity").is_ratio
    assert not metric("my_metric").is_score


def test_directions_of_probes_are_these():
    stated = [
        (name, higher)
        for probe, origin in ((plugins().probe(name), plugins().origins[f"probe:{name}"]) for name in plugins().probes)
        if origin == "built in"
        for name, higher in probe.higher_is_better.items()
    ]
    assert ("loss", False) in stated
    assert [(name, metric(name).higher_is_better) for name, _ in stated] == stated


def test_directions_of_old_files_are_these(tmp_path):
    """Files that do not state a direction get it here; where they state one, theirs counts."""
    values = {f"{one.name},none": 0.5 for one in known()}
    content = new({"quiz": values}, higher_is_better={"quiz": {"acc": False}})
    table = load_results(write(tmp_path / "results_1.json", content)).set_index("metric")
    found = table.higher_is_better
    assert found["acc"] == False  # noqa: E712
    expected = {one.name: one.higher_is_better for one in known() if one.higher_is_better is not None}
    assert {name: bool(value) for name, value in found.dropna().items()} == {**expected, "acc": False}
    assert directions(*(one.name for one in known())) == expected


@pytest.mark.parametrize("name", ACCURACIES)
def test_accuracies_are_scores_whose_chance_is_known(name):
    assert metric(name).is_score
    assert chance_level("piqa", name) in (0.0, 0.5)


def test_chance_follows_from_the_metric():
    assert [chance_level("piqa", name) for name in ("acc", "correct_choice_prob", "brier_score", "f1")] == [
        *(0.5, 0.5, 0.5, 0.0)
    ]
    assert [chance_level("race", name) for name in ("acc", "brier_score")] == [0.25, 0.75]
    assert [chance_level("piqa", one.name) is None for one in known()] == [one.chance is None for one in known()]
    assert metric("brier_score").is_score


def test_labels_of_axes():
    assert axis_label("loss") == "loss (nats per token)"
    assert axis_label("acc") == "acc"
    assert axis_label("my_metric") == "my_metric"
    assert metric("perplexity").high == math.inf


def test_measurements_are_told_from_scores():
    """By the names of the tasks: all of lmsat's own files, and a plugin's."""
    names = {"measurement": set(), "score": set()}
    for path in (ROOT / "tasks").rglob("*.yaml"):
        for kind, name in re.findall(r"^(task|group): *(\S+)$", path.read_text("utf-8"), re.MULTILINE):
            names["score" if path.parent.name == "downstream" else "measurement"].add(name)
            assert kind == "task" or path.parent.name == "downstream"
    ours = [probe for probe in plugins().probes.values() if probe.__module__.startswith("lmsat_plugin.")]
    assert names["measurement"] == {probe.task() for probe in ours}
    assert all(is_measurement(name) for name in (*names["measurement"], "lmsat_ours", "lmsat-ours-too"))
    assert not any(is_measurement(name) for name in (*names["score"], "piqa", "lmsat"))
    for name in ("a", "b_c"):
        assert [probe_of_task(task_of_probe(name, is_expensive=hyphens)) for hyphens in (True, False)] == [name, name]
