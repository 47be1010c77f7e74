"""Emergence against thresholds, noise and curves that are known, and against plain formulas."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from emergence_scores import CHANCE, RISES, SMOOTH, table_of, verdict
from places import PYTHIA_EVALS, PYTHIA_LOSSES
from scipy import stats
from scipy.optimize import curve_fit

from lmsat_plugin.analysis import find_emergence
from lmsat_plugin.results import load_results


@pytest.mark.parametrize("metric", CHANCE)
@pytest.mark.parametrize("rise", RISES)
def test_thresholds_are_found_and_covered(rise, metric):
    found = [verdict(table_of(seed, RISES[rise], metric)) for seed in range(4)]
    emergent = [one for one in found if one.emergent]
    assert len(emergent) >= 3
    assert sum(one.low <= 2.2 <= one.high for one in emergent) >= len(emergent) - 1
    assert np.median([abs(one.threshold - 2.2) for one in emergent]) < 0.04
    assert np.median([one.high - one.low for one in emergent]) < 0.15


@pytest.mark.parametrize("metric", CHANCE)
@pytest.mark.parametrize("curve", SMOOTH)
def test_smooth_curves_have_no_threshold(curve, metric):
    found = [verdict(table_of(seed, SMOOTH[curve], metric)) for seed in range(4)]
    assert not any(one.emergent for one in found)
    assert all(one.threshold is one.low is one.high is None for one in found)
    if curve != "slow logistic":
        assert sum(one.emergent is False for one in found) >= 3


def test_threshold_beside_an_ordinary_fit():
    table = table_of(1, RISES["line"], sd=0.0, questions=100_000)
    found = verdict(table)
    (eta, _, _), _ = curve_fit(
        lambda loss, eta, rate, base: base + rate * np.maximum(eta - loss, 0), table.loss, table.score, [2.1, 1, 0.25]
    )
    assert found.emergent
    assert found.threshold == pytest.approx(eta, abs=0.01)
    assert found.low < eta < found.high < found.low + 0.05


def test_never_leaving_chance_has_no_threshold():
    found = verdict(table_of(0, lambda loss: 0 * loss))
    assert (found.emergent, found.threshold) == (None, None)
    assert f"below {table_of(0, lambda loss: 0 * loss).loss.min():.3f}" in found.reason


def test_worse_than_chance_improving_to_it_is_not_learning():
    found = verdict(table_of(0, lambda loss: -0.3 * np.maximum(loss - 1.75, 0), "brier_score"))
    assert (found.emergent, found.threshold) == (None, None)
    assert "worse than chance count as chance" in found.reason
    # Beyond chance it is, from where chance is crossed on.
    crossing = [verdict(table_of(seed, lambda loss: 1.0 * (2.2 - loss), "brier_score")) for seed in range(5)]
    assert sum(bool(one.emergent) and abs(one.threshold - 2.2) < 0.06 for one in crossing) >= 4


def test_a_plateau_above_chance_is_no_absence():
    found = verdict(table_of(0, lambda loss: 0.15 + RISES["line"](loss)))
    assert (found.emergent, found.threshold) == (False, None)
    assert "above chance by 0.1" in found.reason
    without = table_of(0, lambda loss: 0.15 + RISES["line"](loss)).drop(columns="chance")
    found = verdict(without)
    assert found.chance is None
    assert found.emergent
    assert "chance is not known" in found.reason


def test_improvement_before_a_break_is_from_the_start():
    found = verdict(table_of(0, lambda loss: 0.1 * (3.0 - loss) - 0.05 + RISES["line"](loss)))
    assert found.emergent is False


@pytest.mark.parametrize(
    ("keep", "reason"),
    [
        (lambda table: table[table.model == "run-0"], "the runs of 1 model cannot"),
        (lambda table: table[table.model.isin(["run-0", "run-4"])], "the runs of 2 models cannot"),
        (lambda table: table.groupby("model").head(2), "10 checkpoints are too few"),
        (lambda table: table.assign(loss=2.0), "all alike"),
        (lambda table: table[table.loss > 2.25], "no change|explain the scores alike"),
    ],
)
def test_too_little_to_tell(keep, reason):
    found = verdict(keep(table_of(0, RISES["line"], models=5)))
    assert (found.emergent, found.threshold) == (None, None)
    assert pd.Series([found.reason]).str.contains(reason).all()


def test_one_model_below_the_break_is_not_enough():
    table = table_of(0, RISES["line"], models=5)
    found = verdict(table[(table.loss > 2.25) | (table.model == "run-0")])
    assert found.emergent is None


def test_correlations_are_scipys():
    table = table_of(0, RISES["line"])
    found = verdict(table)
    assert found.spearman == pytest.approx(stats.spearmanr(table.loss, table.score).statistic)
    assert found.pearson == pytest.approx(stats.pearsonr(table.loss, table.score).statistic)
    assert found.pearson < 0


def test_plain_data_is_json_and_repeats():
    table = table_of(0, RISES["line"])
    data = verdict(table).to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert verdict(table.sample(frac=1, random_state=1)).to_dict() == data


def test_pythia_shows_no_threshold():
    """Pythia's tasks improve from the start or stay at chance (Du et al. 2024, App. F)."""
    if not PYTHIA_LOSSES.is_file():
        pytest.skip("needs ../shared/data")
    curve = pd.read_csv(PYTHIA_LOSSES)
    results = load_results(PYTHIA_EVALS)
    results["model"] = "pythia-" + results.model.str.extract(r"-(\d+m)$")[0]
    results = results[results.task.isin(["sciq", "lambada_openai", "piqa", "logiqa"])]
    results = results[(results.metric == "acc") & (results.step >= 5000)].drop(columns="vocab_size")
    for model, rows in results.groupby("model"):
        own = curve[curve.model == model].sort_values("step")
        results.loc[rows.index, "loss"] = np.interp(np.log(rows.step.astype(float)), np.log(own.step), own.loss)
    found = {one.task: one for one in find_emergence(results.rename(columns={"value": "score"}))}
    assert {name: one.emergent for name, one in found.items()} == {
        "sciq": False,
        "lambada_openai": False,
        "piqa": False,
        "logiqa": None,
    }
    assert found["lambada_openai"].spearman < -0.95


@pytest.mark.parametrize("run", [None, float("nan"), ""])
def test_a_table_without_runs_has_a_run_for_each_model(run):
    table = table_of(0, RISES["line"])
    assert verdict(table.assign(run=run)).to_dict() == verdict(table).to_dict()
