"""Sample efficiency against the closed form of a law, and on the published losses of Pythia."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from places import PYTHIA_LOSSES

from lmsat_plugin.analysis import sample_efficiency
from lmsat_plugin.analysis.scaling_laws.allocation import HOFFMANN
from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError

SIZES = (1e7, 3e7, 1e8, 3e8, 1e9)


def table_of(rows, columns=("model", "n_params", "tokens", "loss")) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture(scope="module")
def chinchilla() -> pd.DataFrame:
    """Return checkpoints on a law, dense enough that a straight line between two of them is the curve."""
    return table_of([(f"m{n:.0e}", n, t, HOFFMANN.loss(n, t)) for n in SIZES for t in np.geomspace(1e8, 3e12, 2000)])


def test_tokens_to_a_loss_are_those_of_the_law(chinchilla):
    found = sample_efficiency(chinchilla, [3.5, 3.0])
    for one in found.reached:
        left = one.loss - HOFFMANN.E - HOFFMANN.A / one.n_params**HOFFMANN.alpha
        tokens = (HOFFMANN.B / left) ** (1 / HOFFMANN.beta) if left > 0 else math.inf
        if tokens > 3e12:
            assert (one.tokens, one.low) == (None, pytest.approx(3e12))
            continue
        assert one.tokens == pytest.approx(tokens, rel=1e-4)
        assert one.low <= one.tokens <= one.high
        assert one.flops == pytest.approx(6 * one.n_params * one.tokens)
    by_loss = [[one for one in found.reached if one.loss == best.loss] for best in found.best]
    for best, there in zip(found.best, by_loss, strict=True):
        least = min((one for one in there if one.flops), key=lambda one: one.flops)
        assert best.compute_optimal == least.model
        for one, after in itertools.pairwise(there):
            if one.tokens:
                doublings = math.log2(after.n_params / one.n_params)
                assert one.ratio == pytest.approx(after.tokens / one.tokens)
                assert (1 - one.saved) ** doublings == pytest.approx(one.ratio)
    assert found.best[0].compute_optimal == "m1e+08"
    assert not found.best[0].at_edge


def test_diminishing_returns(chinchilla):
    found = sample_efficiency(chinchilla, [3.5], fewest_saved=0.3)
    saved = {one.model: one.saved for one in found.reached if one.saved is not None}
    # From there on all save less, and the one before saves more.
    names = list(saved)
    start = names.index(found.best[0].diminishing_from)
    assert all(saved[name] < 0.3 for name in names[start:])
    assert saved[names[start - 1]] >= 0.3
    assert sample_efficiency(chinchilla, [3.5], fewest_saved=0.01).best[0].diminishing_from is None


def test_a_loss_that_rises_again_changes_nothing():
    rows = [("a", 1e6, 1e6, 5.0), ("a", 1e6, 1e7, 4.0), ("a", 1e6, 1e8, 4.5), ("a", 1e6, 1e9, 3.0)]
    first, second, third = sample_efficiency(table_of(rows[::-1]), [4.5, 3.5, 4.0]).reached
    assert first.tokens == pytest.approx(10**6.5)
    # The least so far is 4.0 at 1e8, too.
    assert second.tokens == pytest.approx(10**8.5)
    assert (second.low, second.high) == (1e8, 1e9)
    assert third.tokens == pytest.approx(1e7)


def test_upper_bounds_and_flops_of_ones_own():
    rows = [("a", 1e6, 0, 9.0, 0), ("a", 1e6, 1e6, 5.0, 2e13), ("a", 1e6, 1e8, 3.0, 2e15)]
    rows += [("b", 4e6, 1e6, 4.0, 3e13), ("b", 4e6, 1e8, 3.5, 3e15)]
    found = sample_efficiency(table_of(rows, ("model", "n_params", "tokens", "loss", "flops")), [4.0])
    a, b = found.reached
    assert (a.tokens, a.flops) == (pytest.approx(1e7), pytest.approx(2e14))
    assert b.at_most
    assert (b.tokens, b.low, b.flops) == (1e6, None, 3e13)
    # Nothing is said of a saving or an optimum where one is an upper bound.
    assert (a.ratio, found.best[0].compute_optimal) == (None, None)


@pytest.mark.skipif(not PYTHIA_LOSSES.exists(), reason="needs the digitised losses of Pythia")
def test_pythia(capsys, tmp_path):
    figure = tmp_path / "figure.png"
    assert (
        main(["efficiency", str(PYTHIA_LOSSES), "--loss", "3.2", "--loss", "3.0", "--json", "--figure", str(figure)])
        == 0
    )
    out, _ = capsys.readouterr()
    found = {(one["model"], one["loss"]): one for one in json.loads(out)["reached"]}
    # 160M: 3.204 at step 60k, 3.208 at 65k, 3.182 at 70k; 410M: 3.286 at 5k, 3.121 at 10k.
    small, large = found["pythia-160m", 3.2], found["pythia-410m", 3.2]
    assert (small["low"], small["high"]) == (65_000 * 2_097_152, 70_000 * 2_097_152)
    assert (large["low"], large["high"]) == (5_000 * 2_097_152, 10_000 * 2_097_152)
    assert found["pythia-160m", 3.0]["tokens"] is None
    assert figure.stat().st_size > 10_000
    assert main(["efficiency", str(PYTHIA_LOSSES), "--loss", "3.2"]) == 0
    assert "Least compute: pythia-410m" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "losses", "what"),
    [
        ({}, [2.0], "no model reaches"),
        ({}, [math.nan], "give nats per token"),
        ({}, [], "there is no loss to reach: give some, in nats per token"),
        ({"tokens": 1e6}, [4.0], "several checkpoints"),
        ({"tokens": -1.0}, [4.0], "tokens=-1"),
        ({"n_params": [1.0, 2.0]}, [4.0], "2 values of n_params"),
        ({"loss": [400.0, 300.0]}, [4.0], "perplexities"),
        ({"model": None}, [4.0], "no column 'model'"),
    ],
)
def test_bad_tables(change, losses, what):
    table = table_of([("a", 1e6, 1e6, 5.0), ("a", 1e6, 1e7, 3.0)]).assign(**change)
    if change == {"model": None}:
        table = table.drop(columns="model")
    with pytest.raises(LmsatError, match=what):
        sample_efficiency(table, losses)


def test_several_runs_of_one_size_are_compared_with_their_like():
    """Runs whose schedule is longer fall later, as a learning rate does: they are no match for short ones."""

    def run(n, ratio):
        tokens = ratio * n * np.linspace(0.1, 1, 200)
        late = 0.2 * (1 - tokens / tokens[-1])
        return [(f"{n:.0e}-{ratio}", n, t, HOFFMANN.loss(n, t) + extra) for t, extra in zip(tokens, late, strict=True)]

    table = table_of([row for n in (1e8, 2e8) for ratio in (20, 100) for row in run(n, ratio)])
    found = {one.model: one for one in sample_efficiency(table, [3.4]).reached}
    assert (found["1e+08-100"].next_model, found["1e+08-100"].compared) == ("2e+08-100", "same ratio")
    assert found["1e+08-100"].ratio == pytest.approx(found["2e+08-100"].tokens / found["1e+08-100"].tokens)
    apart = table[table.model.isin(["1e+08-100", "1e+08-20", "2e+08-20"])].replace("2e+08-20", "other")
    apart = pd.concat([apart[apart.model != "other"], table_of(run(2e8, 50))], ignore_index=True)
    found = {one.model: one for one in sample_efficiency(apart, [3.4]).reached}
    best, other = sorted((found["1e+08-20"], found["1e+08-100"]), key=lambda one: one.tokens)
    assert (best.compared, other.compared, other.ratio) == ("frontier", None, None)
    single = {one.model: one for one in sample_efficiency(table[table.model.str.endswith("-100")], [3.4]).reached}
    assert single["1e+08-100"].compared == "only runs"
