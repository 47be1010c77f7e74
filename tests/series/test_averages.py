"""Selecting averages of checkpoints: which checkpoints each is made of, and what it is called."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.checkpoint_names import averaging_of, parse_series
from lmsat_plugin.series.averages import decay_of, longest_average
from lmsat_plugin.series.checkpoint import Checkpoint, in_order
from lmsat_plugin.series.selection import select

STEPS = (0, 1, 2, 4, 8)


@pytest.fixture(scope="module")
def series() -> list[Checkpoint]:
    return in_order(
        [Checkpoint(model="m", pretrained="o/m", revision=f"step{s}", step=s, commit=f"{s}") for s in STEPS]
    )


def parts(found: list[Checkpoint]) -> dict[str, list[int | None]]:
    return {each.name: [part.step for part in each.parts] for each in found}


def test_each_with_those_before_it(series):
    assert parts(select(series, "average:3")) == {
        "average:3@step2": [0, 1, 2],
        "average:3@step4": [1, 2, 4],
        "average:3@step8": [2, 4, 8],
    }
    assert parts(select(series, "ema:0.9")) == {f"ema:0.9@step{s}": list(STEPS[: n + 1]) for n, s in enumerate(STEPS)}
    assert parts(select(series, "average:1..4")) == {"average:1..4@step4": [1, 2, 4]}


def test_an_average_has_the_place_of_its_last_checkpoint(series):
    [found] = select(series, "average:5")
    assert (found.step, found.total_step, found.commit, found.on_hub) == (8, 8, None, False)
    assert (averaging_of(found.revision), found.branch, found.last) == ("average:5", "average:5", series[-1])


def test_words_before_it_select_what_is_averaged(series):
    assert parts(select(series, "every:2 average:2")) == {"average:2@step2": [0, 2], "average:2@step8": [2, 8]}
    assert parts(select(series, "0..2 ema:0.5")) == {
        "ema:0.5@step0": [0],
        "ema:0.5@step1": [0, 1],
        "ema:0.5@step2": [0, 1, 2],
    }


def test_one_average_by_its_name(series):
    assert parts(select(series, "average:3@step4")) == {"average:3@step4": [1, 2, 4]}
    with pytest.raises(LmsatError, match="no average ends with step1: the first is average:3@step2"):
        select(series, "average:3@step1")


def test_an_average_follows_its_last_checkpoint(series):
    found = [each.name for each in select(series, ["average:4", "ema:0.9", "4..8"])]
    assert found[3:] == ["step4", "average:4@step4", "ema:0.9@step4", "step8", "average:4@step8", "ema:0.9@step8"]


def test_runs_and_stages_are_averaged_each_by_itself():
    names = [f"{run}/stage{stage}-step{step}" for run in ("seed1", "seed2") for stage in (1, 2) for step in (1, 2)]
    read = parse_series(names)
    checkpoints = in_order(
        [
            Checkpoint(model="m", pretrained="o/m", revision=name, run=p.run, stage=p.stage, step=p.step, commit=name)
            for name, p in read.items()
        ]
    )
    for each in select(checkpoints, "average:2"):
        assert len({(part.run, part.stage) for part in each.parts}) == 1
        assert each.parts[0].step == 1
    assert len(select(checkpoints, "average:2")) == 4


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        ("average:6", "m has 5 of these checkpoints: average fewer"),
        ("average:1", "give a number of checkpoints, 2 or more"),
        ("average:x", "give a number of checkpoints, 2 or more"),
        ("average:8..8", "m has 1 of these checkpoints: give a wider range"),
        ("average:9..", "no checkpoint of such a step"),
        ("ema:1", "has to be between 0 and 1"),
        ("ema:0.0", "has to be between 0 and 1"),
        ("ema:", "has to be between 0 and 1"),
        ("average:2 average:2", "averages cannot be averaged"),
    ],
)
def test_one_sentence_for_what_cannot_be_averaged(series, selection, sentence):
    with pytest.raises(LmsatError, match=sentence):
        select(series, selection)


def test_how_many_checkpoints_are_needed_at_once():
    assert longest_average(["all", "log:20 average:5", "average:3", "ema:0.9", "average:10..200", 7]) == 5
    assert longest_average(["all"]) == 1


def test_decay():
    assert decay_of(SimpleNamespace(revision="ema:0.95@step7")) == 0.95
    assert decay_of(SimpleNamespace(revision="average:5@step7")) is None
