"""The second of two steps from loss to score: a sigmoid, and how well it predicts the scores at lower losses.

Shapes: P checkpoints.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lmsat_plugin.analysis.emergence.points import Scores

LEAST_FITTED = 8
LEAST_PREDICTED = 3
_SHARE_FITTED = 0.75
_PARAMETERS = 3
"""Of a sigmoid, beyond a constant's."""


@dataclass(frozen=True)
class TwoStep:
    """A sigmoid of the loss, fitted at higher losses and held against scores at lower ones."""

    floor: float
    height: float
    middle: float
    """The loss at which the score is halfway."""
    steepness: float
    """Per unit of the loss."""
    fitted_above: float
    """The fit has seen no loss below this one."""
    n_predicted: int
    error: float
    """Mean of predicted minus measured scores."""
    absolute_error: float
    """Mean of its absolute value."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        found = asdict(self)
        return {"n_foretold" if key == "n_predicted" else key: value for key, value in found.items()}

    def score(self, losses_P: np.ndarray) -> np.ndarray:
        """Return floor + height / (1 + e^(steepness · (L − middle)))."""
        return self.floor + self.height / (1 + np.exp(self.steepness * (losses_P - self.middle)))


def two_step(scores: Scores) -> TwoStep | None:
    """Return a sigmoid fitted to the three quarters of checkpoints with the higher losses.

    None for too few, and where it is no better than a constant by the Bayesian information criterion.

    Score = floor + height / (1 + e^(k (L − L₀))), as the second step of OLMo's ladder (Bhagia et al. 2024), with the
    floor at chance where that is known, and no score beyond a perfect one. Least squares from several starts.
    """
    from scipy.optimize import least_squares

    losses_P, scores_P = scores.losses_P, scores.table["score"].to_numpy()
    chance, perfect, sign = scores.chance, scores.perfect, scores.sign
    border = float(np.quantile(losses_P, 1 - _SHARE_FITTED))
    seen_P = losses_P >= border
    if seen_P.sum() < LEAST_FITTED or (~seen_P).sum() < LEAST_PREDICTED:
        return None
    gains_P = sign * scores_P
    floor = float(gains_P[seen_P].min()) if chance is None else sign * chance
    room = max(np.ptp(gains_P), 1e-6) * 4 if perfect is None else max(sign * perfect - floor, 1e-6)
    span = float(np.ptp(losses_P))
    slack = 1e-9 if chance is not None else max(float(np.ptp(gains_P)), 1e-6)
    low = [floor - slack, 1e-6 * room, losses_P.min() - 2 * span, 0.1 / span]
    high = [floor + slack, room, losses_P.max() + span, 200 / span]

    def residuals(values: np.ndarray) -> np.ndarray:
        exponents_P = np.clip(values[3] * (losses_P[seen_P] - values[2]), -500, 500)
        return values[0] + values[1] / (1 + np.exp(exponents_P)) - gains_P[seen_P]

    starts = [
        [floor, share * room, losses_P.min() + place * span, rate / span]
        for share in (0.3, 0.8)
        for place in (-0.2, 0.2, 0.6)
        for rate in (3.0, 10.0)
    ]
    fits = [
        least_squares(residuals, start, bounds=(low, high), x_scale=np.abs(start) + 1e-3) for start in starts
    ]
    fit = min(fits, key=lambda fit: fit.cost)
    constant = ((gains_P[seen_P] - gains_P[seen_P].mean()) ** 2).sum() / 2
    seen = int(seen_P.sum())
    if seen * np.log(max(constant, 1e-300) / max(fit.cost, 1e-300)) < _PARAMETERS * np.log(seen):
        return None
    best = fit.x
    found = TwoStep(
        floor=sign * float(best[0]),
        height=sign * float(best[1]),
        middle=float(best[2]),
        steepness=float(best[3]),
        fitted_above=border,
        n_predicted=int((~seen_P).sum()),
        error=0.0,
        absolute_error=0.0,
    )
    errors_P = found.score(losses_P[~seen_P]) - scores_P[~seen_P]
    return replace(found, error=float(errors_P.mean()), absolute_error=float(abs(errors_P).mean()))
