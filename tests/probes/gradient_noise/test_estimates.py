"""Estimates of the gradient's noise are unbiased, and their jackknife knows their spread."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lmsat_plugin.probes.gradient_noise.estimates import GradientNoise, jackknife


@pytest.mark.parametrize("signal", [0.0, 0.3, 3.0])
def test_estimates_are_unbiased_and_jackknife_knows_their_spread(signal):
    """Sequences of 2 to 40 tokens whose gradients are normal, of a known mean and covariance."""
    rng = np.random.default_rng(0)
    tokens = np.array([2, 5, 5, 9, 12, 20, 31, 40, 40, 40])
    scales = np.linspace(0.2, 2, 6)
    mean = np.full(6, signal)
    repetitions = 20_000
    noise = rng.normal(size=(repetitions, len(tokens), 6)) * scales
    sums = tokens[:, None] * mean + np.sqrt(tokens)[:, None] * noise

    def estimate(sums, tokens):
        squares = (sums**2).sum(2).sum(1)
        return GradientNoise.of((sums.sum(1) ** 2).sum(1), squares, tokens.sum(), (tokens**2).sum())

    found = estimate(sums, tokens)
    for values, known in ((found.squared_norm, (mean**2).sum()), (found.trace, (scales**2).sum())):
        assert abs(values.mean() - known) < 4 * values.std() / math.sqrt(repetitions)

    each = np.arange(len(tokens))
    without = np.array([estimate(sums[:2000, each != i], tokens[each != i]).squared_norm for i in each])
    variances = [jackknife(column) ** 2 for column in without.T]
    # A jackknife of products is on the safe side where the noise dominates.
    assert 0.9 < np.mean(variances) / found.squared_norm.var() < (3 if signal == 0 else 1.3)


def test_equal_sequences_are_the_papers_formulas():
    rng = np.random.default_rng(1)
    gradients_KD = rng.normal(size=(8, 5)) + 1
    small, big = 16, 128
    small_squared = (gradients_KD**2).sum(1).mean()
    big_squared = (gradients_KD.mean(0) ** 2).sum()
    sums_KD = small * gradients_KD
    found = GradientNoise.of((sums_KD.sum(0) ** 2).sum(), (sums_KD**2).sum(), big, 8 * small**2)
    squared = (big * big_squared - small * small_squared) / (big - small)
    trace = (small_squared - big_squared) / (1 / small - 1 / big)
    assert found.squared_norm == pytest.approx(squared)
    assert found.trace == pytest.approx(trace)
    assert found.critical_batch == pytest.approx(trace / squared)
