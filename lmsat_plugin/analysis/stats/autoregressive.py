"""Autoregressive noise of order one, AR(1): values that are k checkpoints apart correlate by phi^k.

Shapes: K checkpoints in order, R runs.
"""

from __future__ import annotations

import numpy as np


def correlations(size: int, phi: float) -> np.ndarray:
    """Return the correlation matrix phi^|i − j| of K = ``size`` checkpoints, shape [K, K]."""
    index_K = np.arange(size)
    return (phi**index_K)[np.abs(np.subtract.outer(index_K, index_K))]


def simulate(white_RK: np.ndarray, phi_R: np.ndarray) -> np.ndarray:
    """Return stationary noise driven by white noise, of the same variance as that, shape [R, K]."""
    noise_RK = white_RK.copy()
    scale_R = np.sqrt(1 - phi_R**2)
    for index in range(1, noise_RK.shape[1]):
        noise_RK[:, index] = phi_R * noise_RK[:, index - 1] + scale_R * white_RK[:, index]
    return noise_RK


def stderr_of_sum(weights_K: np.ndarray, sigma: float, phi: float) -> float:
    """Return the standard error of Σ w_k x_k, with sigma the standard deviation of each x: σ √(wᵀ R w)."""
    return sigma * float(np.sqrt(weights_K @ correlations(len(weights_K), phi) @ weights_K))


def whitening(place_K: np.ndarray, phi: float) -> np.ndarray:
    """Return the matrix that makes AR(1) noise at integer places white, of the same variance, shape [K, K].

    Its rows are x_k − φ^g x_{k−1} over √(1 − φ^{2g}), with g the number of places from the checkpoint before.
    """
    correlation = phi ** np.diff(place_K)
    white_KK = np.eye(len(place_K))
    rows = np.arange(1, len(place_K))
    white_KK[rows, rows - 1] = -correlation
    white_KK[1:] /= np.sqrt(1 - correlation**2)[:, None]
    return white_KK
