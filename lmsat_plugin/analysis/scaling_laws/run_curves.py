"""The learning curve of one run: a saturating and a broken power law, where it decelerates and ends (`fit_curves`).

Shapes: K checkpoints, G points of the grid of the constants in which a form is not linear, R samples.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.analysis.given_numbers import check_number, check_simulation
from lmsat_plugin.analysis.input_tables import check_magnitudes, check_models, check_steps, is_tidy, numbers, table_of
from lmsat_plugin.analysis.losses import check_nats, loss_of_results, without_diverged
from lmsat_plugin.analysis.scaling_laws.fitted_law import Derived
from lmsat_plugin.analysis.stats.autoregressive import simulate
from lmsat_plugin.analysis.stats.bootstrap import interval
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.series import labelled
from lmsat_plugin.results.tree import Results

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

LEAST_FOR_CURVE = 10
"""How many checkpoints a curve needs: twice the constants of a broken law."""
LEAST_TO_EXTRAPOLATE = 6
"""How many checkpoints a saturating law needs: twice its constants."""
_SATURATING, _BROKEN = "saturating", "broken"
_RATES = np.geomspace(0.02, 3, 400)
_SHARPNESS = (0.1, 0.3, 0.8)
_BREAKS = 200
_MOST_POINTS = 300
_FARTHEST = 1e60
_SEEN = 0.5
"""The share of the steps that the held-out fit sees."""


@dataclass(frozen=True, kw_only=True)
class RunCurve:
    """The form that describes a run's losses best, and what follows from it."""

    model: str
    axis: str
    """``step`` or ``tokens``: what t is."""
    form: str
    """``saturating``, L = E + B t^-c, or ``broken``, L = B t^-c (1 + (t/d)^(1/f))^(c_drop f)."""
    params: dict[str, float]
    residual_rms: float
    n_points: int
    deceleration: Derived
    """The t at which a broken law slows down, d; a value only where that form is better and slows down."""
    at: float
    """The t of ``final``: the one that was asked for, else that of the last checkpoint."""
    final: Derived
    """The loss there, of the curve."""
    held_out: dict[str, float] | None
    """The last loss, predicted from the first half of the steps: ``until, predicted, low, high, observed, gap``."""
    t_K: np.ndarray = field(repr=False, compare=False)
    losses_K: np.ndarray = field(repr=False, compare=False)
    """``t_K`` and ``losses_K`` are the checkpoints that were fitted."""
    tokens_K: np.ndarray | None = field(default=None, repr=False, compare=False)
    """Their tokens, where t is steps and the data have them."""

    def losses_at(self, t_M: np.ndarray) -> np.ndarray:
        """Return the losses of the curve at some t, shape [M]."""
        constants = self.params
        if self.form == _SATURATING:
            return constants["E"] + constants["B"] * t_M ** -constants["c"]
        linear = np.array([np.log(constants["B"]), constants["c"], constants["c_drop"]])
        return np.exp(_columns(_BROKEN, t_M, np.array([constants["d"], constants["f"]])) @ linear)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as ``lmsat fit curve --json`` prints it: all but the checkpoints."""
        return {name: value for name, value in asdict(self).items() if not name.endswith("_K")}

    def over_tokens(self) -> RunCurve:
        """Return the same curve with tokens as t. Raises `LmsatError` where a step is not always as many tokens."""
        if self.axis == "tokens":
            return self
        ratio_K = np.array([]) if self.tokens_K is None else self.tokens_K / self.t_K
        if not len(ratio_K) or not np.allclose(ratio_K, ratio_K[-1], rtol=1e-6):
            raise LmsatError(
                f"the tokens of {self.model} are not known, or not the same at each step: give tokens_per_step, "
                "or draw over steps"
            )
        k = float(ratio_K[-1])
        scales = {"B": k ** self.params["c"], "d": k}
        slows = {
            name: None if value is None else k * value
            for name, value in asdict(self.deceleration).items()
            if name != "reason"
        }
        return replace(
            self,
            axis="tokens",
            params={name: value * scales.get(name, 1.0) for name, value in self.params.items()},
            deceleration=replace(self.deceleration, **slows),
            at=k * self.at,
            held_out=None if self.held_out is None else {**self.held_out, "until": k * self.held_out["until"]},
            t_K=k * self.t_K,
        )


def fit_curves(
    data: Results | pd.DataFrame, *, at: float | None = None, repetitions: int = 200, seed: int = 0
) -> list[RunCurve]:
    """Return the learning curve of each model.

    Both forms are fitted by least squares of relative residuals on a grid of the constants in which they are not
    linear. The Bayesian information criterion chooses, with the number of checkpoints that neighbours' correlation
    leaves. The broken law is that of Caballero et al. 2023 with one break. Intervals are of simulations of the chosen
    curve with AR(1) noise, each fitted again.

    Args:
        data: Results with lmsat_loss; or a table with ``model``, ``loss`` and ``step``, else ``tokens``.
        at: The step, or tokens, for which the loss is predicted; the last checkpoint's by default.
        repetitions: Simulations; 0 for no intervals.
        seed: Of the random numbers.

    Raises:
        LmsatError: For missing columns or numbers, where no model has 10 checkpoints (others are left out), and for
            ``at``, ``repetitions`` or a ``seed`` out of range.
    """
    check_simulation(repetitions, seed, usual=200)
    if at is not None:
        check_number("at", at, "give a step, or tokens, above 0", least=0, most=_FARTHEST)
    table = table_of(data)
    table = labelled(loss_of_results(data)) if is_tidy(table) else table
    axis = "step" if "step" in table.columns or "tokens" not in table.columns else "tokens"
    check_models(table, ("model", axis, "loss"))
    check_steps(table)
    table, _ = without_diverged(table)
    table = numbers(table, [axis, "loss"], positive=["loss"])
    table = table[table[axis] > 0]
    check_magnitudes(table, [axis, "loss"])
    check_nats(table)
    curves, short = [], []
    for model, rows in table.groupby("model", sort=False):
        rows = rows.sort_values(axis, kind="stable").drop_duplicates(axis, keep="last")
        if len(rows) < LEAST_FOR_CURVE:
            own = "1 checkpoint" if len(rows) == 1 else f"{len(rows)} checkpoints"
            short.append(f"{model} has {own} after the first step: a curve needs {LEAST_FOR_CURVE}")
            continue
        rows = rows.iloc[:: -(-len(rows) // _MOST_POINTS)] if len(rows) > _MOST_POINTS else rows
        t_K, losses_K = rows[axis].to_numpy(), rows["loss"].to_numpy()
        curve = _curve(str(model), axis, t_K, losses_K, at=at, repetitions=repetitions, seed=seed)
        tokens_K = rows["tokens"].to_numpy(np.float64, na_value=np.nan) if "tokens" in rows.columns else None
        curves.append(replace(curve, tokens_K=tokens_K))
    if not curves:
        raise LmsatError(short[0] if short else "no checkpoint lies after the first step: give some")
    for sentence in short:
        logger.warning("Left out: %s", sentence)
    return curves


@dataclass(frozen=True, eq=False)
class Extrapolation:
    """A run's learning curve and how it may go on, of M later places."""

    now: float
    """The curve at the last checkpoint."""
    curve_M: np.ndarray
    losses_RM: np.ndarray
    """Later losses in R simulations: of other curves that this run allows, with its AR(1) noise going on."""


def extrapolate(
    t_K: np.ndarray, losses_K: np.ndarray, t_M: np.ndarray, *, repetitions: int, seed: int
) -> Extrapolation:
    """Return how a run may go on, by the form that describes it best; a broken law needs ten checkpoints.

    Args:
        t_K, losses_K: The run so far, of at least `LEAST_TO_EXTRAPOLATE` checkpoints, all numbers above 0.
        t_M: Where it goes on, in order.
        repetitions, seed: Of the simulations.

    Raises:
        LmsatError: For a loss that only rises.
    """
    fit = _fit(t_K, losses_K)
    curves_RM, _ = _simulated(fit, t_M, repetitions, seed)
    white_RM = np.random.default_rng(seed + 1).standard_normal((repetitions, len(t_M) + 1))
    noise_RM = fit.sigma * simulate(white_RM, np.full(repetitions, fit.phi))
    last, kept_M = float(np.log(losses_K[-1] / fit.fitted_K[-1])), fit.phi ** np.arange(1, len(t_M) + 1)
    # The noise of the last checkpoint is known.
    noise_RM = noise_RM[:, 1:] + kept_M * (last - noise_RM[:, :1])
    return Extrapolation(now=float(fit.fitted_K[-1]), curve_M=curves_RM[0], losses_RM=curves_RM[1:] * np.exp(noise_RM))


@dataclass(frozen=True)
class _Form:
    """One form on the grid of its nonlinear constants, for log or relative losses that are linear in the others."""

    name: str
    grid_GX: np.ndarray
    columns_GKY: np.ndarray
    solvers_GYK: np.ndarray
    signs_Y: np.ndarray
    """1 where a linear constant is not below 0, else 0."""
    constants: int

    def fit(self, losses_RK: np.ndarray, weights_K: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the best point of the grid, [R], the linear constants, [R, Y], and the sums of squares, [R]."""
        targets_RK = np.log(losses_RK) if self.name == _BROKEN else losses_RK * weights_K
        squares_GR = np.empty((len(self.grid_GX), len(losses_RK)))
        for g, (columns_KY, solver_YK) in enumerate(zip(self.columns_GKY, self.solvers_GYK, strict=True)):
            linear_RY = targets_RK @ solver_YK.T
            squares_GR[g] = ((targets_RK - linear_RY @ columns_KY.T) ** 2).sum(1)
            squares_GR[g][(linear_RY * self.signs_Y < 0).any(1)] = np.inf
        best_R = squares_GR.argmin(0)
        linear_RY = np.einsum("ryk,rk->ry", self.solvers_GYK[best_R], targets_RK)
        return best_R, linear_RY, squares_GR[best_R, np.arange(len(losses_RK))]

    def losses(self, t_M: np.ndarray, best_R: np.ndarray, linear_RY: np.ndarray) -> np.ndarray:
        """Return the losses of each fit at some t, shape [R, M]."""
        columns_RMY = np.stack([_columns(self.name, t_M, self.grid_GX[g]) for g in best_R])
        values_RM = np.einsum("rmy,ry->rm", columns_RMY, linear_RY)
        return np.exp(values_RM) if self.name == _BROKEN else values_RM


def _columns(name: str, t_M: np.ndarray, constants: np.ndarray) -> np.ndarray:
    if name == _SATURATING:
        return np.column_stack([np.ones(len(t_M)), t_M ** -constants[0]])
    d, f = constants
    bend_M = f * np.logaddexp(0, (np.log(t_M) - np.log(d)) / f)
    return np.column_stack([np.ones(len(t_M)), -np.log(t_M), bend_M])


def _form(name: str, t_K: np.ndarray, weights_K: np.ndarray) -> _Form:
    if name == _SATURATING:
        grid_GX, signs, constants = _RATES[:, None], [1.0, 1.0], 3
    else:
        inner = np.geomspace(t_K[len(t_K) // 10 + 1], t_K[-2 - len(t_K) // 10], _BREAKS)
        grid_GX = np.array(list(itertools.product(inner, _SHARPNESS)))
        signs, constants = [0.0, 1.0, 0.0], 5
    columns_GKY = np.stack([_columns(name, t_K, one) for one in grid_GX])
    if name == _SATURATING:
        columns_GKY = columns_GKY * weights_K[:, None]
    return _Form(name, grid_GX, columns_GKY, np.linalg.pinv(columns_GKY), signs_Y=np.array(signs), constants=constants)


@dataclass(frozen=True)
class _Fit:
    form: _Form
    best: np.ndarray
    linear: np.ndarray
    fitted_K: np.ndarray
    weights_K: np.ndarray
    phi: float
    sigma: float


def _fit(t_K: np.ndarray, losses_K: np.ndarray) -> _Fit:
    """Return the form that the information criterion prefers."""
    fits = []
    for name in (_SATURATING, _BROKEN) if len(t_K) >= LEAST_FOR_CURVE else (_SATURATING,):
        weights_K = 1 / losses_K
        form = _form(name, t_K, weights_K)
        best, linear, squares = form.fit(losses_K[None], weights_K)
        if not np.isfinite(squares[0]):
            continue
        fitted_K = form.losses(t_K, best, linear)[0]
        residuals_K = np.log(losses_K) - np.log(np.maximum(fitted_K, 1e-30))
        spare = max(len(t_K) - form.constants, 1)
        sigma = float(np.sqrt((residuals_K**2).sum() / spare))
        power = float((residuals_K**2).sum())
        phi = float(np.clip((residuals_K[1:] * residuals_K[:-1]).sum() / power, 0, 0.95)) if power > 0 else 0.0
        fits.append(_Fit(form, best, linear, fitted_K, weights_K=weights_K, phi=phi, sigma=sigma))
    if not fits:
        raise LmsatError("a loss that only rises has no learning curve: give a run whose loss falls")
    # The noise of the better form says how many checkpoints are independent.
    phi = min(fits, key=lambda one: one.sigma).phi
    count = len(t_K) * (1 - phi) / (1 + phi)
    return min(fits, key=lambda one: 2 * count * np.log(max(one.sigma, 1e-12)) + one.form.constants * np.log(len(t_K)))


def _curve(
    model: str, axis: str, t_K: np.ndarray, losses_K: np.ndarray, *, at: float | None, repetitions: int, seed: int
) -> RunCurve:
    fit = _fit(t_K, losses_K)
    where = float(t_K[-1]) if at is None else float(at)
    values_RM, breaks_R = _simulated(fit, np.array([where]), repetitions, seed)
    constants = fit.form.grid_GX[fit.best[0]]
    if fit.form.name == _SATURATING:
        params = {"E": float(fit.linear[0, 0]), "B": float(fit.linear[0, 1]), "c": float(constants[0])}
        decelerates = False
    else:
        log_b, rate, drop = map(float, fit.linear[0])
        params = {
            "B": float(np.exp(log_b)),
            "c": rate,
            "c_drop": drop,
            "d": float(constants[0]),
            "f": float(constants[1]),
        }
        decelerates = drop > 0
    deceleration = _estimate(breaks_R) if decelerates else Derived(value=None, reason="no break that slows it down")
    return RunCurve(
        model=model,
        axis=axis,
        form=fit.form.name,
        params=params,
        residual_rms=float(np.sqrt(np.mean(np.log(losses_K / fit.fitted_K) ** 2))),
        n_points=len(t_K),
        deceleration=deceleration,
        at=where,
        final=_estimate(values_RM[:, 0]),
        held_out=_held_out(t_K, losses_K, repetitions, seed),
        t_K=t_K,
        losses_K=losses_K,
    )


def _simulated(fit: _Fit, t_M: np.ndarray, repetitions: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the losses at t, [R, M], and the break, [R], of the fit and then of simulations of it."""
    white_RK = np.random.default_rng(seed).standard_normal((repetitions, len(fit.fitted_K)))
    noise_RK = fit.sigma * simulate(white_RK, np.full(repetitions, fit.phi))
    samples_RK = fit.fitted_K * np.exp(noise_RK)
    best_R, linear_RY, _ = fit.form.fit(samples_RK, fit.weights_K) if repetitions else (fit.best[:0], fit.linear[:0], 0)
    best_R, linear_RY = np.concatenate([fit.best, best_R]), np.concatenate([fit.linear, linear_RY])
    breaks_R = fit.form.grid_GX[best_R, 0]
    if fit.form.name == _BROKEN:
        # The grid's step is part of what is not known.
        step = np.log(fit.form.grid_GX[-1, 0] / fit.form.grid_GX[0, 0]) / (_BREAKS - 1)
        breaks_R[1:] *= np.exp(step * np.random.default_rng(seed).uniform(-0.5, 0.5, repetitions))
    return fit.form.losses(t_M, best_R, linear_RY), breaks_R


def _estimate(values_R: np.ndarray) -> Derived:
    low, high = interval(values_R[1:]) or (None, None)
    return Derived(value=float(values_R[0]), low=low, high=high)


def _held_out(t_K: np.ndarray, losses_K: np.ndarray, repetitions: int, seed: int) -> dict[str, float] | None:
    seen_K = t_K <= t_K[0] + _SEEN * (t_K[-1] - t_K[0])
    if seen_K.sum() < LEAST_FOR_CURVE or seen_K.all():
        return None
    fit = _fit(t_K[seen_K], losses_K[seen_K])
    values_R = _simulated(fit, t_K[-1:], repetitions, seed)[0][:, 0]
    noise_R = fit.sigma * np.random.default_rng(seed + 1).standard_normal(len(values_R))
    ends = interval((values_R * np.exp(noise_R))[1:])
    known = {"until": float(t_K[seen_K][-1]), "predicted": float(values_R[0]), "observed": float(losses_K[-1])}
    known |= {} if ends is None else {"low": ends[0], "high": ends[1]}
    return known | {"gap": known["observed"] / known["predicted"] - 1}
