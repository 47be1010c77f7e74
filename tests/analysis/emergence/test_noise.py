"""The noise of scores: its estimate and its whitening, against noise of known covariance."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from emergence_scores import RISES, runs_of, wandering

from lmsat_plugin.analysis.emergence.noise import estimate_noise, smooth_variances


def test_noise_whitens_and_is_estimated():
    rng = np.random.default_rng(0)
    shared, correlation = [], []
    for _ in range(20):
        runs = runs_of(rng, 8)
        losses = np.concatenate(runs)
        ends = np.cumsum([0, *map(len, runs)])
        index = [np.arange(a, b) for a, b in itertools.pairwise(ends)]
        deviations = np.concatenate([wandering(rng, len(run), 0.02, 0.8) for run in runs])
        scores = 0.25 + RISES["curve"](losses) + deviations + rng.normal(0, 0.005, len(losses))
        noise = estimate_noise(losses, scores, np.full(len(losses), 0.005**2), index)
        shared.append(noise.shared)
        correlation.append(noise.correlation)
    assert np.median(shared) == pytest.approx(0.02, rel=0.3)
    assert 0.6 <= np.median(correlation) <= 0.95
    factor = noise.factors[0]
    white = noise.whiten(np.eye(len(losses)))[:, index[0]][index[0]]
    np.testing.assert_allclose(white.T @ factor @ factor.T @ white, np.eye(len(factor)), atol=1e-9)
    np.testing.assert_allclose(noise.deviations_P[index[0]], np.sqrt(np.diag(factor @ factor.T)), rtol=1e-12)


def test_scores_that_never_err_do_not_weigh_more():
    losses = np.linspace(2, 3, 40)
    variances = np.where(np.arange(40) % 5 == 0, 0.0, 1e-4)
    smooth = smooth_variances(losses, variances)
    assert smooth.min() >= 0.25e-4
