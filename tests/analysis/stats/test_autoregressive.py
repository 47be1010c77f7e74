"""AR(1) noise against its covariance, written out directly."""

from __future__ import annotations

import numpy as np
import pytest

from lmsat_plugin.analysis.stats.autoregressive import correlations, simulate, stderr_of_sum


def covariance(size: int, phi: float) -> np.ndarray:
    """Return E[x xᵀ] of x_k = φ x_(k−1) + √(1 − φ²) e_k: x = A e, with A solved from the recursion."""
    recursion = np.eye(size) - phi * np.eye(size, k=-1)
    scales = np.diag([1.0, *np.full(size - 1, np.sqrt(1 - phi**2))])
    factor = np.linalg.solve(recursion, scales)
    return factor @ factor.T


@pytest.mark.parametrize("phi", [0.0, 0.3, 0.95])
def test_correlations_are_those_of_the_recursion(phi):
    np.testing.assert_allclose(correlations(6, phi), covariance(6, phi), atol=1e-12)


def test_simulated_noise_has_these_correlations():
    phi = np.repeat([0.0, 0.6], 40_000)
    runs = 0.5 * simulate(np.random.default_rng(10).standard_normal((80_000, 7)), phi)
    for own, value in ((runs[:40_000], 0.0), (runs[40_000:], 0.6)):
        np.testing.assert_allclose(np.cov(own.T), 0.25 * covariance(7, value), atol=0.006)


def test_errors_of_contrasts():
    """Against the variance of simulated contrasts, the covariance, and σ √(1/m + 1/n) without correlation."""
    weights = np.array([-1 / 3, -1 / 3, -1 / 3, 0, 0, 1 / 2, 1 / 2])
    assert stderr_of_sum(weights, 0.5, 0.0) == pytest.approx(0.5 * (1 / 3 + 1 / 2) ** 0.5)
    exact = 0.5 * np.sqrt(weights @ covariance(7, 0.6) @ weights)
    assert stderr_of_sum(weights, 0.5, 0.6) == pytest.approx(exact)
    runs = 0.5 * simulate(np.random.default_rng(10).standard_normal((40_000, 7)), np.full(40_000, 0.6))
    assert (runs @ weights).std() == pytest.approx(stderr_of_sum(weights, 0.5, 0.6), rel=0.02)
