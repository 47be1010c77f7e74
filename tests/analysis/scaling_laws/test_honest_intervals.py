"""Intervals that say what they know: null where the data say nothing, of a new run, and with under-tuned runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from law_tables import chinchilla_table
from places import PUBLISHED

from lmsat_plugin.analysis import fit
from lmsat_plugin.errors import LmsatError

LADDER = PUBLISHED / "olmo_ladder.csv"
PARAMS = {"190M": 190354176, "370M": 371262464, "760M": 758220288, "1B": 1279395840, "7B": 6887575552}
PARAMS["13B"] = 13202396160
TOKENS = {"7B": 3945065873408, "13B": 5000088518656}


def table_of(n, d, *, noise=0.005, seed=0, E=1.8, A=480.0, B=2000.0):
    rng = np.random.default_rng(seed)
    loss = (E + A / n**0.35 + B / d**0.366) * np.exp(noise * rng.standard_normal(len(n)))
    return pd.DataFrame({"model": np.arange(len(n)), "n_params": n, "tokens": d, "loss": loss})


def spread(seed=0, runs=30):
    rng = np.random.default_rng(seed)
    return np.exp(rng.uniform(np.log(7e7), np.log(1.6e10), runs)), np.exp(rng.uniform(np.log(5e9), np.log(5e11), runs))


def test_the_optima_of_one_sweep_say_nothing_of_the_exponents():
    n = np.geomspace(1e7, 1e10, 20)
    found = fit("chinchilla", table_of(n, 20 * n), repetitions=100)
    for name in ("A", "B", "alpha", "beta"):
        assert found.params[name].low is found.params[name].high is None
        assert "go together" in found.params[name].reason
    assert found.params["E"].low is not None
    for one in found.derived.values():
        assert one.low is None
        assert "go together" in one.reason
    assert sum("go together" in warning for warning in found.warnings) == 1


@pytest.mark.parametrize(("gone", "nulls"), [("E", {"E"}), ("A", {"A", "alpha"}), ("B", {"B", "beta"})])
def test_a_term_that_is_not_there_has_no_interval(gone, nulls):
    n, d = spread()
    found = fit("chinchilla", table_of(n, d, **{gone: 0.0}, noise=0.0), {}, repetitions=50)
    null = {name for name, one in found.params.items() if one.low is None}
    assert null == nulls
    assert all(f"{gone} goes to 0" in found.params[name].reason for name in nulls)
    assert (found.derived["a"].low is None) == (gone != "E")


def test_an_exponent_at_its_bound_has_no_interval():
    n, d = spread()
    table = table_of(n, d, A=0.0, noise=0.0)
    table["loss"] += np.where(n < 1.2 * n.min(), 0.5, 0.0)
    found = fit("chinchilla", table, repetitions=50)
    assert "the bound of what is searched" in found.params["alpha"].reason
    assert found.params["alpha"].low is found.params["A"].low is None
    assert found.params["beta"].low is not None


def test_few_runs_have_a_reason():
    n, d = spread(runs=7)
    found = fit("chinchilla", table_of(n, d), repetitions=50)
    assert all(one.low is None and "need 8 runs, here are 7" in one.reason for one in found.params.values())


def test_intervals_of_new_runs_hold_them():
    """1,000 tables are in benchmarks/fits.py."""
    inside, of_law = [], []
    for seed in range(12):
        n, d = spread(seed, 24)
        new = table_of(*spread(100 + seed, 30), seed=200 + seed)
        rows = fit("chinchilla", table_of(n, d, seed=seed), repetitions=100).predict(new).rows
        assert (rows.low <= rows.mean_low).all()
        assert (rows.high >= rows.mean_high).all()
        inside += list((rows.low <= rows.observed) & (rows.observed <= rows.high))
        of_law += list((rows.mean_low <= rows.observed) & (rows.observed <= rows.mean_high))
    assert 0.8 <= np.mean(inside) <= 0.97
    assert np.mean(of_law) < 0.75


@pytest.mark.skipif(not LADDER.exists(), reason="the published ladder is not here")
def test_larger_runs_of_the_ladder_lie_inside():
    last = pd.read_csv(LADDER).query("task == 'hellaswag_val'").sort_values("step").groupby("model").tail(1)
    n = last["size"].map(PARAMS)
    tokens = (20 * n * last.model.str.extract(r"-(\d+)xC")[0].astype(float)).fillna(last["size"].map(TOKENS))
    table = last.assign(n_params=n, tokens=tokens, loss=last.c4_loss)
    small = table["size"].isin(["190M", "370M", "760M"])
    rows = fit("chinchilla", table[small], repetitions=300).predict(table[~small]).rows
    assert len(rows) == 7
    assert ((rows.low <= rows.observed) & (rows.observed <= rows.high)).sum() >= 5


def test_far_rows_are_named_with_the_constants_without_them():
    table = chinchilla_table(30, seed=3)
    clean = fit("chinchilla", table.drop(index=4), repetitions=0)
    table.loc[4, "loss"] *= 1.6
    found = fit("chinchilla", table, repetitions=0)
    assert [one.row for one in found.outliers.rows] == [5]
    assert found.outliers.rows[0].deviations > 10
    assert found.outliers.params == pytest.approx({name: one.value for name, one in clean.params.items()}, rel=1e-4)
    assert fit("chinchilla", table.drop(index=4), repetitions=0).outliers is None


def test_the_held_out_error_of_a_robust_fit_is_that_of_runs_it_keeps():
    table = table_of(*spread())
    largest = table.n_params.nlargest(6).index
    table.loc[largest[:2], "loss"] *= 1.1
    plain, robust = (fit("chinchilla", table, repetitions=0, robust=one).held_out for one in (False, True))
    assert plain.n_trimmed == 0
    assert plain.mean_absolute_gap > 0.03
    assert robust.n_trimmed >= 1
    assert robust.n_points >= 4
    assert robust.mean_absolute_gap < plain.mean_absolute_gap
    assert not set(map(str, largest[:2])) & set(robust.models)


def test_robust_fits_leave_out_what_lies_above():
    """Their coverage is in benchmarks/fits.py."""
    table = chinchilla_table(60, seed=4)
    bad = np.random.default_rng(0).permutation(60)[:12]
    table.loc[bad, "loss"] *= 1.08
    found = fit("chinchilla", table, repetitions=0, robust=True)
    assert {one.row - 1 for one in found.trimmed} >= set(bad)
    assert len(found.trimmed) <= 16
    assert all(one.deviations > 0 for one in found.trimmed)
    clean = fit("chinchilla", table.drop(index=[one.row - 1 for one in found.trimmed]), repetitions=0)
    assert found.params["E"].value == pytest.approx(clean.params["E"].value, rel=1e-6)


def test_misfits_are_said():
    n, d = np.repeat(np.geomspace(1e7, 1e9, 6), 2), np.repeat(np.geomspace(1e9, 1e11, 6), 2)[::-1]
    table = table_of(n, d + 1e9 * (np.arange(12) // 4), noise=0.0005)
    table["loss"] *= 1 + 0.05 * np.sin(3 * np.log(n))
    assert any("times the noise" in warning for warning in fit("chinchilla", table, repetitions=0).warnings)
    n, d = spread()
    bent = table_of(n, d, noise=0.0)
    bent["loss"] += np.where(n > 5e9, 0.4, 0.0)
    assert any("does not extrapolate" in warning for warning in fit("chinchilla", bent, repetitions=0).warnings)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"loss": 3.0}, "all losses are 3"),
        ({"step": -5}, "row 1 has step=-5"),
        ({"step": 2.5}, "row 1 has step=2.5"),
        ({"n_params": 1e308}, "row 1 has n_params=1e\\+308"),
        ({"loss": 5e-324}, "row 1 has loss="),
        ({"tokenizer": ["a", "b"] * 15}, "the tokenizers a, b"),
        ({"vocab_size": [32000, 50257] * 15}, "vocabularies of 32000 to 50257"),
    ],
)
def test_what_cannot_be_is_refused(columns, sentence):
    with pytest.raises(LmsatError, match=sentence):
        fit("chinchilla", table_of(*spread()).assign(**columns), repetitions=0)
