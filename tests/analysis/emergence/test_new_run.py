"""How far new runs may lie from the sigmoid: sizes that depart together, against closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from lmsat_plugin.analysis.emergence.new_run import Departures, sizes_of
from lmsat_plugin.analysis.emergence.sigmoid import sigmoid


def test_draws_have_the_jackknife_s_variance_and_that_between_sizes():
    without = np.array([[0.2, 0.9 + shift, 1.0, 4.0] for shift in (-0.02, 0.0, 0.01, 0.01)])
    sizes = np.repeat(np.arange(4), 5)
    losses = np.linspace(0.8, 1.4, 20)
    shift = np.array([0.02, -0.01, 0.03, -0.02])
    scores = sigmoid(without, losses)[sizes, np.arange(20)] + shift[sizes]
    found = Departures.of(without, losses, scores, sizes)
    assert found.between == pytest.approx(np.sqrt(np.mean(shift**2)))
    np.testing.assert_allclose(found.within_P, 0, atol=1e-12)
    at = 0.2 + np.array([0.68, 0.7, 0.71, 0.71]) / (1 + np.exp(4 * (0.9 - 1.0)))
    stderr = np.sqrt(3 / 4 * ((at - at.mean()) ** 2).sum() + np.mean(shift**2))
    drawn = found.draws(0.9, 40_000, seed=0)
    assert np.quantile(drawn, [0.05, 0.95]) == pytest.approx(stderr * t.ppf([0.05, 0.95], 3), rel=0.05)
    assert not len(found.draws(0.9, 0, seed=0))


def test_sizes_are_those_that_several_models_share():
    models = ["a-1", "a-1", "a-2", "b-1", "b-2"]
    rows = pd.DataFrame({"model": models, "size": ["60M", "60M", "60M", "1B", "1B"]})
    assert sizes_of(rows).tolist() == [0, 0, 0, 1, 1]
    assert sizes_of(rows.drop(columns="size")).tolist() == [0, 0, 1, 2, 3]
    assert sizes_of(rows.assign(size=None, n_params=[1e9, 1e9, 1e9, 6e7, 6e7])).tolist() == [1, 1, 1, 0, 0]
    # Where all models have one size, each stands for itself.
    assert sizes_of(rows.assign(size="1B")).tolist() == [0, 0, 1, 2, 3]
