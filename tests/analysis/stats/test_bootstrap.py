"""The bootstrap against scipy's, which gathers each sample, and against what is known of percentiles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lmsat_plugin.analysis.stats.bootstrap import (
    CONFIDENCE,
    NORMAL,
    TAIL,
    interval,
    p_value,
    resample,
    resampled_sums,
    weights,
)

DOCUMENTS, REPETITIONS = 60, 20_000


@pytest.fixture(scope="module")
def documents() -> tuple[np.ndarray, np.ndarray]:
    """Return nats and tokens of documents that are not alike."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(50, 600, DOCUMENTS).astype(float)
    return tokens * rng.lognormal(1.0, 0.4, DOCUMENTS), tokens


def ratio(nats, tokens, axis=-1):
    return nats.sum(axis) / tokens.sum(axis)


@pytest.mark.parametrize(("method", "corrected"), [("percentile", False), ("BCa", True)])
def test_the_interval_is_scipys_within_the_error_of_simulation(documents, method, corrected):
    """BCa also corrects for skewness, which moves the ends of this ratio little."""
    nats, tokens = documents
    theirs = stats.bootstrap(
        documents,
        ratio,
        paired=True,
        n_resamples=REPETITIONS,
        confidence_level=CONFIDENCE,
        method=method,
        rng=np.random.default_rng(1),
    )
    sums = resampled_sums(np.column_stack(documents), REPETITIONS, seed=2)
    samples = sums[:, 0] / sums[:, 1]
    mine = interval(samples, estimate=float(ratio(nats, tokens)) if corrected else None)
    # The standard error of a quantile of a normal sample: √(p (1 − p) / R) / density, of either bootstrap.
    error = theirs.standard_error * np.sqrt(2 * TAIL * (1 - TAIL) / REPETITIONS) / stats.norm.pdf(NORMAL)
    skewness = 0.15 * theirs.standard_error if corrected else 0.0
    np.testing.assert_allclose(mine, theirs.confidence_interval, atol=4 * error + skewness)
    assert samples.std() == pytest.approx(theirs.standard_error, rel=0.03)


def test_sums_are_those_of_the_counts(monkeypatch, documents):
    """Whatever number of samples is held at once; the sums of ones are the units, of one unit its counts."""
    values = np.column_stack(documents)
    whole = resampled_sums(values, 50, seed=3)
    counts = resampled_sums(np.eye(DOCUMENTS), 50, seed=3)
    np.testing.assert_allclose(whole, counts @ values)
    assert (counts.sum(1) == DOCUMENTS).all()
    assert (counts == counts.round()).all()
    monkeypatch.setattr("lmsat_plugin.analysis.stats.bootstrap._COUNTS_AT_ONCE", 7 * DOCUMENTS)
    np.testing.assert_allclose(resampled_sums(values, 50, seed=3), whole, rtol=1e-14)


def test_counts_are_of_draws_with_replacement():
    counts = resample(9, 4000, seed=4)
    assert (counts.sum(1) == 9).all()
    # Each is binomial with n = 9 and p = 1/9.
    np.testing.assert_allclose(counts.mean(0), 1, atol=0.08)
    np.testing.assert_allclose(counts.var(0), 8 / 9, rtol=0.12)
    accepted = resample(9, 500, seed=4, accept=lambda counts: counts[:, 0] > 0)
    assert len(accepted) == 500
    assert (accepted[:, 0] > 0).all()


def test_percentiles_are_shifted_by_the_correction():
    samples = np.random.default_rng(0).standard_normal(100_000)
    np.testing.assert_allclose(interval(samples), [-NORMAL, NORMAL], atol=0.02)
    # The estimate is the samples' quantile of z = 0.5, so that both ends move up by 2 · 0.5.
    np.testing.assert_allclose(interval(samples, estimate=0.5), [1 - NORMAL, 1 + NORMAL], atol=0.04)
    np.testing.assert_allclose(interval(samples, confidence=0.5), [-0.6745, 0.6745], atol=0.02)


def test_unknown_ends():
    samples = np.arange(100.0)
    assert interval(np.array([])) is None
    assert interval(samples, estimate=np.inf) is None
    # Few samples that are NaN are left out; more than lie beyond an end hide it.
    assert interval(np.r_[samples, np.full(5, np.nan)]) == interval(samples)
    assert interval(np.r_[samples, np.full(7, np.nan)]) is None
    # Percentiles are values of samples, so that an end may be infinite and none is a mean with infinity.
    assert interval(np.r_[samples[:94], np.full(6, np.inf)]) == (4, np.inf)


def test_p_values_are_never_zero():
    assert (p_value(0, 999), p_value(999, 999)) == (0.001, 1.0)


def test_weights_are_dirichlet_s():
    found = weights(5, 20_000, seed=0)
    assert found.sum(1) == pytest.approx(np.full(20_000, 5))
    assert (found > 0).all()
    assert found.mean(0) == pytest.approx(np.ones(5), abs=0.03)
    # Var of G·Dirichlet(1, ..., 1) is (G − 1) / (G + 1).
    assert found.var(0) == pytest.approx(np.full(5, 4 / 6), rel=0.05)
