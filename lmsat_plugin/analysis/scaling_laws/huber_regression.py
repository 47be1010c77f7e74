"""Huber regression of log losses: the search for the least sum, from many starts or for many samples at once.

Shapes: P points, K terms, Q constants, F of these that are fitted, G points of the grid, R samples or starts.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from lmsat_plugin.analysis.scaling_laws.forms import Line, PowerSum, Variables

DELTA = 1e-3
"""Where the Huber loss turns from a square into a line, in log loss (Hoffmann et al. 2022, Sec. 3.3)."""
GRID = tuple(np.geomspace(0.02, 3, 16))
"""Exponents to start from."""
_FOLLOWED = 48
_OFF = 1 + np.outer([-1, 1], np.geomspace(1e-4, 0.25, 40)).ravel()
_MOST_STEPS = 500
_LONGEST_STEP = 3.0
_NO_GAIN = 1e-11
_EXACT = 1e-22
_SMALLEST_TERM = 1e-3


def objective(residuals_RP: np.ndarray, weights_RP: np.ndarray | float = 1.0) -> np.ndarray:
    """Return Σ_p w_p · Huber(residual_p), shape [R]. A mean would stop optimisers early (Besiroglu et al. 2024)."""
    sizes_RP = np.abs(residuals_RP)
    inner_RP = np.minimum(sizes_RP, DELTA)
    return (weights_RP * inner_RP * (sizes_RP - inner_RP / 2)).sum(-1)


@dataclass(frozen=True, eq=False)
class Problem:
    """A law's form and the points that it is fitted to."""

    form: PowerSum | Line
    targets_P: np.ndarray
    """ln of the observed losses."""
    variables: Variables
    """As the form takes them."""


def minimise(
    problem: Problem, starts_RQ: np.ndarray, free_Q: np.ndarray, weights_RP: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the minima that the starts lead to, shape [R, Q], and their objectives, shape [R].

    Each step solves Jᵀ diag(h + λ w) J · step = gradient, with w = min(1, δ/|r|) the weights of iteratively
    reweighted least squares and h = 1 where |r| ≤ δ, else 0, the Huber loss' second derivative: Newton's step
    for λ → 0, the reweighted one for λ = 1, a shorter one beyond. λ falls after a step that helps, else it rises.

    Constants that are not free stay. ``weights_RP`` is how often each point counts, by sample; once by default.
    """
    form, targets_P, variables = problem.form, problem.targets_P, problem.variables
    theta_RQ = starts_RQ.astype(np.float64)
    free = np.flatnonzero(free_Q)
    logs_RP, derivatives_RPQ = form.log_losses(theta_RQ, variables)
    residuals_RP, jacobian_RPF = logs_RP - targets_P, derivatives_RPQ[..., free]
    counts_RP = np.ones_like(residuals_RP) if weights_RP is None else weights_RP
    least_R = objective(residuals_RP, counts_RP)
    minima_RQ, objectives_R = theta_RQ.copy(), least_R.copy()
    if not len(free):
        return minima_RQ, objectives_R
    rows_R = np.arange(len(theta_RQ))
    damping_R, idle_R = np.ones(len(theta_RQ)), np.zeros(len(theta_RQ), dtype=int)
    for _ in range(_MOST_STEPS):
        trial_RQ = theta_RQ.copy()
        trial_RQ[:, free] -= _steps(residuals_RP, jacobian_RPF, counts_RP, damping_R)
        # A step out of the law's domain has no objective and is not taken.
        with np.errstate(all="ignore"):
            logs_RP, derivatives_RPQ = form.log_losses(trial_RQ, variables)
            trial_R = objective(logs_RP - targets_P, counts_RP)
        better_R = trial_R < least_R
        idle_R = np.where(better_R & (least_R - trial_R > _NO_GAIN * least_R), 0, idle_R + better_R)
        theta_RQ[better_R], least_R[better_R] = trial_RQ[better_R], trial_R[better_R]
        residuals_RP[better_R] = logs_RP[better_R] - targets_P
        jacobian_RPF[better_R] = derivatives_RPQ[better_R][..., free]
        damping_R = np.where(better_R, damping_R / 5, 5 * np.maximum(damping_R, 1e-3))
        minima_RQ[rows_R], objectives_R[rows_R] = theta_RQ, least_R
        open_R = (idle_R < 2) & (damping_R < 1e9) & (least_R > _EXACT)
        if not open_R.any():
            break
        if not open_R.all():
            rows_R, theta_RQ, least_R = rows_R[open_R], theta_RQ[open_R], least_R[open_R]
            residuals_RP, jacobian_RPF = residuals_RP[open_R], jacobian_RPF[open_R]
            counts_RP, damping_R, idle_R = counts_RP[open_R], damping_R[open_R], idle_R[open_R]
    return minima_RQ, objectives_R


def _steps(
    residuals_RP: np.ndarray, jacobian_RPF: np.ndarray, counts_RP: np.ndarray, damping_R: np.ndarray
) -> np.ndarray:
    sizes_RP = np.abs(residuals_RP)
    weights_RP = np.minimum(1, DELTA / np.maximum(sizes_RP, _EXACT))
    curvatures_RP = counts_RP * ((sizes_RP <= DELTA) + damping_R[:, None] * weights_RP)
    transposed_RFP = jacobian_RPF.transpose(0, 2, 1)
    hessians_RFF = transposed_RFP @ (curvatures_RP[..., None] * jacobian_RPF)
    gradients_RF1 = transposed_RFP @ (counts_RP * weights_RP * residuals_RP)[..., None]
    diagonals_RF = np.einsum("rff->rf", hessians_RFF)
    diagonals_RF *= 1 + 1e-12
    diagonals_RF += 1e-20
    steps_RF = np.linalg.solve(hessians_RFF, gradients_RF1)[..., 0]
    return np.clip(steps_RF, -_LONGEST_STEP, _LONGEST_STEP)


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The best minimum, and all minima that the grid leads to."""

    theta_Q: np.ndarray
    objective: float
    ends_GQ: np.ndarray
    """The minima that the best points of the grid lead to."""
    ends_G: np.ndarray
    """The objectives of these minima."""


def search(problem: Problem, given_Q: np.ndarray) -> SearchResult:
    """Return the best fit, by variable projection on a grid of exponents and by descent from its best points.

    At given exponents the law is linear in its coefficients. Non-negative least squares of relative residuals start
    them, and reweighting takes them to the least Huber loss. ``given_Q`` is NaN for constants that are fitted.
    """
    free_Q, form = np.isnan(given_Q), problem.form
    if isinstance(form, Line):
        starts_GQ = _line_start(form, problem, given_Q)
    else:
        linear_Q = free_Q & [name in form.coefficients for name in form.names]
        starts_GQ = _grid_starts(form, problem, given_Q)
        starts_GQ, projected_G = minimise(problem, starts_GQ, linear_Q)
        starts_GQ = starts_GQ[np.argsort(projected_G)[:_FOLLOWED]]
    ends_GQ, ends_G = minimise(problem, starts_GQ, free_Q)
    best = int(np.argmin(ends_G))
    return SearchResult(theta_Q=ends_GQ[best], objective=float(ends_G[best]), ends_GQ=ends_GQ, ends_G=ends_G)


def valley(problem: Problem, theta_Q: np.ndarray, free_Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return minima with one constant held off its optimum, shape [G, Q], and their objectives, shape [G].

    Each fitted exponent in turn is held at 0.75 to 1.25 times its value; of a `Line`, each constant.
    """
    form = problem.form
    held = form.exponents or form.names
    minima = [(np.empty((0, len(theta_Q))), np.empty(0))]
    for index in [form.names.index(name) for name in held]:
        if free_Q[index]:
            starts_GQ = np.repeat(theta_Q[None], len(_OFF), axis=0)
            starts_GQ[:, index] *= _OFF
            others_Q = free_Q & (np.arange(len(free_Q)) != index)
            minima.append(minimise(problem, starts_GQ, others_Q))
    thetas, objectives = zip(*minima, strict=True)
    return np.concatenate(thetas), np.concatenate(objectives)


def _line_start(form: Line, problem: Problem, given_Q: np.ndarray) -> np.ndarray:
    """Return the least-squares line of relative residuals through the given constants, shape [1, Q]."""
    inverse_P = np.exp(-problem.targets_P)
    columns_PQ = np.column_stack([inverse_P, problem.variables[form.variable] * inverse_P])
    free_Q, start_Q = np.isnan(given_Q), given_Q.copy()
    rest_P = 1 - columns_PQ[:, ~free_Q] @ given_Q[~free_Q]
    start_Q[free_Q] = np.linalg.lstsq(columns_PQ[:, free_Q], rest_P, rcond=None)[0]
    return start_Q[None]


def _grid_starts(form: PowerSum, problem: Problem, given_Q: np.ndarray) -> np.ndarray:
    """Return the exponents of the grid with the coefficients of non-negative least squares, shape [G, Q]."""
    from scipy.optimize import nnls

    terms, targets_P, variables = len(form.terms), problem.targets_P, problem.variables
    ranges = [GRID if np.isnan(value) else (value,) for value in given_Q[terms:]]
    grid = np.array(list(itertools.product(*ranges))).reshape(-1, len(ranges))
    known_K = ~np.isnan(given_Q[:terms])
    starts_GQ = np.column_stack([np.tile(np.where(known_K, given_Q[:terms], 0.0), (len(grid), 1)), grid])
    logs_KGP, p_G1 = form.log_terms(starts_GQ, variables)
    logs_KGP = logs_KGP - targets_P / p_G1
    shifts_KG = logs_KGP.max(-1)
    for g in range(len(grid)):
        basis_PK = np.exp(logs_KGP[:, g] - np.where(known_K, 0.0, shifts_KG[:, g])[:, None]).T
        rest_P = 1 - basis_PK[:, known_K].sum(1)
        coefficients = nnls(basis_PK[:, ~known_K], rest_P)[0] if not known_K.all() else np.empty(0)
        logs = np.log(np.maximum(coefficients, _SMALLEST_TERM)) - shifts_KG[~known_K, g]
        starts_GQ[g, np.flatnonzero(~known_K)] = logs * p_G1[g]
    if form.inside:
        for k, term in enumerate(form.terms):
            if term.exponent is not None and not known_K[k]:
                starts_GQ[:, k] /= starts_GQ[:, form.names.index(term.exponent)]
    return starts_GQ


def condition_numbers(problem: Problem, theta_Q: np.ndarray, free_Q: np.ndarray) -> tuple[float | None, float | None]:
    """Return the condition numbers of the Jacobian of log losses by all fitted constants, and by the exponents alone.

    Coefficients count as logarithms; what they explain is projected out for the exponents. None without such constants.
    """
    form = problem.form
    jacobian_PQ = form.log_losses(theta_Q[None], problem.variables)[1][0]
    nonlinear_Q = np.array([name in form.exponents for name in form.names])
    outer_PF = jacobian_PQ[:, free_Q & nonlinear_Q]
    if (inner_PF := jacobian_PQ[:, free_Q & ~nonlinear_Q]).size:
        outer_PF = outer_PF - inner_PF @ np.linalg.lstsq(inner_PF, outer_PF, rcond=None)[0]
    return _condition(jacobian_PQ[:, free_Q]), _condition(outer_PF)


def _condition(matrix: np.ndarray) -> float | None:
    if not matrix.shape[1]:
        return None
    number = float(np.linalg.cond(matrix))
    return number if np.isfinite(number) else None
