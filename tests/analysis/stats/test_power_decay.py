"""The curve a + b x^−c against scipy's least squares, from many starts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from lmsat_plugin.analysis.stats.power_decay import fit_power_decay

X = np.geomspace(1, 500, 18)
WEIGHTS = np.linspace(300, 40, 18)


def by_scipy(y: np.ndarray) -> tuple[np.ndarray, float]:
    """Return a, b, c, and the weighted sum of squares."""

    def residuals(theta: np.ndarray) -> np.ndarray:
        return np.sqrt(WEIGHTS) * (y - theta[0] - theta[1] * X ** -theta[2])

    fits = [
        least_squares(residuals, start, bounds=([0, 0, 0.02], [np.inf, np.inf, 5]), xtol=1e-14, ftol=1e-14)
        for start in ([1, 1, 0.1], [2, 4, 0.5], [3, 1, 1.5], [0.1, 6, 0.05])
    ]
    best = min(fits, key=lambda fit: fit.cost)
    return best.x, 2 * best.cost


@pytest.mark.parametrize("law", [(2.3, 5.4, 0.62), (4.0, 1.0, 1.4), (0.0, 6.0, 0.1), (3.0, 0.2, 0.3)], ids=str)
def test_the_fit_is_scipys(law):
    a, b, c = law
    rng = np.random.default_rng(0)
    y = a + b * X**-c + 0.3 / np.sqrt(WEIGHTS) * rng.standard_normal((5, len(X)))
    found = fit_power_decay(X, y, WEIGHTS)
    for row, (own_a, own_b, own_c, gain) in zip(y, zip(*found, strict=True), strict=True):
        theta, left = by_scipy(row)
        squares = (WEIGHTS * (row - own_a - own_b * X**-own_c) ** 2).sum()
        assert squares == pytest.approx(left, rel=1e-6)
        np.testing.assert_allclose([own_a, own_b, own_c], theta, rtol=2e-3, atol=2e-3)
        # The gain is over a constant, the weighted mean.
        flat = (WEIGHTS * (row - np.average(row, weights=WEIGHTS)) ** 2).sum()
        assert gain == pytest.approx(flat - left, rel=1e-6)


def test_what_rises_is_flat():
    (a,), (b,), _, (gain,) = fit_power_decay(X, np.log(X)[None], WEIGHTS)
    assert (b, gain) == (0, 0)
    assert a == pytest.approx(np.average(np.log(X), weights=WEIGHTS))
