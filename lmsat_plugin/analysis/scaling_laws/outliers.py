"""Runs far from a law: those beyond ten deviations, and fits that leave out under-tuned runs, above the frontier.

Shapes: P points, Q constants, R samples of the bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmsat_plugin.analysis.scaling_laws import huber_regression as huber
from lmsat_plugin.analysis.scaling_laws.laws import Points

FAR = 10.0
"""How many robust standard deviations from the law a point is named."""
_ABOVE = 3.0
"""How many of them above the law a point counts as under-tuned."""
_LEAST_DEVIATION = 1e-4
"""Of log losses: what tables round off."""
_MAD = 1.4826
_MOST_ROUNDS = 8


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """A point far from the law."""

    row: int
    """From 1 on, in the table."""
    model: str | None
    loss: float
    predicted: float
    deviations: float
    """How many robust standard deviations the log loss lies above the law."""


@dataclass(frozen=True)
class WithoutOutliers:
    """The points far from the law, and the constants without them."""

    rows: tuple[Outlier, ...]
    params: dict[str, float]


def deviation(residuals_RP: np.ndarray, counts_RP: np.ndarray, constants: int) -> np.ndarray:
    """Return the robust standard deviation of log losses, shape [R]: 1.4826 times the median size of the residuals."""
    order_RP = np.argsort(np.abs(residuals_RP), axis=1)
    sizes_RP = np.take_along_axis(np.abs(residuals_RP), order_RP, axis=1)
    sums_RP = np.take_along_axis(counts_RP, order_RP, axis=1).cumsum(1)
    middle_R = (sums_RP >= sums_RP[:, -1:] / 2).argmax(1)
    medians_R = sizes_RP[np.arange(len(sizes_RP)), middle_R]
    drawn_R = (counts_RP > 0).sum(1)
    wider_R = np.sqrt(drawn_R / np.maximum(drawn_R - constants, 1))
    return np.maximum(_MAD * medians_R * wider_R, _LEAST_DEVIATION)


def far(problem: huber.Problem, theta_Q: np.ndarray, constants: int, counts_P: np.ndarray) -> np.ndarray:
    """Return how many robust standard deviations (of the points that count) each lies above the law, shape [P]."""
    residuals_P = problem.targets_P - problem.form.log_losses(theta_Q[None], problem.variables)[0][0]
    return residuals_P / deviation(residuals_P[None], counts_P[None], constants)[0]


def minimise_trimmed(
    problem: huber.Problem, starts_RQ: np.ndarray, free_Q: np.ndarray, counts_RP: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the minima without the points above the frontier, shape [R, Q], and how often each point counts, [R, P].

    In each sample the law is fitted, points more than three robust standard deviations above it are left out, and so on
    until none changes. The deviation is that of the points that are kept.
    """
    constants, kept_RP, theta_RQ = int(free_Q.sum()), counts_RP, starts_RQ
    for _ in range(_MOST_ROUNDS):
        theta_RQ, _ = huber.minimise(problem, theta_RQ, free_Q, kept_RP)
        residuals_RP = problem.targets_P - problem.form.log_losses(theta_RQ, problem.variables)[0]
        limits_R = _ABOVE * deviation(residuals_RP, kept_RP, constants)
        now_RP = counts_RP * (residuals_RP <= limits_R[:, None])
        # Too few points fit any law.
        now_RP = np.where(((now_RP > 0).sum(1) > constants)[:, None], now_RP, kept_RP)
        if (now_RP == kept_RP).all():
            break
        kept_RP = now_RP
    return theta_RQ, kept_RP


def described(points: Points, far_P: np.ndarray, predicted_P: np.ndarray, chosen_P: np.ndarray) -> tuple[Outlier, ...]:
    """Return the chosen points, the farthest first."""
    order = sorted(np.flatnonzero(chosen_P), key=lambda p: -abs(far_P[p]))
    names = points.table["model"].astype(str).to_numpy() if "model" in points.table else None
    index = points.table.index
    rows_P = [int(own) + 1 for own in index] if index.dtype.kind == "i" else list(range(1, len(index) + 1))
    return tuple(
        Outlier(
            row=rows_P[p],
            model=None if names is None else str(names[p]),
            loss=float(points.losses_P[p]),
            predicted=float(predicted_P[p]),
            deviations=float(far_P[p]),
        )
        for p in order
    )
