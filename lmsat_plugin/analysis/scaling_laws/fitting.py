"""Fit a scaling law to a table: the search, the bootstrap, the held-out error and the warnings (`fit`).

Shapes: P points, Q constants, G runs, R samples of the bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.analysis.given_numbers import check_simulation
from lmsat_plugin.analysis.scaling_laws import huber_regression as huber
from lmsat_plugin.analysis.scaling_laws import outliers
from lmsat_plugin.analysis.scaling_laws.fitted_law import Constant, Derived, FittedLaw, HeldOut, Spread, interval_of_fit
from lmsat_plugin.analysis.scaling_laws.forms import PowerSum, Variables
from lmsat_plugin.analysis.scaling_laws.known_laws import LAWS
from lmsat_plugin.analysis.scaling_laws.laws import RUNS_BEYOND, TOTAL, Law, Points, counts_of, draw_runs, rows_of
from lmsat_plugin.analysis.scaling_laws.misfit import misfits
from lmsat_plugin.analysis.scaling_laws.unidentified import of_derived, unidentified
from lmsat_plugin.analysis.stats.bootstrap import weights
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.tree import Results

if TYPE_CHECKING:
    import pandas as pd

_TOLERANCE = 0.01
_SAME = 1e-6
_WEIGHED_FROM = 5
"""Runs for each fitted constant, from which on robust fits weigh runs. With 2.4, such intervals cover 73 to 83 %."""
_HELD_OUT = 0.2
"""The share of the sizes, the largest ones, whose points are held out; it is one size at least."""


def fit(
    law: str | Law,
    data: Results | pd.DataFrame,
    given: Mapping[str, float] | None = None,
    *,
    repetitions: int = 1000,
    robust: bool = False,
    seed: int = 0,
) -> FittedLaw:
    """Fit a law by the least sum of Huber losses (delta 0.001) of log residuals (Hoffmann et al. 2022, Sec. 3.3).

    Where a table counts N both with and without embeddings, both fits are made, that of the law's paper first. A law of
    single models is fitted to each model. The 90 % intervals are of a bootstrap over runs, which are the values of the
    column ``run``, else of ``model`` (`interval_of_fit`). They need three runs more than fitted constants.

    Args:
        law: One of `LAWS`, by its name, or a law of your own.
        data: A table with a row for each point and the law's columns, or results with ``lmsat_loss``.
        given: Values of constants that are not fitted, by name.
        repetitions: Samples of the bootstrap; 0 for no intervals.
        robust: Whether runs above the frontier, as those that were under-tuned, are left out, in every sample of the
            bootstrap anew. From five runs for each fitted constant on, samples weigh the runs then (`weights`) instead
            of drawing them.
        seed: Of the bootstrap.

    Raises:
        LmsatError: For unknown names, missing columns or numbers, losses not in nats, too few runs or values, and
            ``repetitions`` or a ``seed`` out of range.
    """
    if isinstance(law, str) and law not in LAWS:
        raise LmsatError(f"'{law}' is not a law: give one of {', '.join(LAWS)}")
    kind = LAWS[law] if isinstance(law, str) else law
    rows, notes = rows_of(kind, data)
    given = dict(given or {})
    _check_given(kind, given)
    check_simulation(repetitions, seed, usual=1000)
    request = _Request(law=kind, given=given, notes=notes, repetitions=repetitions, robust=robust, seed=seed)
    if kind.by_model and "model" in rows:
        if rows["model"].isna().any():
            raise LmsatError("a row has no model, and this law is fitted to each: name it, or leave out the column")
        by_model = rows.groupby("model", sort=False)
        fits = [_fit(request, kind.read(own, None), None, str(model)) for model, own in by_model]
    else:
        fits = [_fit(request, kind.read(rows, count), count, None) for count in counts_of(kind, rows)]
    return replace(fits[0], others=tuple(fits[1:]))


@dataclass(frozen=True)
class _Request:
    """The arguments of `fit`."""

    law: Law
    given: Mapping[str, float]
    notes: tuple[str, ...]
    repetitions: int
    robust: bool
    seed: int


def _fit(request: _Request, points: Points, count: str | None, model: str | None) -> FittedLaw:
    law, form, given = request.law, request.law.form, request.given
    given_Q = form.internal(given)
    free_Q = np.isnan(given_Q)
    free = [name for name in form.names if name not in given]
    if lacking := _lacking(law, points.variables, points.runs, free):
        raise LmsatError(f"{model + ': ' if model else ''}{lacking}, or fix constants with --given")
    if len(free) > 1 and np.ptp(points.losses_P) == 0:
        raise LmsatError(f"all losses are {points.losses_P[0]:g}, which shows no law: give losses that change")
    problem = huber.Problem(form=form, targets_P=np.log(points.losses_P), variables=points.variables)
    result = huber.search(problem, given_Q)
    kept_P = np.ones(len(points.losses_P), dtype=bool)
    if request.robust and free:
        result, kept_P = _search_robust(problem, result, given_Q)
    theta_Q = result.theta_Q
    theta_RQ, counts_RG, few = theta_Q[None], np.ones((1, points.runs)), None
    least = len(free) + RUNS_BEYOND
    if free and request.repetitions and points.runs < least:
        few = f"with {len(free)} fitted constants they need {least} runs, here are {points.runs}"
    elif free and request.repetitions:
        if request.robust and points.runs >= _WEIGHED_FROM * len(free):
            # Trimming takes more runs away from samples that lack a third of them.
            draws_RG = weights(points.runs, request.repetitions, request.seed)
        else:
            draws_RG = draw_runs(points.runs_P, request.repetitions, len(free), request.seed)
        starts_RQ, draws_RP = np.repeat(theta_RQ, request.repetitions, axis=0), draws_RG[:, points.runs_P]
        minimise = outliers.minimise_trimmed if request.robust else huber.minimise
        samples_RQ, _ = minimise(problem, starts_RQ, free_Q, draws_RP)
        theta_RQ, counts_RG = np.concatenate([theta_RQ, samples_RQ]), np.concatenate([counts_RG, draws_RG])
    constants = form.external(theta_RQ)
    residuals_P = problem.targets_P - form.log_losses(theta_RQ[:1], points.variables)[0][0]
    reasons = unidentified(law, points, theta_Q, free)
    held_out = _held_out(law, points, given_Q, free, kept_P=kept_P)
    derived = law.derive(constants, points, counts_RG)
    about = of_derived(law, reasons, derived)
    params = {
        name: Constant(given[name], given=True)
        if name in given
        else Constant(*_estimate(value_R, points, reasons.get(name, few)))
        for name, value_R in constants.items()
    }
    far = None if request.robust or not free else _far(problem, points, theta_Q, given_Q)
    far_P = outliers.far(problem, theta_Q, len(free), kept_P.astype(np.float64))
    trimmed = outliers.described(points, far_P, np.exp(problem.targets_P - residuals_P), ~kept_P)
    return FittedLaw(
        law=law,
        count=count,
        model=model,
        params=params,
        derived={name: Derived(*_estimate(value_R, points, about.get(name, few))) for name, value_R in derived.items()},
        objective=result.objective,
        residual_rms=float(np.sqrt(np.mean(residuals_P[kept_P] ** 2))),
        condition_number=dict(
            zip(("all", "exponents"), huber.condition_numbers(problem, theta_Q, free_Q), strict=True)
        ),
        spread=_spread(_of(problem, kept_P), result, free_Q),
        held_out=held_out,
        notes=(*request.notes, *points.notes, *law.remark(params)),
        warnings=(
            *points.warnings,
            *_warnings(law, count, theta_Q),
            *dict.fromkeys(reasons.values()),
            *([f"no intervals: {few}"] if few else []),
            *misfits(points, residuals_P[kept_P], held_out, fitted=bool(free)),
        ),
        points=points,
        theta_RQ=theta_RQ,
        residuals_P=residuals_P[kept_P] * np.sqrt(kept_P.sum() / max(kept_P.sum() - len(free), 1)),
        outliers=far,
        trimmed=trimmed if request.robust else None,
    )


def _of(problem: huber.Problem, kept_P: np.ndarray) -> huber.Problem:
    variables = {name: value_P[kept_P] for name, value_P in problem.variables.items()}
    return replace(problem, targets_P=problem.targets_P[kept_P], variables=variables)


def _search_robust(
    problem: huber.Problem, result: huber.SearchResult, given_Q: np.ndarray
) -> tuple[huber.SearchResult, np.ndarray]:
    """Return the best fit without the points above the frontier, and which points are kept, shape [P]."""
    all_1P = np.ones((1, len(problem.targets_P)))
    _, kept_1P = outliers.minimise_trimmed(problem, result.theta_Q[None], np.isnan(given_Q), all_1P)
    kept_P = kept_1P[0] > 0
    return huber.search(_of(problem, kept_P), given_Q), kept_P


def _far(
    problem: huber.Problem, points: Points, theta_Q: np.ndarray, given_Q: np.ndarray
) -> outliers.WithoutOutliers | None:
    """Return the points beyond ten robust standard deviations, with the constants without them; None without any."""
    free = int(np.isnan(given_Q).sum())
    far_P = outliers.far(problem, theta_Q, free, np.ones(len(problem.targets_P)))
    chosen_P = np.abs(far_P) > outliers.FAR
    if not chosen_P.any() or (~chosen_P).sum() <= free:
        return None
    theta_1Q = huber.search(_of(problem, ~chosen_P), given_Q).theta_Q[None]
    predicted_P = np.exp(problem.form.log_losses(theta_1Q, points.variables)[0][0])
    params = {name: float(value_R[0]) for name, value_R in problem.form.external(theta_1Q).items()}
    return outliers.WithoutOutliers(outliers.described(points, far_P, predicted_P, chosen_P), params)


def _check_given(law: Law, given: Mapping[str, float]) -> None:
    for name, value in given.items():
        if name not in law.form.names:
            raise LmsatError(f"{law.name} has no constant '{name}': give some of {', '.join(law.form.names)}")
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise LmsatError(f"{name}={value} is not a number: give one, or leave {name} to the fit")
        zero = isinstance(law.form, PowerSum) and not law.form.inside and name in law.form.coefficients
        if isinstance(law.form, PowerSum) and (value < 0 or (value == 0 and not zero)):
            raise LmsatError(f"{name}={value:g} must be {'at least' if zero else 'above'} 0: give another number")
    if law.form.coefficients and all(given.get(name) == 0 for name in law.form.coefficients):
        raise LmsatError(f"{', '.join(law.form.coefficients)} are all 0, which leaves no loss: give one above 0")


def _lacking(law: Law, variables: Variables, runs: int, free: list[str]) -> str | None:
    """Return why there are too few points to tell the fitted constants apart; None if there are enough."""
    if free and runs <= len(free):
        kind = "positions" if law.by_model else "runs"
        return (
            f"too few {kind} ({runs}) to fit {', '.join(free)}: give {len(free) + 1} or more "
            f"({len(free) + RUNS_BEYOND} for intervals)"
        )
    if not isinstance(law.form, PowerSum):
        return None
    constants = sum(term.variable is None and term.coefficient in free for term in law.form.terms)
    for term in law.form.terms:
        own = [name for name in (term.coefficient, term.exponent) if name in free]
        if term.variable is None or not own:
            continue
        values = len(np.unique(variables[term.variable]))
        if values < len(own) + constants:
            return (
                f"too few values of {term.variable} ({values}) to fit {' and '.join(own)}: "
                f"give rows with {len(own) + constants} or more"
            )
    return None


def _warnings(law: Law, count: str | None, theta_Q: np.ndarray) -> list[str]:
    warnings = []
    if law.counts and count == TOTAL and law.counts[0] != TOTAL:
        warnings.append("N counts all parameters, not those without embeddings as Kaplan et al. do")
    if isinstance(law.form, PowerSum):
        for name, value in zip(law.form.names, theta_Q, strict=True):
            if name in law.form.exponents and value <= 0:
                warnings.append(f"{name} is not above 0: the loss does not fall as the law says")
    return warnings


def _estimate(
    values_R: np.ndarray, points: Points, reason: str | None
) -> tuple[float | None, float | None, float | None, str | None]:
    """Return the first value, the ends of the interval of the others unless there is a reason against it, and that."""
    value = float(values_R[0])
    ends = None if reason else interval_of_fit(value, values_R[1:], repeated=points.repeated)
    if ends is None and reason is None and len(values_R) > 1:
        reason = "it has no finite interval: in too many samples of the bootstrap it is not defined"
    low, high = ends or (None, None)
    return value if math.isfinite(value) else None, low, high, reason


def _spread(problem: huber.Problem, result: huber.SearchResult, free_Q: np.ndarray) -> Spread:
    form = problem.form
    seen_GQ, seen_G = huber.valley(problem, result.theta_Q, free_Q)
    seen_GQ, seen_G = np.concatenate([result.ends_GQ, seen_GQ]), np.concatenate([result.ends_G, seen_G])
    values = form.external(seen_GQ[seen_G <= (1 + _TOLERANCE) * result.objective])
    ranges = {name: (float(value.min()), float(value.max())) for name, value in values.items()}
    best = int((result.ends_G <= (1 + _SAME) * result.objective).sum())
    fitted = {name: ranges[name] for name, free in zip(form.names, free_Q, strict=True) if free}
    return Spread(tolerance=_TOLERANCE, starts=len(result.ends_G), best=best, params=fitted)


def _held_out(law: Law, points: Points, given_Q: np.ndarray, free: list[str], *, kept_P: np.ndarray) -> HeldOut | None:
    """Return the gaps of the largest points to the law fitted to the others; None if too few are left.

    Points that a robust fit leaves out, as ``kept_P`` says, are neither fitted nor predicted.
    """
    sizes_P = points.values[law.size]
    if law.size == "loss":
        # The largest models are those with the least loss.
        sizes_P = 1 / sizes_P
    several = np.unique(sizes_P[kept_P])
    largest_P = sizes_P >= several[-max(1, int(_HELD_OUT * len(several)))]
    out_P, rest_P = largest_P & kept_P, ~largest_P & kept_P
    rest = {name: value_P[rest_P] for name, value_P in points.variables.items()}
    if not free or _lacking(law, rest, len(set(points.runs_P[rest_P])), free):
        return None
    others = huber.Problem(form=law.form, targets_P=np.log(points.losses_P[rest_P]), variables=rest)
    theta_Q = huber.search(others, given_Q).theta_Q
    left_out = {name: value_P[out_P] for name, value_P in points.variables.items()}
    gaps_P = points.losses_P[out_P] / np.exp(law.form.log_losses(theta_Q[None], left_out)[0][0]) - 1
    models = map(str, points.table["model"].to_numpy()[out_P] if "model" in points.table else ())
    return HeldOut(
        by="least loss" if law.size == "loss" else f"largest {law.size}",
        models=tuple(dict.fromkeys(models)),
        n_points=int(out_P.sum()),
        n_trimmed=int((largest_P & ~kept_P).sum()),
        mean_gap=float(gaps_P.mean()),
        mean_absolute_gap=float(np.abs(gaps_P).mean()),
    )
