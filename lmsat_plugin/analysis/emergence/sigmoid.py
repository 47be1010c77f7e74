"""A sigmoid of the loss with free floor and ceiling and an ideal point, by least squares of many samples at once.

Shapes: P checkpoints, R samples or starts, 4 constants: floor, ceiling, middle, steepness.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

_MOST_STEPS = 200
_NO_GAIN = 1e-8


@dataclass(frozen=True)
class Sigmoid:
    """Score = floor + (ceiling − floor) / (1 + e^(steepness · (L − middle)))."""

    floor: float
    """The score that a large loss tends to."""
    ceiling: float
    """The score that small losses tend to."""
    middle: float
    """The loss at which the score is halfway."""
    steepness: float
    """Per unit of the loss."""

    def score(self, losses_P: np.ndarray) -> np.ndarray:
        """Return the scores at some losses."""
        return sigmoid(np.array([[self.floor, self.ceiling, self.middle, self.steepness]]), losses_P)[0]


@dataclass(frozen=True)
class SigmoidFit:
    """The constants that fit best, and those of each sample."""

    best: Sigmoid
    squares: float
    """The sum of squared residuals, of the best fit and without the ideal point."""
    samples_R4: np.ndarray


def sigmoid(theta_R4: np.ndarray, losses_P: np.ndarray) -> np.ndarray:
    """Return the scores of each set of constants, shape [R, P]."""
    floor_R1, ceiling_R1, middle_R1, steepness_R1 = (theta_R4[:, [index]] for index in range(4))
    return floor_R1 + (ceiling_R1 - floor_R1) * _share(steepness_R1 * (losses_P - middle_R1))


def _share(exponents_RP: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(np.clip(exponents_RP, -500, 500)))


def fit_sigmoid(
    losses_P: np.ndarray, scores_P: np.ndarray, *, ideal: float | None, counts_RP: np.ndarray | None = None
) -> SigmoidFit:
    """Return the least-squares sigmoid of scores that rise as the loss falls (Bhagia et al. 2024, eq. 2).

    As they do, a loss of 0 with the ``ideal`` score counts as one more point, and the ceiling is at most that score;
    None where no ideal is known. A share's floor is at least 0. ``counts_RP`` is how often each sample draws a point.
    """
    least, most = float(scores_P.min()), float(scores_P.max())
    room = max(most - least, 1e-6)
    top = most + 4 * room if ideal is None else ideal
    bottom = 0.0 if ideal == 1.0 and least >= 0 else least - room
    span = float(np.ptp(losses_P)) or 1.0
    low_4 = np.array([bottom, bottom, losses_P.min() - 2 * span, 0.1 / span])
    high_4 = np.array([top, top, losses_P.max() + span, 200 / span])
    x_P, y_P = losses_P, scores_P
    if ideal is not None:
        x_P, y_P = np.append(losses_P, 0.0), np.append(scores_P, ideal)
        low_4[2], low_4[3] = min(low_4[2], 0.0), 0.1 / float(np.ptp(x_P))
    starts = [
        (least, most + share * (top - most), low + place * (losses_P.max() - low), rate / span)
        for share, low, place, rate in itertools.product(
            (0.0, 1.0), sorted({float(losses_P.min()), float(x_P.min())}), (0.2, 0.6, 1.0), (1.0, 3.0, 10.0)
        )
    ]
    found_R4, squares_R = _minimise(np.array(starts), x_P, y_P, np.ones((1, len(x_P))), low_4=low_4, high_4=high_4)
    best_4 = found_R4[int(np.argmin(squares_R))]
    samples_R4 = np.empty((0, 4))
    if counts_RP is not None and len(counts_RP):
        if ideal is not None:
            counts_RP = np.column_stack([counts_RP, np.ones(len(counts_RP))])
        samples_R4, _ = _minimise(
            np.repeat(best_4[None], len(counts_RP), 0), x_P, y_P, counts_RP, low_4=low_4, high_4=high_4
        )
    fitted = Sigmoid(*map(float, best_4))
    squares = float(((fitted.score(losses_P) - scores_P) ** 2).sum())
    return SigmoidFit(best=fitted, squares=squares, samples_R4=samples_R4)


def _minimise(
    starts_R4: np.ndarray,
    x_P: np.ndarray,
    y_P: np.ndarray,
    counts_RP: np.ndarray,
    low_4: np.ndarray,
    high_4: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the minima that the starts lead to within bounds, by Levenberg and Marquardt's damped steps."""
    theta_R4 = np.clip(starts_R4, low_4, high_4)
    scale_4 = (high_4 - low_4) / 100
    residuals_RP = sigmoid(theta_R4, x_P) - y_P
    squares_R = (counts_RP * residuals_RP**2).sum(1)
    damping_R, idle_R = np.full(len(theta_R4), 1e-2), np.zeros(len(theta_R4), dtype=int)
    for _ in range(_MOST_STEPS):
        jacobian_RP4 = _jacobian(theta_R4, x_P) * scale_4
        weighted_RP4 = jacobian_RP4 * counts_RP[..., None]
        gradient_R4 = np.einsum("rpk,rp->rk", weighted_RP4, residuals_RP)
        # A constant at its bound stays there while the gradient points beyond it.
        held_R4 = ((theta_R4 <= low_4) & (gradient_R4 > 0)) | ((theta_R4 >= high_4) & (gradient_R4 < 0))
        hessian_R44 = np.einsum("rpk,rpl->rkl", weighted_RP4, jacobian_RP4)
        hessian_R44[held_R4] = 0
        hessian_R44.transpose(0, 2, 1)[held_R4] = 0
        gradient_R4[held_R4] = 0
        diagonal_R4 = np.einsum("rkk->rk", hessian_R44)
        diagonal_R4 += damping_R[:, None] * (diagonal_R4 + 1e-9) + held_R4 + 1e-15
        steps_R4 = np.linalg.solve(hessian_R44, gradient_R4[..., None])[..., 0] * scale_4
        trial_R4 = np.clip(theta_R4 - steps_R4, low_4, high_4)
        trials_RP = sigmoid(trial_R4, x_P) - y_P
        trial_R = (counts_RP * trials_RP**2).sum(1)
        better_R = trial_R < squares_R
        gained_R = better_R & (squares_R - trial_R > _NO_GAIN * squares_R)
        idle_R = np.where(gained_R, 0, idle_R + 1)
        theta_R4[better_R], squares_R[better_R] = trial_R4[better_R], trial_R[better_R]
        residuals_RP[better_R] = trials_RP[better_R]
        damping_R = np.where(better_R, damping_R / 5, damping_R * 4)
        if (idle_R > 5).all():
            break
    return theta_R4, squares_R


def _jacobian(theta_R4: np.ndarray, x_P: np.ndarray) -> np.ndarray:
    """Return the derivatives of the scores by the constants, shape [R, P, 4]."""
    floor_R1, ceiling_R1, middle_R1, steepness_R1 = (theta_R4[:, [index]] for index in range(4))
    share_RP = _share(steepness_R1 * (x_P - middle_R1))
    slopes_RP = (ceiling_R1 - floor_R1) * share_RP * (1 - share_RP)
    return np.stack([1 - share_RP, share_RP, slopes_RP * steepness_R1, -slopes_RP * (x_P - middle_R1)], axis=-1)
