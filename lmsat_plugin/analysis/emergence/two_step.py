"""The second of two steps from compute to score: a sigmoid of the loss, tested at lower losses.

Shapes: P checkpoints.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from lmsat_plugin.analysis.emergence.points import Scores
from lmsat_plugin.analysis.emergence.sigmoid import SigmoidFit, fit_sigmoid

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
    """Return a sigmoid fitted to the three quarters of checkpoints with the higher losses; see `fit_sigmoid`.

    None for too few checkpoints, and where the Bayesian information criterion prefers a constant.
    """
    losses_P, scores_P, sign = scores.losses_P, scores.table["score"].to_numpy(), scores.sign
    border = float(np.quantile(losses_P, 1 - _SHARE_FITTED))
    seen_P = losses_P >= border
    if seen_P.sum() < LEAST_FITTED or (~seen_P).sum() < LEAST_PREDICTED:
        return None
    fit = fit_sigmoid(losses_P[seen_P], sign * scores_P[seen_P], ideal=ideal_of(scores))
    if not rises(fit, scores_P[seen_P]):
        return None
    sigmoid = TwoStep(
        floor=sign * fit.best.floor,
        height=sign * (fit.best.ceiling - fit.best.floor),
        middle=fit.best.middle,
        steepness=fit.best.steepness,
        fitted_above=border,
        n_predicted=int((~seen_P).sum()),
        error=0.0,
        absolute_error=0.0,
    )
    errors_P = sigmoid.score(losses_P[~seen_P]) - scores_P[~seen_P]
    return replace(sigmoid, error=float(errors_P.mean()), absolute_error=float(abs(errors_P).mean()))


def ideal_of(scores: Scores) -> float | None:
    """Return the score at a loss of 0, negated where lower is better; None where it is unknown."""
    return None if scores.perfect is None else scores.sign * scores.perfect


def rises(fit: SigmoidFit, scores_P: np.ndarray) -> bool:
    """Return whether the Bayesian information criterion prefers the sigmoid to a constant."""
    constant = ((scores_P - scores_P.mean()) ** 2).sum()
    gain = np.log(max(constant, 1e-300) / max(fit.squares, 1e-300))
    return bool(len(scores_P) * gain >= _PARAMETERS * np.log(len(scores_P)))
