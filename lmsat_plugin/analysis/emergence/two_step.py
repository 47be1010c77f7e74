"""The second of two steps from compute to score: a sigmoid of the loss, tested at lower losses.

Shapes: P checkpoints.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from lmsat_plugin.analysis.emergence.points import Scores

LEAST_FITTED = 8
LEAST_PREDICTED = 3
_SHARE_FITTED = 0.75
_PARAMETERS = 3
"""How many parameters more than a constant a sigmoid has."""


@dataclass(frozen=True)
class TwoStep:
    """A sigmoid of the loss, fitted at higher losses and compared with scores at lower ones."""

    floor: float
    height: float
    middle: float
    """The loss at which the score is halfway."""
    steepness: float
    """Per unit of the loss."""
    fitted_above: float
    """The lowest loss that the fit used."""
    n_predicted: int
    """How many scores at lower losses are predicted."""
    error: float
    """Mean of predicted minus measured scores."""
    absolute_error: float
    """Mean of its absolute value."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; ``n_foretold`` is the name that ``n_predicted`` has in JSON."""
        return {"n_foretold" if key == "n_predicted" else key: value for key, value in asdict(self).items()}

    def score(self, losses_P: np.ndarray) -> np.ndarray:
        """Return floor + height / (1 + e^(steepness · (L − middle)))."""
        return self.floor + self.height / (1 + np.exp(self.steepness * (losses_P - self.middle)))


def two_step(scores: Scores) -> TwoStep | None:
    """Return a sigmoid fitted to the three quarters of checkpoints with the higher losses.

    Score = floor + height / (1 + e^(k (L − L₀))), the second step of OLMo's ladder (Bhagia et al. 2024), by least
    squares from several starts. The floor is at chance where that is known, and no score exceeds a perfect one.

    None for too few checkpoints, and where the Bayesian information criterion prefers a constant.
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
    fits = [least_squares(residuals, start, bounds=(low, high), x_scale=np.abs(start) + 1e-3) for start in starts]
    fit = min(fits, key=lambda fit: fit.cost)
    constant = ((gains_P[seen_P] - gains_P[seen_P].mean()) ** 2).sum() / 2
    seen = int(seen_P.sum())
    if seen * np.log(max(constant, 1e-300) / max(fit.cost, 1e-300)) < _PARAMETERS * np.log(seen):
        return None
    best = fit.x
    sigmoid = TwoStep(
        floor=sign * float(best[0]),
        height=sign * float(best[1]),
        middle=float(best[2]),
        steepness=float(best[3]),
        fitted_above=border,
        n_predicted=int((~seen_P).sum()),
        error=0.0,
        absolute_error=0.0,
    )
    errors_P = sigmoid.score(losses_P[~seen_P]) - scores_P[~seen_P]
    return replace(sigmoid, error=float(errors_P.mean()), absolute_error=float(abs(errors_P).mean()))
