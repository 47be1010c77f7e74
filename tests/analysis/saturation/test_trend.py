"""The models of a run without and with a rise, against generalised least squares written out."""

from __future__ import annotations

import numpy as np
import pytest
from training_runs import STEPS, correlated

from lmsat_plugin.analysis.saturation.trend import PHIS_F, RiseModel
from lmsat_plugin.analysis.stats.autoregressive import correlations


def likelihood(values: np.ndarray, columns: list[np.ndarray], phi: float, signs: list[int]) -> float:
    """Return the log-likelihood of a linear model with AR(1) noise, -inf where a coefficient has the wrong sign."""
    covariance = correlations(len(values), phi)
    design = np.stack([np.ones(len(values)), *columns], axis=1)
    inverse = np.linalg.inv(covariance)
    coefficients = np.linalg.solve(design.T @ inverse @ design, design.T @ inverse @ values)
    if any(sign * own < -1e-12 for sign, own in zip(signs, coefficients[1:], strict=True)):
        return -np.inf
    residuals = values - design @ coefficients
    determinant = np.linalg.slogdet(covariance)[1]
    return float(-len(values) / 2 * np.log(residuals @ inverse @ residuals) - determinant / 2)


def test_the_gain_against_least_squares():
    rng = np.random.default_rng(3)
    size = 12
    at = np.arange(1, size + 1) * 1000
    model = RiseModel(at, np.arange(size))
    falls = [-curve if curve[0] < curve[-1] else curve for curve in model.curves_TC]
    for height in (0, 2):
        values = correlated(rng, 1, size, 0.3)[0] + 4 * (at / 1000) ** -0.5 + height * (np.arange(size) >= 8)
        without, with_rise = [], []
        for phi in PHIS_F:
            flat = likelihood(values, [], phi, [])
            without += [flat, *(likelihood(values, [curve], phi, [1]) for curve in falls)]
            for rise in model.rises_AC:
                with_rise.append(likelihood(values, [rise], phi, [1]))
                first = np.flatnonzero(rise)[0]
                for curve in falls:
                    level = np.flatnonzero(np.diff(curve) == 0)
                    if not len(level) or level[0] <= first:
                        with_rise.append(likelihood(values, [curve, rise], phi, [1, 1]))
        expected = 2 * (max(*without, *with_rise) - max(without))
        assert model.best(values[None]).gain_R[0] == pytest.approx(expected, abs=1e-6)


def test_places_that_are_left_out_widen_the_gap():
    """A missing cell changes the correlation of its neighbours, and nothing else."""
    places = np.delete(np.arange(14), 6)
    at = (places + 1) * 1000
    model = RiseModel(at, places)
    rng = np.random.default_rng(4)
    whole = correlated(rng, 4000, 14, 0.6)[:, places]
    white = whole @ model._parts_F[int(np.abs(PHIS_F - 0.6).argmin())].whiten_CC.T
    # The mean is taken out, which leaves 12 of 13 degrees of freedom.
    assert (white**2).sum(1).mean() == pytest.approx(12, rel=0.03)


def test_noise_is_estimated_about_a_curve_with_a_rise():
    rng = np.random.default_rng(9)
    runs = 2 * correlated(rng, 300, 28, 0.3) + 50 * (STEPS / 5000) ** -0.5
    runs[:, 17:] += 20
    best = RiseModel(STEPS, np.arange(28)).best(runs)
    assert 1.5 < np.median(best.sigma_R) < 2.2
    assert 0.1 < best.plausible_R.mean() < 0.4
    assert (best.gain_R > 20).mean() > 0.95
