"""What the singular values and the entries of one matrix say: norms, ranks, the tail's exponent, outliers.

Shapes: O outputs, I inputs, K = min(O, I) singular values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lmsat_plugin.lazy import torch
from lmsat_plugin.model.spectrum import effective_rank, singular_values

_TOP = 10
_FEWEST = 10
"""Fewer eigenvalues have no tail to fit."""
_ZERO = 1e-5
"""Eigenvalues below count as zero in the fit, as in WeightWatcher."""
_QUANTILE = 0.99


@dataclass(frozen=True)
class MatrixStatistics:
    """What a weight matrix W with singular values s, falling, is like."""

    frobenius_norm: float
    """√Σs²."""
    spectral_norm: float
    """s₁."""
    stable_rank: float
    """Σs²/s₁²."""
    effective_rank: float
    """exp H(s/Σs) (Roy and Vetterli 2007)."""
    top10_share: float
    """Σ of the ten greatest s over Σs; 1 where there are no more."""
    alpha: float
    """Exponent of the tail of the eigenvalues s² of WᵀW, see `power_law_tail`; NaN where it cannot be fitted."""
    alpha_distance: float
    """The fit's Kolmogorov-Smirnov distance."""
    outlier_ratio: float
    """The greatest absolute entry over the 99th percentile of the absolute entries."""


def matrix_statistics(weight_OI: torch.Tensor) -> MatrixStatistics:
    """Return what a matrix is like. All numbers are NaN where an entry is not finite, and for zeros alone."""
    entries = weight_OI.detach().float().abs().flatten()
    if not torch.isfinite(entries).all() or not entries.any():
        return MatrixStatistics(*[math.nan] * 8)
    is_wide = weight_OI.shape[0] < weight_OI.shape[1]
    s = singular_values(weight_OI.T if is_wide else weight_OI)
    alpha, distance = power_law_tail(s**2)
    return MatrixStatistics(
        frobenius_norm=float(np.sqrt((s**2).sum())),
        spectral_norm=float(s[0]),
        stable_rank=float((s**2).sum() / s[0] ** 2),
        effective_rank=effective_rank(s),
        top10_share=float(s[:_TOP].sum() / s.sum()),
        alpha=alpha,
        alpha_distance=distance,
        outlier_ratio=_outlier_ratio(entries),
    )


def _outlier_ratio(entries: torch.Tensor) -> float:
    # torch.quantile takes no more than 16 million numbers.
    place = max(1, math.ceil(_QUANTILE * len(entries)))
    quantile = float(torch.kthvalue(entries.cpu(), place).values)
    return float(entries.max()) / quantile if quantile else math.inf


def power_law_tail(eigenvalues: np.ndarray) -> tuple[float, float]:
    """Return the exponent α of p(λ) ∝ λ^−α above some λ_min, and the fit's Kolmogorov-Smirnov distance.

    α = 1 + n/Σ ln(λ_i/λ_min) over the n eigenvalues from λ_min on, and λ_min the eigenvalue with the least distance
    (Clauset et al. 2009; Martin and Mahoney's WeightWatcher, whose algorithm for 50 eigenvalues and more this is).
    Eigenvalues below 1e-5 are left out. NaN for fewer than ten.
    """
    x = np.sort(eigenvalues[eigenvalues > _ZERO]).astype(float)
    if len(x) < _FEWEST:
        return math.nan, math.nan
    logs = np.log(x)
    # Σ of the logarithms from each eigenvalue on.
    sums = np.cumsum(logs[::-1])[::-1]
    best = (math.nan, math.inf)
    for first in range(len(x) - 1):
        n = len(x) - first
        spread = sums[first] - n * logs[first]
        if spread <= 0:
            continue
        alpha = 1 + n / spread
        fitted = -np.expm1((1 - alpha) * (logs[first:] - logs[first]))
        distance = float(np.abs(fitted - np.arange(n) / n).max())
        if distance < best[1]:
            best = (alpha, distance)
    return best if math.isfinite(best[0]) else (math.nan, math.nan)
