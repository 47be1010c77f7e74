"""The models of a run: a curve that falls or stays, with autoregressive noise, without and with a rise near its end.

Shapes: C cells of checkpoints, R runs, F correlations, T curves, A rises.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lmsat_plugin.analysis.stats.autoregressive import whitening

PHIS_F = np.array([0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9])
"""The correlations of neighbours over which likelihoods are maximised."""
_POWERS = (-1.0, -0.4, 0.0, 0.15, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.3, 1.8, 2.5)
_POWERS_OF_SHORT = (0.0, 0.3, 0.5, 0.8, 1.2, 2.0)
"""c of a + b t^−c; 0 is the logarithm. Runs of fewer cells than `LONG` cannot tell finer ones apart."""
_COSINES = ((0.3, 0.1), (0.3, 0.4), (0.6, 0.1), (0.6, 0.4), (0.0, 1.0))
"""c of t^−c, and the share of a cosine schedule's fall added to it; the last one is that fall alone."""
LONG = 28
"""From so many cells on, a run tells its own correlation well enough."""
_FIRST_KNOT = 0.2
"""The share of a run from which on its curve may stay level."""
_FIRST_RISE, _FIRST_RISE_OF_SHORT = 0.35, 0.45
"""The share of a run from which on it may rise."""
_LATE = 0.6
"""The share of a run from which on a rise is late."""
_LEAST_AFTER = 0.14
"""The share of a run that has to lie after the beginning of a rise."""
_RAMPS = (0.0, 0.15, 0.3)
"""Over which shares of a run a rise may go on; 0 is a step."""
_PARAMETERS = 4
_MOST = 2.0
_NORMAL = 1.4826
"""Standard deviation over median absolute deviation, of normal numbers."""
# Mean and spread of the correlation of neighbouring checkpoints in published runs that do not rise.
_USUAL_PHI, _SPREAD_OF_PHI = 0.2, 0.2


def least_after(cells: int) -> int:
    """Return how many cells have to lie after the beginning of a rise."""
    return max(3, round(_LEAST_AFTER * cells))


def _most_plausible(phi: np.ndarray, cells: int) -> np.ndarray:
    """Return the most plausible correlation of neighbours, given the most likely one (mean of a normal posterior)."""
    precision = cells / 0.9**2
    return (_USUAL_PHI / _SPREAD_OF_PHI**2 + phi * precision) / (1 / _SPREAD_OF_PHI**2 + precision)


@dataclass(frozen=True)
class Best:
    """The most likely models of R runs with a rise, or without one where none helps."""

    gain_R: np.ndarray
    """Twice the gain in log-likelihood by a rise; 0 where none helps."""
    late_gain_R: np.ndarray
    """The same by a rise within the last 40 %."""
    phi_R: np.ndarray
    """The most likely correlation of neighbours."""
    plausible_R: np.ndarray
    """The most plausible one: what is usual has its weight. The following is for the nearest of `PHIS_F`."""
    sigma_R: np.ndarray
    """Standard deviation of one cell about the model; residuals count as two robust standard deviations at most."""


class RiseModel:
    """Tells how much more likely runs are with a rise, for cells at given places.

    Without a rise: y = a + b t^−c with b t^−c falling, the same up to a knot and a level from there, or, in long runs,
    with the fall of a cosine schedule that ends at the last cell. With one: such a curve whose knot lies before the
    rise, plus d > 0 times a step or a ramp that begins within the last 65 %, or 55 % of short runs. Noise is AR(1), φ
    to the number of cells between. Generalised least squares give a, b, d; c, the knot, the rise and φ are searched on
    grids.
    """

    def __init__(self, at_C: np.ndarray, place_C: np.ndarray) -> None:
        size = len(at_C)
        self.size, self.place_C = size, place_C
        knots = range(max(2, int(_FIRST_KNOT * size)), size - 3, max(1, size // 10))
        x_C = at_C / at_C[-1]
        long = size >= LONG
        powers = _POWERS if long else _POWERS_OF_SHORT
        curves = [(_power(x_C, power), 0) for power in powers]
        curves += [(_power(np.minimum(x_C, x_C[knot]), power), knot) for knot in knots for power in powers]
        if long:
            curves += [(_with_cosine(x_C, power, share), 0) for power, share in _COSINES]
        curves_TC = np.array([curve_C - curve_C.mean() for curve_C, _ in curves])
        self.curves_TC = curves_TC / np.abs(curves_TC).max(1, keepdims=True)
        knots_T = [knot for _, knot in curves]
        self.rises_AC, first_A = _rises(size)
        self.late_A = first_A >= _LATE * size
        self.allowed_AT = np.array(knots_T) <= first_A[:, None]
        self._parts_F = [_Whitened.of(self, whitening(place_C, phi)) for phi in PHIS_F]

    def best(self, values_RC: np.ndarray, floor_R: np.ndarray | float = 0.0) -> Best:
        """Return the most likely models. ``floor_R`` is the least standard deviation of noise that is possible."""
        runs = len(values_RC)
        values_RC = values_RC - values_RC.mean(1, keepdims=True)
        without_R, late_R, with_R = np.full((3, runs), -np.inf)
        phi_R = np.zeros(runs)
        for phi, parts in zip(PHIS_F, self._parts_F, strict=True):
            squares_R, explained = parts.squares(values_RC @ parts.whiten_CC.T, self.allowed_AT, self.late_A)
            squares_R = squares_R + self.size * floor_R**2
            falling_R, likelihood_of_late_R, likelihood_R = (parts.likelihood(squares_R - own_R) for own_R in explained)
            without_R, late_R = np.maximum(without_R, falling_R), np.maximum(late_R, likelihood_of_late_R)
            phi_R[likelihood_R > with_R] = phi
            with_R = np.maximum(with_R, likelihood_R)
        plausible_R = _most_plausible(phi_R, self.size)
        nearest_R = np.abs(PHIS_F - plausible_R[:, None]).argmin(1)
        sigma_R = np.empty(runs)
        for index in np.unique(nearest_R):
            own = nearest_R == index
            sigma_R[own] = self._parts_F[index].noise(values_RC[own], self)
        return Best(
            gain_R=2 * (with_R - without_R),
            late_gain_R=2 * (late_R - without_R),
            phi_R=phi_R,
            plausible_R=plausible_R,
            sigma_R=np.maximum(sigma_R, floor_R),
        )


@dataclass(frozen=True)
class _Whitened:
    """Curves and rises for one correlation, whitened and without their mean."""

    whiten_CC: np.ndarray
    half_log_determinant: float
    curves_TC: np.ndarray
    """Of length one."""
    rises_AC: np.ndarray
    lengths_A: np.ndarray
    common_AT: np.ndarray
    """What a rise and a curve have in common: their product."""
    left_AT: np.ndarray
    """The length of what of a rise is left beside a curve."""

    @classmethod
    def of(cls, model: RiseModel, white_CC: np.ndarray) -> _Whitened:
        level_C = white_CC.sum(1)
        level_C = level_C / np.linalg.norm(level_C)
        whiten_CC = white_CC - np.outer(level_C, level_C @ white_CC)
        rises_AC, curves_TC = model.rises_AC @ whiten_CC.T, model.curves_TC @ whiten_CC.T
        curves_TC = curves_TC / np.linalg.norm(curves_TC, axis=1, keepdims=True)
        common_AT = rises_AC @ curves_TC.T
        squares_A = (rises_AC**2).sum(1)
        return cls(
            whiten_CC=whiten_CC,
            half_log_determinant=float(np.log(np.diagonal(white_CC)).sum()),
            curves_TC=curves_TC,
            rises_AC=rises_AC,
            lengths_A=np.sqrt(squares_A),
            common_AT=common_AT,
            left_AT=np.sqrt(np.maximum(squares_A[:, None] - common_AT**2, 1e-12)),
        )

    def likelihood(self, squares_R: np.ndarray) -> np.ndarray:
        """Return the log-likelihood, up to a constant, given residual sums of squares."""
        tiny = np.finfo(np.float64).tiny
        return self.half_log_determinant - len(self.whiten_CC) / 2 * np.log(np.maximum(squares_R, tiny))

    def squares(
        self, white_RC: np.ndarray, allowed_AT: np.ndarray, late_A: np.ndarray
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Return sums of squares, shape [R], and what the best models explain of them.

        These are of a curve alone, of one with a late rise, and of one with any rise.
        """
        curve_RT, rise_RA = white_RC @ self.curves_TC.T, white_RC @ self.rises_AC.T
        falling_R = np.maximum(curve_RT.max(1), 0) ** 2
        late_R, explained_R = falling_R, falling_R
        for index, allowed_T in enumerate(allowed_AT):
            alone_R = np.maximum(rise_RA[:, index] / self.lengths_A[index], 0) ** 2
            own_R = np.maximum(alone_R, self._with_rise(curve_RT, rise_RA, index, allowed_T)[0].max(1))
            explained_R = np.maximum(explained_R, own_R)
            if late_A[index]:
                late_R = np.maximum(late_R, own_R)
        return (white_RC**2).sum(1), (falling_R, late_R, explained_R)

    def _with_rise(
        self, curve_RT: np.ndarray, rise_RA: np.ndarray, index: int, allowed_T: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what one rise and a curve explain, and their coefficients, for each curve that is allowed.

        They explain nothing where the curve would rise, or the rise fall.
        """
        common_T, left_T = self.common_AT[index, allowed_T], self.left_AT[index, allowed_T]
        curve_RT = curve_RT[:, allowed_T]
        beside_RT = (rise_RA[:, [index]] - curve_RT * common_T) / left_T
        slope_RT = curve_RT - beside_RT * (common_T / left_T)
        explained_RT = np.where((beside_RT > 0) & (slope_RT > 0), curve_RT**2 + beside_RT**2, 0)
        return explained_RT, slope_RT, beside_RT / left_T

    def noise(self, values_RC: np.ndarray, model: RiseModel) -> np.ndarray:
        """Return the standard deviation of the noise about the best models of some runs, shape [R]."""
        white_RC, runs = values_RC @ self.whiten_CC.T, np.arange(len(values_RC))
        curve_RT, rise_RA = white_RC @ self.curves_TC.T, white_RC @ self.rises_AC.T
        curve_R, rise_R = curve_RT.argmax(1), (rise_RA / self.lengths_A).argmax(1)
        slope_R = np.maximum(curve_RT[runs, curve_R], 0)
        alone_R = np.maximum(rise_RA[runs, rise_R] / self.lengths_A[rise_R], 0)
        height_R = np.where(alone_R > slope_R, alone_R / self.lengths_A[rise_R], 0)
        explained_R = np.maximum(slope_R, alone_R) ** 2
        slope_R = np.where(alone_R > slope_R, 0, slope_R)
        for index, allowed_T in enumerate(model.allowed_AT):
            explained_RT, slope_RT, height_RT = self._with_rise(curve_RT, rise_RA, index, allowed_T)
            chosen_R = explained_RT.argmax(1)
            better = np.flatnonzero(explained_RT[runs, chosen_R] > explained_R)
            chosen = better, chosen_R[better]
            explained_R[better], slope_R[better], height_R[better] = (
                explained_RT[chosen],
                slope_RT[chosen],
                height_RT[chosen],
            )
            curve_R[better], rise_R[better] = np.flatnonzero(allowed_T)[chosen_R[better]], index
        fitted_RC = slope_R[:, None] * self.curves_TC[curve_R] + height_R[:, None] * self.rises_AC[rise_R]
        sizes_RC = np.abs(white_RC - fitted_RC)
        robust_R1 = _NORMAL * np.median(sizes_RC, axis=1, keepdims=True)
        squares_R = (np.minimum(sizes_RC, _MOST * robust_R1) ** 2).sum(1) / max(1, model.size - _PARAMETERS)
        return np.sqrt(squares_R)


def _power(x_C: np.ndarray, power: float) -> np.ndarray:
    return -np.log(x_C) if power == 0 else (x_C**-power - 1) / power


def _with_cosine(x_C: np.ndarray, power: float, share: float) -> np.ndarray:
    """Return a mixture of a power and the fall of a cosine schedule, each scaled to a range of one."""
    parts = _power(x_C, power), np.cos(np.pi * x_C / 2) ** 2
    power_C, cosine_C = (part / np.ptp(part) for part in parts)
    return (1 - share) * power_C + share * cosine_C


def _rises(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and ramps from 0 to 1, shape [A, C], and the first risen cell of each."""
    after, cells = least_after(size), np.arange(size)
    start = int(np.ceil((_FIRST_RISE if size >= LONG else _FIRST_RISE_OF_SHORT) * size))
    rises, firsts = [], []
    for share in _RAMPS:
        width = round(share * size)
        if share and width < 2:
            continue
        stride = max(1, size // (14 if share else 28))
        for first in range(start, size - after + 1 - width // 2, stride):
            rises.append(np.clip((cells - first + 1) / (width + 1), 0, 1))
            firsts.append(first)
    return np.array(rises), np.array(firsts)


@lru_cache(maxsize=16)
def rise_model(at: tuple[int, ...], places: tuple[int, ...]) -> RiseModel:
    """Return the model for cells at some places, cached, since the runs of a series share these."""
    return RiseModel(np.array(at, dtype=np.float64), np.array(places))
