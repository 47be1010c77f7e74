"""Hindcasts: Brier scores by hand, base rates without the run itself, and nothing of what was to come."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from training_runs import STEPS, falling, table_of

from lmsat_plugin.analysis import find_saturation
from lmsat_plugin.analysis.saturation.hindcasts import (
    PUBLISHED_ERROR,
    PUBLISHED_RUNS,
    PUBLISHED_SATURATING,
    Hindcast,
    base_rate,
    chance,
    hindcasts,
    reliability,
    skill_of,
    widened,
)
from lmsat_plugin.analysis.saturation.own_future import OwnFuture
from lmsat_plugin.analysis.stats.bootstrap import Estimate

RISING = (1, 3)


@pytest.fixture(scope="module")
def table():
    """Return the losses of five runs, of which two saturate."""
    rng = np.random.default_rng(0)
    rises = [0.1 * (np.arange(28) >= 17) * (run in RISING) for run in range(5)]
    return pd.concat([table_of(falling(rng) + rise, model=f"m{run}") for run, rise in enumerate(rises)])


@pytest.fixture(scope="module")
def verdicts(table):
    return find_saturation(table)


def hindcast(label, p, base, saturates, **others):
    """Return a hindcast from a run's end, so that its chance is that of its own curve."""
    given = {"own": OwnFuture(p, now=3.0, gain=Estimate(0.1, 0.09, 0.11)), "observed_gain": 0.1, **others}
    return Hindcast(label=label, share=0.5, seen=1.0, p_base_rate=base, saturates=saturates, **given)


def test_brier_scores_are_means_of_squares():
    skill = skill_of([hindcast("a", 0.9, 0.5, True), hindcast("a", 0.8, 0.5, True), hindcast("b", 0.3, 0.5, False)])
    assert skill.brier == pytest.approx((0.01 + 0.04 + 0.09) / 3)
    assert skill.brier_base_rate == pytest.approx(0.25)
    assert (skill.runs, skill.hindcasts) == (2, 3)
    assert "0.047 and the base rate's 0.250: better than the base rate" in skill.sentence()
    even = skill_of([hindcast("a", 0.9, 0.5, True), hindcast("b", 0.9, 0.5, False)])
    assert not even.better
    assert even.sentence().endswith("no better than the base rate.")
    assert not skill_of([hindcast("a", 0.9, 0.5, True)]).better


def test_classes_of_chances_count_what_came_true():
    found = [hindcast(f"m{i}", p, 0.2, happened) for i, (p, happened) in enumerate([(0.3, 1), (0.32, 0), (0.9, 1)])]
    low, high = reliability(found)
    assert low == (pytest.approx(np.mean([one.p_saturates for one in found[:2]])), 0.5, 2)
    assert high == (pytest.approx(found[2].p_saturates), 1.0, 1)


def test_forecasts_that_do_not_know_are_rarely_called_better():
    rng = np.random.default_rng(1)
    called = 0
    for _ in range(200):
        happened = rng.random(40) < 0.5
        called += skill_of([hindcast(str(k), rng.choice([0.4, 0.6]), 0.5, y) for k, y in enumerate(happened)]).better
    assert called <= 20


def test_the_base_rate_is_that_of_the_others(verdicts):
    assert {one.verdict == "saturates" for one in verdicts} == {True, False}
    others = [one for one in verdicts if one.model != "m1"]
    assert base_rate(others)[:3] == ((1 + 0.5) / 5, 1, 4)
    unjudged = [*others, replace(others[0], p_value=None)]
    assert base_rate(unjudged)[:3] == (0.3, 1, 4)
    assert base_rate(others[:2]).value == PUBLISHED_SATURATING / PUBLISHED_RUNS
    assert base_rate(others[:2]).source == "published runs"
    assert chance(0.8, 0.2, 0.75) == pytest.approx(0.65)


def test_hindcasts_know_nothing_of_what_was_to_come(table, verdicts):
    found = hindcasts(verdicts, repetitions=30)
    assert [(one.label, one.share) for one in found] == [
        (f"m{run}", share) for run in range(5) for share in (0.3, 0.5, 0.7)
    ]
    assert [one.saturates for one in found[::3]] == [run in RISING for run in range(5)]
    assert {one.p_base_rate for one in found if one.saturates} == {1.5 / 5}
    assert {one.p_base_rate for one in found if not one.saturates} == {2.5 / 5}
    later = table.step > 0.7 * STEPS[-1]
    changed = table.assign(loss=table.loss.where(~later, table.loss + 0.3 * (table.model == "m0")))
    again = hindcasts(find_saturation(changed), repetitions=30)
    assert [one.own.gain for one in again] == [one.own.gain for one in found]
    assert again[2].saturates
    assert not found[2].saturates
    by_share = {share: [one for one in found if one.share == share] for share in (0.3, 0.7)}
    assert skill_of(by_share[0.7]).brier < skill_of(by_share[0.7]).brier_base_rate


def test_intervals_are_as_wide_as_the_errors_of_others():
    own = OwnFuture(0.1, now=2.0, gain=Estimate(0.05, 0.04, 0.06))
    others = [hindcast(str(k), 0.1, 0.1, False, observed_gain=0.1 + 0.03 * k) for k in range(20)]
    # Of 20 errors 0.01 k, the 19th: ceil(0.9 * 21).
    wide = widened(own, 0.5, others)
    assert (wide.value, wide.low, wide.high) == pytest.approx((0.05, 0.05 - 0.36, 0.05 + 0.36))
    near = widened(own, 0.85, others)
    assert near.low == pytest.approx(0.05 - 0.18)
    assert widened(own, 1.0, others) == own.gain
    assert widened(own, 0.5, others[:2]).high == pytest.approx(0.05 + 2 * PUBLISHED_ERROR)
