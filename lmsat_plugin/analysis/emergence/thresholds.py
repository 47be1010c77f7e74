"""The loss at which an ability appears: a break fitted to scores, and its comparison with smooth curves.

Shapes: P checkpoints, C curves, E thresholds, F forms of a curve, R simulated tables of scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lmsat_plugin.analysis.emergence.curves import CurveFits, break_curves, smooth_curves
from lmsat_plugin.analysis.emergence.noise import Noise
from lmsat_plugin.analysis.stats.bootstrap import CONFIDENCE, TAIL, p_value


@dataclass(frozen=True, eq=False)
class BreakFit:
    """A break fitted to scores, compared with smooth curves. Scores count from chance; higher is better."""

    threshold: float
    low: float
    high: float
    """``low`` and ``high`` are the ends of the 90 % interval; where it is not bounded, the last threshold tried."""
    bounded_low: bool
    bounded_high: bool
    p_value: float
    """Share of tables drawn from the best smooth curve in which a break is ahead by as much."""
    break_p_value: float
    """Share of tables drawn from the best break in which a smooth curve is ahead by as much."""
    flat_p_value: float
    """Share of tables drawn from a constant in which some curve is ahead of a constant by as much."""
    ahead: float
    """The best smooth curve's Bayesian information criterion minus the break's."""
    smooth: str
    """The name of the best smooth curve."""
    plateau: float
    plateau_stderr: float
    drift: float
    """Improvement along the plateau, from the highest loss to the threshold."""
    drift_stderr: float
    start: float
    """The value of the best smooth curve at the highest loss."""
    start_stderr: float
    rise: float
    """Of the break, from the plateau to the lowest loss."""
    fit_P: np.ndarray
    """The values of the break, in the order of the scores."""
    smooth_P: np.ndarray
    """The values of the best smooth curve."""


def fit_break(
    losses_P: np.ndarray, scores_P: np.ndarray, noise: Noise, *, repetitions: int = 400, seed: int = 0
) -> BreakFit:
    """Fit breaks and smooth curves to scores by generalised least squares, and compare them by simulation.

    The threshold is that of the break with the least information criterion. Its interval is by inversion of a
    likelihood-ratio test: it holds the thresholds whose best break leaves a sum of squares, relative to the least, that
    the true threshold exceeds in one of ten tables drawn from the best break. The ratio is widened by Student's factor
    for the number of runs that the noise is known from. Scores count from chance; higher is better.
    """
    deviations_RP = np.random.default_rng(seed).standard_normal((repetitions, len(scores_P)))
    curves = _Curves(losses_P, scores_P, noise, deviations_RP)
    best, smooth = curves.best_break, curves.best_smooth
    at_start_P = curves.shapes_CP[smooth] - curves.shapes_CP[smooth][losses_P.argmax()]
    start, climb, start_stderr = _level_and_rise(noise, at_start_P, curves.white_P)
    plateau, rise, plateau_stderr = _level_and_rise(noise, curves.shapes_CP[best], curves.white_P)
    drift, drift_stderr = _drift(curves, losses_P, noise)
    return BreakFit(
        threshold=float(curves.etas_C[best]),
        **_interval(curves, len(noise.runs)),
        **_comparison(curves),
        smooth=curves.smooth_names[smooth - curves.breaks],
        plateau=plateau,
        plateau_stderr=plateau_stderr,
        drift=drift,
        drift_stderr=drift_stderr,
        start=start,
        start_stderr=start_stderr,
        rise=rise * float(curves.shapes_CP[best].max()),
        fit_P=plateau + rise * curves.shapes_CP[best],
        smooth_P=start + climb * at_start_P,
    )


class _Curves:
    """The fits of all breaks, which come first, and of all smooth curves to one table of scores."""

    def __init__(self, losses_P: np.ndarray, scores_P: np.ndarray, noise: Noise, deviations_RP: np.ndarray) -> None:
        breaks_CP, self.etas_C, of_breaks_C = break_curves(losses_P)
        smooth_CP, self.smooth_names, of_smooth_C = smooth_curves(losses_P)
        self.breaks = len(breaks_CP)
        self.shapes_CP = np.vstack([breaks_CP, smooth_CP])
        self.fits = CurveFits.of(self.shapes_CP, np.concatenate([of_breaks_C, of_smooth_C]), noise)
        self.white_P = noise.whiten(scores_P)
        self._deviations_RP = deviations_RP
        _, ((*criteria_C,),) = self.fits.criteria(self.white_P[None])
        self.best_break = int(np.argmin(criteria_C[: self.breaks]))
        self.best_smooth = self.breaks + int(np.argmin(criteria_C[self.breaks :]))

    def ahead(self, white_RP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how far breaks are ahead of smooth curves, and any curve of a constant, by information criterion."""
        flat_R, criteria_RC = self.fits.criteria(white_RP)
        best_R = criteria_RC.min(1)
        return criteria_RC[:, self.breaks :].min(1) - criteria_RC[:, : self.breaks].min(1), flat_R - best_R

    def draw(self, curve_P: np.ndarray, parameters: int) -> np.ndarray:
        """Return tables of scores about a whitened curve, with noise of the size of its residuals, shape [R, P]."""
        left = ((self.white_P - curve_P) ** 2).sum() / (len(curve_P) - parameters)
        return curve_P + np.sqrt(left) * self._deviations_RP

    def draw_fit(self, index: int) -> np.ndarray:
        """Return tables of scores about the fit of one curve."""
        return self.draw(self.fits.curve(self.white_P, index), self.fits.parameters_C[index])


def _comparison(curves: _Curves) -> dict[str, Any]:
    """Return how far the break is ahead, and the p-values against smooth curves, breaks and a constant."""
    (ahead,), (unlike_flat,) = curves.ahead(curves.white_P[None])
    flat_P = curves.fits.ones_P * (curves.white_P @ curves.fits.ones_P)
    from_smooth_R, _ = curves.ahead(curves.draw_fit(curves.best_smooth))
    from_break_R, _ = curves.ahead(curves.draw_fit(curves.best_break))
    _, from_flat_R = curves.ahead(curves.draw(flat_P, 1))
    return {
        "ahead": float(ahead),
        "p_value": _share(from_smooth_R >= ahead),
        "break_p_value": _share(from_break_R <= ahead),
        "flat_p_value": _share(from_flat_R >= unlike_flat),
    }


def _interval(curves: _Curves, runs: int) -> dict[str, Any]:
    """Return the 90 % interval of the threshold, and whether each end lies within the thresholds tried."""
    # As scipy.stats, whose import takes longer than the rest of it.
    from scipy.special import ndtri, stdtrit

    breaks, etas_C = curves.breaks, curves.etas_C
    forms = breaks // len(np.unique(etas_C))
    left_EF = curves.fits.sums(curves.white_P[None])[1][0, :breaks].reshape(-1, forms)
    nearest = int(np.argmin(left_EF))
    drawn_RP = curves.draw(curves.fits.curve(curves.white_P, nearest), 4)
    left_REF = curves.fits.sums(drawn_RP)[1][:, :breaks].reshape(len(drawn_RP), -1, forms)
    worse_R = np.log(left_REF[:, nearest // forms].min(1) / left_REF.min((1, 2)))
    student = float(stdtrit(runs - 1, 1 - TAIL)) / float(ndtri(1 - TAIL))
    enough = np.quantile(worse_R, CONFIDENCE) * student**2
    etas_E = etas_C[::forms]
    inside_E = np.log(left_EF.min(1) / left_EF.min()) <= enough
    inside_E[curves.best_break // forms] = True
    # The end lies between two thresholds tried.
    middles = np.concatenate([etas_E[:1], (etas_E[1:] + etas_E[:-1]) / 2, etas_E[-1:]])
    first, last = np.flatnonzero(inside_E)[[0, -1]]
    return {
        "low": float(middles[first]),
        "high": float(middles[last + 1]),
        "bounded_low": not inside_E[0],
        "bounded_high": not inside_E[-1],
    }


def _level_and_rise(noise: Noise, shape_P: np.ndarray, white_P: np.ndarray) -> tuple[float, float, float]:
    """Return level and rise of a curve, level + rise · shape, and the standard error of the level."""
    (level, rise), (stderr, _) = _least_squares(noise, np.column_stack([np.ones(len(shape_P)), shape_P]), white_P)
    return level, rise, stderr


def _drift(curves: _Curves, losses_P: np.ndarray, noise: Noise) -> tuple[float, float]:
    """Return the improvement along the plateau, from the highest loss to the threshold, and its standard error."""
    best = curves.best_break
    length = losses_P.max() - curves.etas_C[best]
    along_P = np.minimum(losses_P.max() - losses_P, length)
    design = np.column_stack([np.ones(len(losses_P)), curves.shapes_CP[best], along_P])
    drifts, stderrs = _least_squares(noise, design, curves.white_P)
    return drifts[2] * length, stderrs[2] * length


def _share(hits_R: np.ndarray) -> float:
    return p_value(int(hits_R.sum()), len(hits_R))


def _least_squares(noise: Noise, design_PK: np.ndarray, white_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the coefficients of a design under some noise, and their standard errors."""
    white_PK = noise.whiten(design_PK.T).T
    inverse_KK = np.linalg.pinv(white_PK.T @ white_PK)
    coefficients_K = inverse_KK @ white_PK.T @ white_P
    left = ((white_P - white_PK @ coefficients_K) ** 2).sum() / max(1, len(white_P) - design_PK.shape[1])
    return coefficients_K, np.sqrt(left * np.diag(inverse_KK))
