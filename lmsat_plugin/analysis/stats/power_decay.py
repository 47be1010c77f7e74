"""The curve y = a + b x^−c, fitted to many samples at once by weighted least squares.

Shapes: K points, R samples, G exponents tried.
"""

from __future__ import annotations

import numpy as np

_EXPONENTS = (0.02, 5.0)
_GRID, _ZOOMS = 61, 7


def fit_power_decay(
    x_K: np.ndarray, y_RK: np.ndarray, weights_K: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return a ≥ 0, b ≥ 0, the exponent c, and the sum of squares of a constant minus that of the curve; shapes [R].

    At a given exponent a and b have closed forms. The exponent, from 0.02 to 5, is of a grid refined to 1e-5 in ln c.
    """
    low, high = np.log(_EXPONENTS)
    log_c_RG = np.broadcast_to(np.linspace(low, high, _GRID), (len(y_RK), _GRID))
    rows = np.arange(len(y_RK))
    step = (high - low) / (_GRID - 1)
    for _ in range(_ZOOMS):
        a_RG, b_RG, gain_RG = _at_exponents(np.exp(log_c_RG), x_K, y_RK, weights_K)
        best_R = gain_RG.argmax(1)
        a_R, b_R, gain_R = (values_RG[rows, best_R] for values_RG in (a_RG, b_RG, gain_RG))
        log_c_R = log_c_RG[rows, best_R]
        log_c_RG = (log_c_R[:, None] + np.linspace(-step, step, 9)).clip(low, high)
        step /= 4
    return a_R, b_R, np.exp(log_c_R), gain_R


def _at_exponents(
    c_RG: np.ndarray, x_K: np.ndarray, y_RK: np.ndarray, weights_K: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a, b and the squares that they explain, by exponent: shapes [R, G]."""
    u_RGK = np.exp(-c_RG[..., None] * np.log(x_K))
    share_K = weights_K / weights_K.sum()
    mean_RG, mean_R1 = u_RGK @ share_K, (y_RK @ share_K)[:, None]
    product_RG = np.einsum("rgk,rk->rg", u_RGK, weights_K * (y_RK - mean_R1))
    squares_RG = ((u_RGK - mean_RG[..., None]) ** 2) @ weights_K
    b_RG = np.maximum(product_RG / squares_RG, 0)
    a_RG = mean_R1 - b_RG * mean_RG
    gain_RG = b_RG * (2 * product_RG - b_RG * squares_RG)
    # Where a would be below 0 it is 0, and b that of y = b u.
    through_RG = np.einsum("rgk,rk->rg", u_RGK, weights_K * y_RK) / (u_RGK**2 @ weights_K)
    off_RG = mean_R1 - through_RG * mean_RG
    through_gain_RG = through_RG * (2 * product_RG - through_RG * squares_RG) - weights_K.sum() * off_RG**2
    below_RG = a_RG < 0
    return (
        np.where(below_RG, 0, a_RG),
        np.where(below_RG, through_RG, b_RG),
        np.where(below_RG, through_gain_RG, gain_RG),
    )
