"""Checkpoint-to-checkpoint noise: against noise of known size about a curve with a jump."""

from __future__ import annotations

import numpy as np
from training_runs import STEPS, correlated

from lmsat_plugin.analysis.saturation.checkpoint_noise import NoiseEstimator, without_outliers


def test_noise_is_estimated_across_a_jump():
    rng = np.random.default_rng(9)
    runs = 2 * correlated(rng, 400, 28, 0.3) + 50 * (STEPS / 5000) ** -0.5
    runs[:, 17:] += 20
    estimator = NoiseEstimator(np.log(STEPS))
    noises = [estimator.estimate(run[None]) for run in runs]
    phi = np.array([estimator.phi(noise) for noise in noises])
    sigma = [noise.white_R[0] * estimator.sigma_over_white(noise, np.array([0.3]))[0] for noise in noises]
    assert 0.2 < phi.mean() < 0.45
    assert 1.6 < np.mean(sigma) < 2.2


def test_outliers_go_and_steps_stay():
    values = np.sin(np.arange(20) / 3)
    spiked = values.copy()
    spiked[9] += 10
    found = without_outliers(spiked[None])[0]
    assert np.flatnonzero(found != spiked).tolist() == [9]
    stepped = values + 10 * (np.arange(20) >= 12)
    np.testing.assert_array_equal(without_outliers(stepped[None])[0], stepped)
