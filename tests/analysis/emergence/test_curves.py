"""Fits of curves against generalised least squares by plain formulas."""

from __future__ import annotations

import numpy as np
import pytest

from lmsat_plugin.analysis.emergence.curves import CurveFits, break_curves, smooth_curves
from lmsat_plugin.analysis.emergence.noise import Noise


def test_fits_are_generalised_least_squares():
    rng = np.random.default_rng(0)
    losses = np.sort(rng.uniform(1.8, 3.0, 30))
    covariance = 0.01 * 0.6 ** abs(np.subtract.outer(np.arange(30), np.arange(30)))
    noise = Noise(runs=(np.arange(30),), factors=(np.linalg.cholesky(covariance),), shared=0.1, correlation=0.6)
    shapes, _, parameters = break_curves(losses)
    others, _, of_others = smooth_curves(losses)
    fits = CurveFits.of(np.vstack([shapes, others]), np.concatenate([parameters, of_others]), noise)
    scores = 0.3 - 0.2 * losses + rng.normal(0, 0.1, 30)
    flat, left = fits.sums(noise.whiten(scores[None]))
    precision = np.linalg.inv(covariance)
    for index in (3, 700, len(shapes), len(shapes) + 40, len(shapes) + 300):
        design = np.column_stack([np.ones(30), np.vstack([shapes, others])[index]])
        found = np.linalg.solve(design.T @ precision @ design, design.T @ precision @ scores)
        rest = scores - design @ found
        expected = rest @ precision @ rest if found[1] > 0 else flat[0]
        assert left[0, index] == pytest.approx(expected, rel=1e-6)
    assert shapes.min() == 0
    assert (np.diff(np.vstack([shapes, others]), axis=1) <= 1e-12).all()
