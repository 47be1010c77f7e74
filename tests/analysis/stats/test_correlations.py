"""Correlations against scipy.stats, ties among them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lmsat_plugin.analysis.stats.correlations import pearson, spearman


@pytest.mark.parametrize("seed", range(5))
def test_against_scipy(seed):
    draws = np.random.default_rng(seed)
    x, y = draws.normal(size=20).round(1), draws.normal(size=20).round(1)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize("values", [[1.0, 2.0], [3.0, 3.0, 3.0]])
def test_too_few_or_equal_values_have_none(values):
    assert pearson(np.array(values), np.arange(len(values))) is None
    assert spearman(np.arange(len(values)), np.array(values)) is None
