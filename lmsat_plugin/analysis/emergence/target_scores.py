"""Scores of target models, predicted in two steps from smaller models (`predict_scores`).

Shapes: P checkpoints of the fitted models, G runs, R samples of the bootstrap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.analysis.emergence.named_models import are_named, check_names
from lmsat_plugin.analysis.emergence.new_run import Departures, sizes_of
from lmsat_plugin.analysis.emergence.points import Scores, scores_of
from lmsat_plugin.analysis.emergence.sigmoid import Sigmoid, SigmoidFit, fit_sigmoid, sigmoid
from lmsat_plugin.analysis.emergence.two_step import LEAST_FITTED, ideal_of, rises
from lmsat_plugin.analysis.given_numbers import check_simulation
from lmsat_plugin.analysis.input_tables import as_floats
from lmsat_plugin.analysis.scaling_laws.fitting import fit
from lmsat_plugin.analysis.scaling_laws.laws import RUNS_BEYOND, draw_runs
from lmsat_plugin.analysis.stats.bootstrap import interval
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.tree import Results

if TYPE_CHECKING:
    import pandas as pd

_CONSTANTS = 4
_SKIPPED = 0.1
"""The share of each run's checkpoints, the first ones, that are not fitted, as in Bhagia et al. 2024."""


@dataclass(frozen=True)
class Chained:
    """The prediction of both steps: the loss from size and tokens, the score from that loss."""

    loss: float
    """The predicted loss of the task."""
    predicted: float
    low: float | None
    high: float | None
    """The 90 % interval of the score of a new run."""
    relative_error: float | None


@dataclass(frozen=True, kw_only=True)
class TargetScore:
    """The score of one target model on one task, predicted from its loss by a sigmoid of the smaller models."""

    task: str
    metric: str
    variant: str | None
    model: str
    loss: float
    """The target's own loss at its last checkpoint."""
    predicted: float | None = None
    """None where the fitted models do not say; see ``reason``."""
    low: float | None = None
    high: float | None = None
    """The 90 % interval of the score of a new run with this loss."""
    mean_low: float | None = None
    mean_high: float | None = None
    """The 90 % interval of the sigmoid at this loss."""
    observed: float
    """The score at the target's last checkpoint."""
    relative_error: float | None = None
    """(predicted − observed) / observed."""
    reason: str | None = None
    """Why there is no prediction or no interval; None where there are both."""
    n_points: int
    """How many checkpoints were fitted."""
    n_runs: int
    curve: Sigmoid | None = None
    chained: Chained | None = None
    """None where the table does not have n_params and tokens of the runs and of the target."""
    scores: Scores = field(repr=False)
    fitted: pd.DataFrame = field(repr=False)
    """The checkpoints that were fitted: rows of the scores' table."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: all but the tables."""
        data = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("scores", "fitted")}
        return data | {name: data[name] and asdict(data[name]) for name in ("curve", "chained")}


def predict_scores(
    data: Results | pd.DataFrame,
    fit_models: Sequence[str],
    predict_models: Sequence[str],
    *,
    loss: str = "loss",
    task: str = "*",
    metric: str = "*",
    repetitions: int = 400,
    seed: int = 0,
) -> list[TargetScore]:
    """Return the scores of target models, predicted from their own loss by smaller models (Bhagia et al. 2024).

    The sigmoid of each task has a free floor and ceiling and an ideal point; see `fit_sigmoid`. The first tenth of each
    run's checkpoints is not fitted. The interval of the sigmoid is of a bootstrap over runs; that of a new run is of a
    jackknife over sizes, and adds how far sizes lie from each other's sigmoid (`Departures`). Where the table has
    ``n_params`` and ``tokens``, the last checkpoints of the fitted runs give the law L = E + A/N^alpha + B/D^beta of
    the task's loss, and from it the chained prediction.

    Args:
        data: As for `scores_of`. A column ``size`` may name the models of one size.
        fit_models: Names of models or sizes to fit.
        predict_models: Names of models or sizes to predict.
        loss: The column, or the metric of lmsat_loss, that is the loss.
        task, metric: Globs.
        repetitions: Samples of the bootstrap; 0 for no intervals.
        seed: Of the random numbers.

    Raises:
        LmsatError: As `scores_of`, for a model that is unknown, or both fitted and predicted, and for ``repetitions``
            or a ``seed`` out of range.
    """
    check_simulation(repetitions, seed, usual=400)
    found: list[TargetScore] = []
    everything = scores_of(data, loss=loss, task=task, metric=metric)
    check_names([scores.table for scores in everything], fit_models, predict_models)
    for scores in everything:
        fitted_P, target_P = (are_named(scores.table, names) for names in (fit_models, predict_models))
        if fitted_P.any() and target_P.any():
            found += _predictions(scores, fitted_P, target_P, repetitions, seed=seed)
    if not found:
        raise LmsatError(
            f"no task has scores of both {', '.join(fit_models)} and {', '.join(predict_models)}: give rows of both"
        )
    return found


@dataclass(frozen=True)
class _Fit:
    """A sigmoid of one task's fitted models, and what its bootstrap draws."""

    scores: Scores
    sigmoids: SigmoidFit
    departures: Departures
    last: list[int]
    """The row of the last checkpoint of each run."""
    seed: int

    def new_runs(self, losses_R: np.ndarray, loss: float) -> np.ndarray:
        """Return draws of the score of a new run, shape [R], at draws of its loss, of which ``loss`` is likeliest."""
        return self.sigmoids.best.score(losses_R) + self.departures.draws(loss, len(losses_R), self.seed)

    def ends(self, values_R: np.ndarray) -> tuple[float, float] | tuple[None, None]:
        """Return the 90 % interval of scores, within those that are possible."""
        ideal, sign = ideal_of(self.scores), self.scores.sign
        ends = interval(np.clip(values_R, 0.0 if ideal == 1.0 else -np.inf, np.inf if ideal is None else ideal))
        if ends is None:
            return None, None
        low, high = sorted(sign * end for end in ends)
        return low, high


def _predictions(
    scores: Scores, fitted_P: np.ndarray, target_P: np.ndarray, repetitions: int, seed: int
) -> Iterator[TargetScore]:
    runs = [run for run in scores.runs if fitted_P[run[0]]]
    kept = [run[int(np.ceil(_SKIPPED * len(run))) :] if len(run) > 1 else run for run in runs]
    rows_P = np.concatenate(kept)
    runs_P = np.repeat(np.arange(len(kept)), [len(run) for run in kept])
    losses_P, values_P = scores.losses_P[rows_P], scores.sign * scores.table["score"].to_numpy()[rows_P]
    reason, found = _too_little(losses_P, values_P), None
    least = _CONSTANTS + RUNS_BEYOND
    if reason is None:
        draws_RG = draw_runs(runs_P, repetitions if len(runs) >= least else 0, _CONSTANTS, seed)
        sizes_P = sizes_of(scores.table.iloc[rows_P])
        sizes = int(sizes_P.max()) + 1
        counts_RP = np.concatenate([(1.0 - np.eye(sizes))[:, sizes_P], draws_RG[:, runs_P]])
        both = fit_sigmoid(losses_P, values_P, ideal=ideal_of(scores), counts_RP=counts_RP)
        fitted = replace(both, samples_R4=both.samples_R4[sizes:])
        if rises(fitted, values_P):
            found = _Fit(
                scores,
                fitted,
                Departures.of(both.samples_R4[:sizes], losses_P, values_P, sizes_P),
                [int(run[-1]) for run in runs],
                seed=seed,
            )
            reason = f"intervals need {least} runs, here are {len(runs)}" if len(runs) < least else None
        else:
            reason = "the scores of the fitted models show no rise as the loss falls"
    for target in (int(run[-1]) for run in scores.runs if target_P[run[0]]):
        row = scores.table.iloc[target]
        unknown = TargetScore(
            task=scores.task,
            metric=scores.metric,
            variant=scores.variant,
            model=str(row["model"]),
            loss=float(row["loss"]),
            observed=float(row["score"]),
            reason=reason,
            n_points=len(rows_P),
            n_runs=len(runs),
            scores=scores,
            fitted=scores.table.iloc[rows_P],
        )
        yield unknown if found is None else _predicted(unknown, found, target)


def _predicted(unknown: TargetScore, found: _Fit, target: int) -> TargetScore:
    """Return a target with what the fit predicts for it."""
    sign, curve = found.scores.sign, found.sigmoids.best
    means_R = sigmoid(found.sigmoids.samples_R4, np.array([unknown.loss]))[:, 0]
    mean_low, mean_high = found.ends(means_R)
    low, high = found.ends(found.new_runs(np.full(len(means_R), unknown.loss), unknown.loss))
    if low is not None and high is not None and mean_low is not None and mean_high is not None:
        # By the chance of the samples, an end of the wider interval may come to lie within the other.
        low, high = min(low, mean_low), max(high, mean_high)
    predicted = sign * float(curve.score(np.array([unknown.loss]))[0])
    return replace(
        unknown,
        predicted=predicted,
        low=low,
        high=high,
        mean_low=mean_low,
        mean_high=mean_high,
        relative_error=_relative(predicted, unknown.observed),
        curve=Sigmoid(sign * curve.floor, sign * curve.ceiling, curve.middle, curve.steepness),
        chained=_chained(found, target, unknown.observed),
    )


def _relative(predicted: float, observed: float) -> float | None:
    return (predicted - observed) / observed if observed else None


def _too_little(losses_P: np.ndarray, values_P: np.ndarray) -> str | None:
    if len(losses_P) < LEAST_FITTED:
        return f"{len(losses_P)} checkpoints of the fitted models are too few: a sigmoid needs {LEAST_FITTED}"
    if len(np.unique(losses_P)) < _CONSTANTS or np.ptp(values_P) == 0:
        return "the losses or the scores of the fitted models do not change"
    return None


def _chained(found: _Fit, target: int, observed: float) -> Chained | None:
    """Return the score at the loss that size and tokens predict; None without these, or where too little is known."""
    table = found.scores.table
    if not {"n_params", "tokens"} <= set(table.columns):
        return None
    numbers = {name: as_floats(table[name]) for name in ("n_params", "tokens", "loss")}
    rows = table.iloc[[*found.last, target]].assign(run=range(len(found.last) + 1), **numbers)
    if not (rows[list(numbers)] > 0).all(axis=None):
        return None
    try:
        samples = len(found.sigmoids.samples_R4)
        law = fit("chinchilla", rows.iloc[:-1][["run", *numbers]], repetitions=samples, seed=found.seed)
    except LmsatError:
        return None
    aim = law.law.read(rows.iloc[-1:][["run", *numbers]], law.count)
    losses_R = np.exp(law.law.form.log_losses(law.theta_RQ, aim.variables)[0])[:, 0]
    predicted = found.scores.sign * float(found.sigmoids.best.score(losses_R[:1])[0])
    low, high = None, None
    if samples and len(losses_R) == samples + 1:
        low, high = found.ends(found.new_runs(losses_R[1:], float(losses_R[0])))
    return Chained(
        loss=float(losses_R[0]), predicted=predicted, low=low, high=high, relative_error=_relative(predicted, observed)
    )
