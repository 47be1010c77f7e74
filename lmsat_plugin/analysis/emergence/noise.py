"""The noise of scores about a curve: the sample of questions, and deviations that neighbours in a run share.

Shapes: P checkpoints, K columns of a design, X any number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from lmsat_plugin.analysis.stats.autoregressive import correlations

_KNOTS = 7
_SHARES = (0.0, 0.5, 1.0, 2.0, 4.0)
_CORRELATIONS = (0.3, 0.6, 0.8, 0.95)
_LEAST = 1e-4
"""The least standard deviation of a score: published scores have four digits."""


def broken_lines(losses_P: np.ndarray) -> np.ndarray:
    """Return a design [P, K] of broken lines with knots at quantiles of the losses, for any smooth curve."""
    inner = np.quantile(losses_P, np.linspace(0, 1, min(_KNOTS, max(2, len(losses_P) // 4)) + 1)[1:-1])
    knots_K = np.unique(np.append(inner, losses_P.max()))
    hinges_PK = np.maximum(knots_K - losses_P[:, None], 0)
    return np.column_stack([np.ones(len(losses_P)), hinges_PK])


def fitted(design_PK: np.ndarray, values_P: np.ndarray) -> np.ndarray:
    """Return the least-squares fit of values by a design."""
    return design_PK @ np.linalg.lstsq(design_PK, values_P, rcond=None)[0]


def smooth_variances(losses_P: np.ndarray, variances_P: np.ndarray) -> np.ndarray:
    """Return sampling variances as a smooth function of the loss, so that a lucky score does not weigh more."""
    if not variances_P.any():
        return variances_P
    return np.maximum(fitted(broken_lines(losses_P), variances_P), np.median(variances_P) / 4)


@dataclass(frozen=True, eq=False)
class Noise:
    """Normal deviations: independent ones of each checkpoint, and autoregressive ones within a run."""

    runs: tuple[np.ndarray, ...]
    """Indices of each run's checkpoints, in the order of training."""
    factors: tuple[np.ndarray, ...]
    """Cholesky factors of the covariance of each run's scores."""
    shared: float
    """Standard deviation of the autoregressive deviations."""
    correlation: float
    """Their correlation from one checkpoint to the next."""

    @property
    def deviations_P(self) -> np.ndarray:
        """Standard deviations of the scores about the curve."""
        deviations_P = np.empty(sum(map(len, self.runs)))
        for index, factor in zip(self.runs, self.factors, strict=True):
            deviations_P[index] = np.sqrt((factor**2).sum(1))
        return deviations_P

    def whiten(self, values_XP: np.ndarray) -> np.ndarray:
        """Return the values in a basis in which deviations are independent and of variance one, shape [X, P]."""
        from scipy.linalg import solve_triangular

        white_XP = np.empty_like(values_XP, dtype=np.float64)
        for index, factor in zip(self.runs, self.factors, strict=True):
            white_XP[..., index] = solve_triangular(factor, values_XP[..., index].T, lower=True).T
        return white_XP


def estimate_noise(
    losses_P: np.ndarray, scores_P: np.ndarray, variances_P: np.ndarray, runs: Sequence[np.ndarray]
) -> Noise:
    """Return the noise about a common curve of broken lines, by restricted maximum likelihood.

    The covariance of scores has three parts: their sampling variances (0 where unknown), an excess variance, and an
    autoregressive part within each run. Its two standard deviations and its correlation are the best of a grid.
    """
    design_PK = broken_lines(losses_P)
    residuals_P = scores_P - fitted(design_PK, scores_P)
    scale = max(float(residuals_P.std()), float(np.sqrt(np.median(variances_P))), _LEAST)
    noises = (
        _noise(variances_P + excess**2 + _LEAST**2, runs, shared, correlation)
        for correlation, shared in product(_CORRELATIONS, np.array(_SHARES) * scale / 2)
        if shared > 0 or correlation == _CORRELATIONS[0]
        for excess in np.array(_SHARES) * scale / 4
    )
    return max(noises, key=lambda noise: _restricted_likelihood(noise, design_PK, residuals_P))


def _noise(variances_P: np.ndarray, runs: Sequence[np.ndarray], shared: float, correlation: float) -> Noise:
    parts = [np.diag(variances_P[run]) + shared**2 * correlations(len(run), correlation) for run in runs]
    factors = tuple(map(np.linalg.cholesky, parts))
    return Noise(runs=tuple(runs), factors=factors, shared=shared, correlation=correlation)


def _restricted_likelihood(noise: Noise, design_PK: np.ndarray, residuals_P: np.ndarray) -> float:
    white_KP = noise.whiten(np.vstack([design_PK.T, residuals_P]))
    design, residuals = white_KP[:-1].T, white_KP[-1]
    q_PK, r_KK = np.linalg.qr(design)
    rest = residuals - q_PK @ (q_PK.T @ residuals)
    logs = sum(np.log(np.diag(factor)).sum() for factor in noise.factors)
    return -float(logs + np.log(np.abs(np.diag(r_KK))).sum() + rest @ rest / 2)
