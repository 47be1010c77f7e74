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
LONG = 28
"""From so many cells on, a run tells its own correlation well enough."""
_FIRST_KNOT = 0.2
"""The share of a run from which on its curve may stay level."""
_FIRST_RISE = 0.45
"""The share of a run from which on it may rise."""
LEAST_AFTER = 0.14
"""The share of a run that has to lie after the beginning of a rise, three cells at least."""
_RAMPS = (0.0, 0.15, 0.3)
"""Over which shares of a run a rise may go on; 0 is a step."""
_PARAMETERS = 4
_MOST = 2.0
_NORMAL = 1.4826
"""Standard deviation over median absolute deviation, of normal numbers."""
# Mean and spread of the correlation of neighbouring checkpoints in published runs that do not rise.
_USUAL_PHI, _SPREAD_OF_PHI = 0.2, 0.2


def _most_plausible(phi: np.ndarray, cells: int) -> np.ndarray:
    """Return the most plausible correlation of neighbours, given the most likely one (mean of a normal posterior)."""
    precision = cells / 0.9**2
    return (_USUAL_PHI / _SPREAD_OF_PHI**2 + phi * precision) / (1 / _SPREAD_OF_PHI**2 + precision)


@dataclass(frozen=True)
class Best:
    """The most likely models of R runs with a rise, or without one where none helps."""

    gain_R: np.ndarray
    """Twice the gain in log-likelihood by a rise; 0 where none helps."""
    phi_R: np.ndarray
    """The most likely correlation of neighbours."""
    plausible_R: np.ndarray
    """The most plausible one: what is usual has its weight. The following is for the nearest of `PHIS_F`."""
    sigma_R: np.ndarray
    """Standard deviation of one cell about the model; residuals count as two robust standard deviations at most."""
    curves_RC: np.ndarray
    """The models without their rises, up to a constant."""


@dataclass(frozen=True)
class _Fits:
    """The best fits of R runs at one correlation."""

    squares_R: np.ndarray
    """Residual sums of squares."""
    falling_squares_R: np.ndarray
    """The same without a rise."""
    curve_R: np.ndarray
    """Index of the curve."""
    rise_R: np.ndarray
    """Index of the rise."""
    slope_R: np.ndarray
    """The whitened curve's coefficient; 0 without a curve."""
    height_R: np.ndarray
    """The rise's coefficient; 0 without a rise."""


class RiseModel:
    """Tells how much more likely runs are with a rise, for cells at given places.

    Without a rise: y = a + b t^−c with b t^−c falling, or the same up to a knot and a level from there. With one: such
    a curve whose knot lies before the rise, plus d > 0 times a step or a ramp that begins within the last 55 %.
    Noise is AR(1), φ to the number of cells between. Generalised least squares give a, b, d; c, the knot, the rise and
    φ are searched on grids.
    """

    def __init__(self, at_C: np.ndarray, place_C: np.ndarray) -> None:
        size = len(at_C)
        self.size, self.place_C = size, place_C
        knots = range(max(2, int(_FIRST_KNOT * size)), size - 3, max(1, size // 10))
        x_C = at_C / at_C[-1]
        curves, knots_T = [], []
        for knot in (None, *knots):
            for power in _POWERS if size >= LONG else _POWERS_OF_SHORT:
                curve_C = -np.log(x_C) if power == 0 else (x_C**-power - 1) / power
                if knot is not None:
                    curve_C[knot:] = curve_C[knot]
                curve_C = curve_C - curve_C.mean()
                curves.append(curve_C / np.abs(curve_C).max())
                knots_T.append(knot or 0)
        self.curves_TC = np.array(curves)
        self.rises_AC, first_A = _rises(size)
        self._allowed_AT = np.array(knots_T) <= first_A[:, None]
        self._parts_F = [_Whitened.of(self, whitening(place_C, phi)) for phi in PHIS_F]

    def best(self, values_RC: np.ndarray, floor: float = 0.0) -> Best:
        """Return the most likely models. ``floor`` is the least standard deviation of noise that is possible."""
        runs = len(values_RC)
        values_RC = values_RC - values_RC.mean(1, keepdims=True)
        without_R, with_R, phi_R = np.full(runs, -np.inf), np.full(runs, -np.inf), np.zeros(runs)
        fits_F = [parts.fits(values_RC @ parts.whiten_CC.T, self._allowed_AT) for parts in self._parts_F]
        least = self.size * floor**2
        for phi, parts, fits in zip(PHIS_F, self._parts_F, fits_F, strict=True):
            without_R = np.maximum(without_R, parts.likelihood(fits.falling_squares_R + least))
            likelihood_R = parts.likelihood(fits.squares_R + least)
            phi_R[likelihood_R > with_R] = phi
            with_R = np.maximum(with_R, likelihood_R)
        plausible_R = _most_plausible(phi_R, self.size)
        nearest_R = np.abs(PHIS_F - plausible_R[:, None]).argmin(1)
        sigma_R, curves_RC = np.empty(runs), np.empty_like(values_RC)
        for index in np.unique(nearest_R):
            own = nearest_R == index
            sigma_R[own], curves_RC[own] = self._parts_F[index].parts(values_RC[own], fits_F[index], own, self)
        return Best(
            gain_R=2 * (with_R - without_R),
            phi_R=phi_R,
            plausible_R=plausible_R,
            sigma_R=np.maximum(sigma_R, floor),
            curves_RC=curves_RC,
        )


@dataclass(frozen=True)
class _Whitened:
    """Curves and rises for one correlation, whitened and without their mean."""

    whiten_CC: np.ndarray
    half_log_determinant: float
    curves_TC: np.ndarray
    """Of length one."""
    lengths_T: np.ndarray
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
        lengths_T = np.linalg.norm(curves_TC, axis=1)
        curves_TC = curves_TC / lengths_T[:, None]
        common_AT = rises_AC @ curves_TC.T
        squares_A = (rises_AC**2).sum(1)
        return cls(
            whiten_CC=whiten_CC,
            half_log_determinant=float(np.log(np.diagonal(white_CC)).sum()),
            curves_TC=curves_TC,
            lengths_T=lengths_T,
            rises_AC=rises_AC,
            lengths_A=np.sqrt(squares_A),
            common_AT=common_AT,
            left_AT=np.sqrt(np.maximum(squares_A[:, None] - common_AT**2, 1e-12)),
        )

    def likelihood(self, squares_R: np.ndarray) -> np.ndarray:
        """Return the log-likelihood, up to a constant, given residual sums of squares."""
        tiny = np.finfo(np.float64).tiny
        return self.half_log_determinant - len(self.whiten_CC) / 2 * np.log(np.maximum(squares_R, tiny))

    def fits(self, white_RC: np.ndarray, allowed_AT: np.ndarray) -> _Fits:
        """Return the best fits of whitened runs. Of curves only those count that fall, of rises those that rise."""
        runs = np.arange(len(white_RC))
        curve_RT, rise_RA = white_RC @ self.curves_TC.T, white_RC @ self.rises_AC.T
        curve_R = curve_RT.argmax(1)
        slope_R = np.maximum(curve_RT[runs, curve_R], 0)
        squares_R, falling_R = (white_RC**2).sum(1), slope_R**2
        explained_R, rise_R, height_R = falling_R.copy(), np.zeros(len(runs), int), np.zeros(len(runs))
        for index, allowed_T in enumerate(allowed_AT):
            common_T, left_T = self.common_AT[index, allowed_T], self.left_AT[index, allowed_T]
            own_RT = curve_RT[:, allowed_T]
            own_height_RT = (rise_RA[:, [index]] - own_RT * common_T) / left_T
            own_slope_RT = own_RT - own_height_RT * (common_T / left_T)
            both_RT = np.where((own_height_RT > 0) & (own_slope_RT > 0), own_RT**2 + own_height_RT**2, 0)
            chosen_R = both_RT.argmax(1)
            alone_R = np.maximum(rise_RA[:, index] / self.lengths_A[index], 0)
            candidates = (
                (alone_R**2, np.zeros(len(runs), int), np.zeros(len(runs)), alone_R / self.lengths_A[index]),
                (
                    both_RT[runs, chosen_R],
                    np.flatnonzero(allowed_T)[chosen_R],
                    own_slope_RT[runs, chosen_R],
                    own_height_RT[runs, chosen_R] / left_T[chosen_R],
                ),
            )
            for own_explained_R, own_curve_R, own_slope_R, own_height_R in candidates:
                better_R = own_explained_R > explained_R
                explained_R[better_R], rise_R[better_R] = own_explained_R[better_R], index
                curve_R[better_R], slope_R[better_R] = own_curve_R[better_R], own_slope_R[better_R]
                height_R[better_R] = own_height_R[better_R]
        return _Fits(
            squares_R=squares_R - explained_R,
            falling_squares_R=squares_R - falling_R,
            curve_R=curve_R,
            rise_R=rise_R,
            slope_R=slope_R,
            height_R=height_R,
        )

    def parts(
        self, values_RC: np.ndarray, fits: _Fits, own: np.ndarray, model: RiseModel
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the noise of some runs, shape [R], and their curves without rises, shape [R, C]."""
        curve_R, slope_R1 = fits.curve_R[own], fits.slope_R[own][:, None]
        residuals_RC = values_RC @ self.whiten_CC.T - slope_R1 * self.curves_TC[curve_R]
        residuals_RC -= fits.height_R[own][:, None] * self.rises_AC[fits.rise_R[own]]
        sizes_RC = np.abs(residuals_RC)
        robust_R1 = _NORMAL * np.median(sizes_RC, axis=1, keepdims=True)
        squares_R = (np.minimum(sizes_RC, _MOST * robust_R1) ** 2).sum(1) / max(1, model.size - _PARAMETERS)
        return np.sqrt(squares_R), slope_R1 / self.lengths_T[curve_R][:, None] * model.curves_TC[curve_R]


def _rises(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and ramps from 0 to 1, shape [A, C], and the first risen cell of each."""
    after, cells = max(3, round(LEAST_AFTER * size)), np.arange(size)
    rises, firsts = [], []
    for share in _RAMPS:
        width = round(share * size)
        if share and width < 2:
            continue
        stride = max(1, size // (14 if share else 28))
        for first in range(int(np.ceil(_FIRST_RISE * size)), size - after + 1 - width // 2, stride):
            rises.append(np.clip((cells - first + 1) / (width + 1), 0, 1))
            firsts.append(first)
    return np.array(rises), np.array(firsts)


@lru_cache(maxsize=16)
def rise_model(at: tuple[int, ...], places: tuple[int, ...]) -> RiseModel:
    """Return the model for cells at some places, cached, since the runs of a series share these."""
    return RiseModel(np.array(at, dtype=np.float64), np.array(places))
