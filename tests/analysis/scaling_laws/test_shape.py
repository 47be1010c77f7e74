"""The loss by shape at a fixed size: against a law it was made with, and simulations."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from lmsat_plugin.analysis import shape_dependence
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.figures import plot


def shapes(rng, models=30, noise=0.004, sizes=None) -> pd.DataFrame:
    sizes = 10 ** rng.uniform(6, 9, models) if sizes is None else sizes
    aspect = np.exp(rng.uniform(np.log(5), np.log(200), len(sizes)))
    x = np.log(aspect / 40)
    ln_loss = np.log((8.8e13 / sizes) ** 0.076) + 0.01 * x + 0.008 * x**2
    loss = np.exp(ln_loss + noise * rng.standard_normal(len(sizes)))
    names = [f"m{i}" for i in range(len(sizes))]
    return pd.DataFrame({"model": names, "n_params": sizes, "loss": loss, "hidden_size": aspect * 8, "n_layers": 8})


def test_shape_recovers_the_law_it_was_made_with():
    found = shape_dependence(shapes(np.random.default_rng(0), noise=0))
    x_mean = math.log(found.aspect_mean / 40)
    assert found.alpha_n.value == pytest.approx(0.076)
    assert found.curvature.value == pytest.approx(0.008)
    assert found.slope.value == pytest.approx(0.01 + 2 * 0.008 * x_mean)
    assert found.best_aspect == pytest.approx(40 * math.exp(-0.01 / 0.016), rel=0.01)
    assert found.residual == pytest.approx(0, abs=1e-9)


def test_shape_intervals_hold_the_truth():
    rng, hits = np.random.default_rng(1), 0
    for seed in range(60):
        found = shape_dependence(shapes(rng, 16), repetitions=300, seed=seed)
        hits += found.curvature.low <= 0.008 <= found.curvature.high
    assert 46 <= hits <= 60


def test_groups_of_one_size():
    sizes = np.array([1e7, 1.05e7, 1.1e7, 1e8, 1.05e8, 1e9, 3e9, 9e9])
    table = shapes(np.random.default_rng(2), sizes=sizes, noise=0).sample(frac=1, random_state=0)
    found = shape_dependence(table)
    assert [one.models for one in found.groups] == [("m0", "m1", "m2"), ("m3", "m4")]
    first = table[table.model.isin(["m0", "m1", "m2"])]
    assert found.groups[0].loss_spread == pytest.approx(first.loss.max() / first.loss.min() - 1)
    aspect = first.hidden_size / first.n_layers
    assert found.groups[0].aspect_span == pytest.approx(aspect.max() / aspect.min())
    at_n = first.loss * first.n_params**0.076
    assert found.groups[0].loss_spread_at_n == pytest.approx(at_n.max() / at_n.min() - 1)
    json.dumps(found.to_dict(), allow_nan=False)
    labels = [text.get_text() for text in plot(found).axes[0].get_legend().get_texts()]
    assert labels == ["about 1e7 parameters", "about 1e8 parameters", "alone of its size", "regression"]


def test_too_few_shapes_are_refused():
    table = shapes(np.random.default_rng(3), 10)
    with pytest.raises(LmsatError, match="do not tell shape from size"):
        shape_dependence(table[:7])
    with pytest.raises(LmsatError, match="do not tell shape from size"):
        shape_dependence(table.assign(hidden_size=64))
    with pytest.raises(LmsatError, match="do not vary apart"):
        shape_dependence(table.assign(hidden_size=8 * np.sqrt(table.n_params)))
    with pytest.raises(LmsatError, match="several rows"):
        shape_dependence(pd.concat([table, table]))
    last = pd.concat([table.assign(step=1, loss=9.0), table.assign(step=2)])
    assert shape_dependence(last).alpha_n == shape_dependence(table).alpha_n
