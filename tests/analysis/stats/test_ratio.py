"""The standard error of a ratio against the delete-one jackknife and scipy's bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lmsat_plugin.analysis.stats.ratio import ratio_stderr, residuals


@pytest.fixture(scope="module")
def documents() -> tuple[np.ndarray, np.ndarray]:
    """Return nats [2, M] of two models, and tokens [M]."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(200, 2000, 400).astype(float)
    return tokens * rng.normal(3, 0.5, (2, 400)), tokens


def test_against_the_jackknife(documents):
    nats, tokens = documents
    size = len(tokens)
    without = (nats.sum(1, keepdims=True) - nats) / (tokens.sum() - tokens)
    jackknife = np.sqrt((size - 1) / size * ((without - without.mean(1, keepdims=True)) ** 2).sum(1))
    np.testing.assert_allclose(ratio_stderr(nats, tokens), jackknife, rtol=0.01)


def test_against_scipys_bootstrap(documents):
    nats, tokens = documents
    found = stats.bootstrap(
        (nats[0], tokens),
        lambda nats, tokens, axis: nats.sum(axis) / tokens.sum(axis),
        paired=True,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(1),
    )
    assert ratio_stderr(nats, tokens)[0] == pytest.approx(found.standard_error, rel=0.05)


def test_it_is_that_of_a_mean_for_documents_of_one_length():
    nats = np.random.default_rng(2).normal(30, 2, 50)
    expected = stats.sem(nats / 10)
    assert ratio_stderr(nats, np.full(50, 10.0)) == pytest.approx(expected)


def test_residuals_sum_to_zero_and_a_single_document_has_no_error(documents):
    nats, tokens = documents
    np.testing.assert_allclose(residuals(nats, tokens).sum(1), 0, atol=1e-6)
    assert np.isnan(ratio_stderr(nats[:, :1], tokens[:1])).tolist() == [True, True]
