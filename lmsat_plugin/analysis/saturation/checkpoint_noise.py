"""Checkpoint-to-checkpoint noise: how far values lie from the curve that neighbouring checkpoints follow.

Shapes: K checkpoints, R runs of K checkpoints each, B breaks that are tried, F values of phi, E residuals, of which N
depend on a break.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lmsat_plugin.analysis.stats.autoregressive import correlations

_NEIGHBOURS = 7
_LEAST_SIDE = 3
_MOST_BREAKS = 40
_COMPARED = 5
"""Breaks of which all residuals are computed."""
_EARLY = 0.15
_OUTLYING = 5.0
_NORMAL = 1.4826
"""Standard deviation over median absolute deviation, of normal numbers."""
_TINY = np.finfo(np.float64).tiny


def without_outliers(values_RK: np.ndarray) -> np.ndarray:
    """Return the runs with each outlier replaced by the median of the five checkpoints around it (Hampel's filter).

    An outlier is a checkpoint whose distance from that median is more than five times the upper quartile of all such
    distances, which is about four standard deviations of the noise. At the end the last five checkpoints are used, so
    that one last outlier is replaced and a jump of the last three is not. The first two, where runs fall steeply, stay.
    """
    if values_RK.shape[1] < 5:
        return values_RK
    medians_RK = _median_of_five(*(values_RK[:, start : values_RK.shape[1] - 4 + start] for start in range(5)))
    medians_RK = np.concatenate([values_RK[:, :2], medians_RK, medians_RK[:, [-1, -1]]], axis=1)
    away_RK = np.abs(values_RK - medians_RK)
    usual_R1 = np.quantile(away_RK[:, 2:], 0.75, axis=1, keepdims=True)
    return np.where(away_RK > _OUTLYING * usual_R1, medians_RK, values_RK)


def _median_of_five(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, e: np.ndarray) -> np.ndarray:
    # Of two pairs, neither the least nor the greatest number is the median of all five.
    low = np.maximum(np.minimum(a, b), np.minimum(c, d))
    high = np.minimum(np.maximum(a, b), np.maximum(c, d))
    return np.maximum(np.minimum(low, high), np.minimum(np.maximum(low, high), e))


@dataclass(frozen=True)
class ResidualNoise:
    """The noise of R runs, by the residuals about their curves."""

    white_R: np.ndarray
    """Standard deviation of one checkpoint if neighbours were independent."""
    correlation_R: np.ndarray
    """Correlation of neighbouring residuals."""
    break_R: np.ndarray
    """Index of the break that leaves the smallest residuals."""


@dataclass(frozen=True)
class _Near:
    """The N residuals that depend on a break, and the C checkpoints that these depend on."""

    rows: slice
    checkpoints: slice
    maker_NC: np.ndarray

    @classmethod
    def of(cls, maker_EK: np.ndarray, unbroken_EK: np.ndarray) -> _Near:
        """Return where the residuals about lines with a break are not those about lines without it."""
        rows = np.flatnonzero((maker_EK != unbroken_EK).any(1))
        among = slice(int(rows[0]), int(rows[-1]) + 1)
        used = np.flatnonzero(maker_EK[among].any(0))
        checkpoints = slice(int(used[0]), int(used[-1]) + 1)
        return cls(rows=among, checkpoints=checkpoints, maker_NC=maker_EK[among, checkpoints])

    def residuals(self, values_RK: np.ndarray) -> np.ndarray:
        """Return the residuals of some runs, shape [R, N]."""
        return values_RK[:, self.checkpoints] @ self.maker_NC.T


class NoiseEstimator:
    """Estimates noise by the residuals about local lines through seven neighbouring checkpoints, by ln(step).

    No line crosses the break, which is where it leaves the smallest residuals: the noise of a run that collapses is
    that about its two parts, without the collapse. The first checkpoints, which no line fits, are left out.
    """

    def __init__(self, log_steps_K: np.ndarray) -> None:
        size = len(log_steps_K)
        early = int(_EARLY * size)
        places = np.linspace(max(_LEAST_SIDE, early + 2), size - _LEAST_SIDE, min(_MOST_BREAKS, size))
        breaks = np.unique(places.round().astype(int))
        self._phis_F = np.linspace(0, 0.8, 33)
        self._unbroken_EK = _residual_maker(log_steps_K, size)[early:]
        self._makers_BEK = np.array([_residual_maker(log_steps_K, at)[early:] for at in breaks])
        self._near_B = [_Near.of(maker_EK, self._unbroken_EK) for maker_EK in self._makers_BEK]
        self._broken_B = breaks - early - 1
        """The pair of neighbouring residuals that lies across each break."""
        moments = np.array([self._moments(correlations(size, phi)) for phi in self._phis_F])
        self._variances_BF = moments[:, 0].T
        self._correlations_BF = np.maximum.accumulate((moments[:, 1] / moments[:, 0]).T, axis=1)

    def _moments(self, covariance_KK: np.ndarray) -> np.ndarray:
        """Return the mean variance of residuals and their mean covariance with the next one, shape [2, B]."""
        residual_BEE = self._makers_BEK @ covariance_KK @ self._makers_BEK.transpose(0, 2, 1)
        neighbours = np.diagonal(residual_BEE, offset=1, axis1=1, axis2=2).copy()
        neighbours[np.arange(len(neighbours)), self._broken_B] = 0
        return np.stack([np.diagonal(residual_BEE, axis1=1, axis2=2).mean(1), neighbours.mean(1)])

    def estimate(self, values_RK: np.ndarray) -> ResidualNoise:
        """Return the noise of each run; residuals beyond three robust standard deviations count as three.

        Of the breaks, those are compared that leave the smallest residuals where these count by the robust standard
        deviation about lines without a break.
        """
        unbroken_RE = values_RK @ self._unbroken_EK.T
        limits_R1 = _limits(unbroken_RE)
        variances_BR = self._variances(values_RK, np.clip(unbroken_RE, -limits_R1, limits_R1), limits_R1)
        order_BR = (variances_BR / self._variances_BF[:, :1]).argsort(0)[:_COMPARED]
        size, runs = unbroken_RE.shape[1], np.arange(len(values_RK))
        white_R, variance_R = np.full(len(runs), np.inf), np.zeros(len(runs))
        best_RE, break_R = unbroken_RE.copy(), order_BR[0]
        for tried_R in order_BR:
            residuals_RE = self._broken(unbroken_RE, values_RK, tried_R)
            limits_R1 = _limits(residuals_RE)
            np.clip(residuals_RE, -limits_R1, limits_R1, out=residuals_RE)
            own_R = np.einsum("re,re->r", residuals_RE, residuals_RE) / size
            better_R = own_R / self._variances_BF[tried_R, 0] < white_R
            white_R = np.where(better_R, own_R / self._variances_BF[tried_R, 0], white_R)
            variance_R, break_R = np.where(better_R, own_R, variance_R), np.where(better_R, tried_R, break_R)
            best_RE[better_R] = residuals_RE[better_R]
        products_RE = best_RE[:, 1:] * best_RE[:, :-1]
        products_RE[runs, self._broken_B[break_R]] = 0
        correlation_R = products_RE.mean(1) / np.maximum(variance_R, _TINY)
        return ResidualNoise(white_R=np.sqrt(white_R), correlation_R=correlation_R, break_R=break_R)

    def _variances(self, values_RK: np.ndarray, clipped_RE: np.ndarray, limits_R1: np.ndarray) -> np.ndarray:
        """Return the mean squares of residuals for each break, shape [B, R], given those about lines without one."""
        squares_RE = clipped_RE**2
        total_R = squares_RE.sum(1)
        sums_BR = np.empty((len(self._near_B), len(values_RK)))
        for index, near in enumerate(self._near_B):
            own_RN = np.clip(near.residuals(values_RK), -limits_R1, limits_R1)
            sums_BR[index] = total_R - squares_RE[:, near.rows].sum(1) + (own_RN**2).sum(1)
        return sums_BR / clipped_RE.shape[1]

    def _broken(self, unbroken_RE: np.ndarray, values_RK: np.ndarray, break_R: np.ndarray) -> np.ndarray:
        """Return the residuals about lines with a break each."""
        residuals_RE = unbroken_RE.copy()
        order_R = break_R.argsort(kind="stable")
        ends_B = np.searchsorted(break_R[order_R], np.arange(len(self._near_B) + 1))
        for near, start, stop in zip(self._near_B, ends_B[:-1], ends_B[1:], strict=True):
            if start < stop:
                chosen = order_R[start:stop]
                residuals_RE[chosen, near.rows] = near.residuals(values_RK[chosen])
        return residuals_RE

    def phi(self, noise: ResidualNoise) -> float:
        """Return the correlation of neighbouring checkpoints, from 0 to 0.8, of the first run."""
        return float(np.interp(noise.correlation_R[0], self._correlations_BF[noise.break_R[0]], self._phis_F))

    def sigma_over_white(self, noise: ResidualNoise, phi_X: np.ndarray) -> np.ndarray:
        """Return the standard deviation of a checkpoint over `ResidualNoise.white_R`, for correlations phi, shape [X].

        Of the first run. It is above 1, since lines through neighbours follow a part of correlated noise.
        """
        variances_F = self._variances_BF[noise.break_R[0]]
        return np.sqrt(variances_F[0] / np.interp(phi_X, self._phis_F, variances_F))


def _limits(residuals_RE: np.ndarray) -> np.ndarray:
    """Return three robust standard deviations of each run's residuals, shape [R, 1]."""
    return 3 * _NORMAL * np.median(np.abs(residuals_RE), axis=1, keepdims=True)


@lru_cache(maxsize=4)
def noise_estimator(log_steps: tuple[float, ...]) -> NoiseEstimator:
    """Return the estimator for checkpoints at some ln(step), cached, since the models of a series share their steps."""
    return NoiseEstimator(np.array(log_steps))


def _residual_maker(log_steps_K: np.ndarray, at: int) -> np.ndarray:
    """Return the matrix that turns values into residuals, with a break before the checkpoint ``at``, shape [K, K]."""
    size = len(log_steps_K)
    maker_KK = np.eye(size)
    for start, stop in ((0, at), (at, size)):
        for row in range(start, stop):
            first = min(max(start, row - _NEIGHBOURS // 2), max(start, stop - _NEIGHBOURS))
            near = np.arange(first, min(stop, first + _NEIGHBOURS))
            design = np.stack([np.ones(len(near)), log_steps_K[near] - log_steps_K[row]], axis=1)
            maker_KK[row, near] -= np.linalg.pinv(design)[0]
    return maker_KK
