"""Autoregressive noise of order one, AR(1): neighbours correlate by phi, the next but one by phi², and so on.

Shapes: K checkpoints in order, R runs.
"""

from __future__ import annotations

import numpy as np


def correlations(size: int, phi: float) -> np.ndarray:
    """Return the correlation matrix phi^|i − j| of so many neighbours, shape [K, K]."""
    places = np.arange(size)
    return phi ** np.abs(np.subtract.outer(places, places))


def simulate(white_RK: np.ndarray, phi_R: np.ndarray) -> np.ndarray:
    """Return stationary noise of the variance of the white noise that drives it, shape [R, K]."""
    noise_RK = white_RK.copy()
    scale_R = np.sqrt(1 - phi_R**2)
    for index in range(1, noise_RK.shape[1]):
        noise_RK[:, index] = phi_R * noise_RK[:, index - 1] + scale_R * white_RK[:, index]
    return noise_RK


def stderr_of_sum(weights_K: np.ndarray, sigma: float, phi: float) -> float:
    """Return the standard error of Σ w_k x_k, where each x has the standard deviation sigma: σ √(wᵀ R w)."""
    return sigma * float(np.sqrt(weights_K @ correlations(len(weights_K), phi) @ weights_K))
