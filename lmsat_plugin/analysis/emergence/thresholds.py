"""At which loss an ability appears: a break from chance against curves that improve from the start.

Shapes: P checkpoints, C curves, E thresholds, R simulated tables of scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.analysis.emergence.curves import Fits, break_curves, smooth_curves

if TYPE_CHECKING:
    from lmsat_plugin.analysis.emergence.noise import Noise

CONFIDENCE = 0.9


@dataclass(frozen=True, eq=False)
class Break:
    """A break fitted to scores, and what it was held against. Scores count from chance, the higher the better."""

    threshold: float
    low: float
    high: float
    """The interval of 90 %; as far as thresholds were tried where it is not bounded."""
    bounded_low: bool
    bounded_high: bool
    p_value: float
    """Share of tables drawn from the best smooth curve in which a break is ahead as far as here."""
    break_p_value: float
    """The same of the best break and smooth curves."""
    flat_p_value: float
    """The same of a constant and any curve."""
    ahead: float
    """By how much the break's information criterion is below the best smooth curve's."""
    smooth: str
    """The best smooth curve's name."""
    plateau: float
    plateau_stderr: float
    drift: float
    """Improvement along the plateau, from its highest loss to the threshold."""
    drift_stderr: float
    start: float
    """The best smooth curve at the highest loss."""
    start_stderr: float
    rise: float
    """Of the break, from the plateau to the lowest loss."""
    fit_P: np.ndarray
    """The break's values, in the order of the scores."""
    smooth_P: np.ndarray


def fit_break(
    losses_P: np.ndarray, scores_P: np.ndarray, noise: Noise, *, repetitions: int = 400, seed: int = 0
) -> Break:
    """Fit breaks and smooth curves to scores by generalised least squares, and simulate either to compare them.

    The threshold is that of the break of least information criterion. Its interval holds the thresholds whose best
    break leaves a sum of squares as small, relatively, as the true threshold's in nine of ten tables drawn from the
    best break, widened by Student's factor for the number of runs that the noise is known from.
    """
    from scipy.stats import norm, t

    breaks_CP, etas_C, of_breaks_C = break_curves(losses_P)
    smooth_CP, names, of_smooth_C = smooth_curves(losses_P)
    breaks = len(breaks_CP)
    shapes_CP = np.vstack([breaks_CP, smooth_CP])
    fits = Fits.of(shapes_CP, np.concatenate([of_breaks_C, of_smooth_C]), noise)
    white_P = noise.whiten(scores_P)
    points = len(white_P)
    deviations_RP = np.random.default_rng(seed).standard_normal((repetitions, points))

    def ahead(white_RP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        flat_R, criteria_RC = fits.criteria(white_RP)
        best_R = criteria_RC.min(1)
        return criteria_RC[:, breaks:].min(1) - criteria_RC[:, :breaks].min(1), flat_R - best_R

    def draw(curve_P: np.ndarray, parameters: int) -> np.ndarray:
        scale = np.sqrt(((white_P - curve_P) ** 2).sum() / (points - parameters))
        return curve_P + scale * deviations_RP

    _, criteria_1C = fits.criteria(white_P[None])
    best, smooth = (
        int(np.argmin(criteria_1C[0, :breaks])),
        breaks + int(np.argmin(criteria_1C[0, breaks:])),
    )
    (found,), (unlike_flat,) = ahead(white_P[None])
    flat_P = fits.ones_P * (white_P @ fits.ones_P)
    from_smooth_R, _ = ahead(draw(fits.curve(white_P, smooth), fits.parameters_C[smooth]))
    from_break_R, _ = ahead(draw(fits.curve(white_P, best), fits.parameters_C[best]))
    _, from_flat_R = ahead(draw(flat_P, 1))

    forms = breaks // len(np.unique(etas_C))
    left_EF = fits.sums(white_P[None])[1][0, :breaks].reshape(-1, forms)
    nearest = int(np.argmin(left_EF))
    left_REF = fits.sums(draw(fits.curve(white_P, nearest), 4))[1][:, :breaks].reshape(repetitions, -1, forms)
    worse_R = np.log(left_REF[:, nearest // forms].min(1) / left_REF.min((1, 2)))
    student = t.ppf((1 + CONFIDENCE) / 2, len(noise.runs) - 1) / norm.ppf((1 + CONFIDENCE) / 2)
    enough = np.quantile(worse_R, CONFIDENCE) * student**2
    etas_E = etas_C[::forms]
    inside_E = np.log(left_EF.min(1) / left_EF.min()) <= enough
    inside_E[best // forms] = True
    # Between thresholds tried, the border lies somewhere.
    middles = np.concatenate([etas_E[:1], (etas_E[1:] + etas_E[:-1]) / 2, etas_E[-1:]])
    first, last = np.flatnonzero(inside_E)[[0, -1]]

    flat_and_rise = np.column_stack([np.ones(points), shapes_CP[best]])
    with_drift = np.column_stack(
        [flat_and_rise, np.minimum(losses_P.max() - losses_P, losses_P.max() - etas_C[best])]
    )
    at_start = np.column_stack([np.ones(points), shapes_CP[smooth] - shapes_CP[smooth][losses_P.argmax()]])
    (plateau, rise), (plateau_stderr, _) = _least_squares(noise, flat_and_rise, white_P)
    drifts, drift_stderrs = _least_squares(noise, with_drift, white_P)
    (start, climb), (start_stderr, _) = _least_squares(noise, at_start, white_P)
    length = losses_P.max() - etas_C[best]
    return Break(
        threshold=float(etas_C[best]),
        low=float(middles[first]),
        high=float(middles[last + 1]),
        bounded_low=not inside_E[0],
        bounded_high=not inside_E[-1],
        p_value=_share(from_smooth_R >= found),
        break_p_value=_share(from_break_R <= found),
        flat_p_value=_share(from_flat_R >= unlike_flat),
        ahead=float(found),
        smooth=names[smooth - breaks],
        plateau=plateau,
        plateau_stderr=plateau_stderr,
        drift=drifts[2] * length,
        drift_stderr=drift_stderrs[2] * length,
        start=start,
        start_stderr=start_stderr,
        rise=rise * float(shapes_CP[best].max()),
        fit_P=flat_and_rise @ [plateau, rise],
        smooth_P=at_start @ [start, climb],
    )


def _share(hits_R: np.ndarray) -> float:
    return float((1 + hits_R.sum()) / (1 + len(hits_R)))


def _least_squares(noise: Noise, design_PK: np.ndarray, white_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the coefficients of a design under some noise, and their standard errors."""
    white_PK = noise.whiten(design_PK.T).T
    inverse_KK = np.linalg.pinv(white_PK.T @ white_PK)
    found_K = inverse_KK @ white_PK.T @ white_P
    left = ((white_P - white_PK @ found_K) ** 2).sum() / max(1, len(white_P) - design_PK.shape[1])
    return found_K, np.sqrt(left * np.diag(inverse_KK))
