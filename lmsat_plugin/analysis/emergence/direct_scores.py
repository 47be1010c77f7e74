"""Scores as a power law of compute, without a loss between (`fit_direct`; Krajewski et al. 2025, arXiv:2512.08894).

Shapes: P runs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.analysis.benchmark_scores import Benchmark, benchmarks_of
from lmsat_plugin.analysis.emergence.named_models import are_named, check_names
from lmsat_plugin.analysis.emergence.target_scores import TargetScore, predict_scores
from lmsat_plugin.analysis.given_numbers import check_number, check_simulation
from lmsat_plugin.analysis.input_tables import check_magnitudes
from lmsat_plugin.analysis.scaling_laws.fitted_law import FittedLaw
from lmsat_plugin.analysis.scaling_laws.fitting import fit
from lmsat_plugin.analysis.scaling_laws.forms import PowerSum, Term
from lmsat_plugin.analysis.scaling_laws.laws import NON_EMBEDDING, TOTAL, Law
from lmsat_plugin.analysis.stats.bootstrap import CONFIDENCE
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.metrics import metric as metric_named
from lmsat_plugin.results.tree import Results

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_DEFICIT = "minus_log_score"
BY_COMPUTE = Law(
    name="direct",
    formula="-ln Q = A/C^alpha",
    form=PowerSum((Term("A", "alpha", "C"),)),
    columns={"C": "flops"},
    size="C",
    target=_DEFICIT,
)
"""Eq. 2, of runs with one ratio of tokens to parameters."""
BY_SIZE_AND_TOKENS = Law(
    name="direct",
    formula="-ln Q = A/N^alpha + B/D^beta",
    form=PowerSum((Term("A", "alpha", "N"), Term("B", "beta", "D"))),
    columns={"N": TOTAL, "D": "tokens"},
    size="N",
    target=_DEFICIT,
)
"""Eq. 4, of runs with several ratios."""
_ONE_RATIO = 1.1
"""The ratio of two ratios of tokens to parameters up to which they count as one."""
_ABOVE_CHANCE = 2.0
"""How many standard errors of a guess a score has to lie above chance to be fitted."""


@dataclass(frozen=True, kw_only=True)
class DirectLaw:
    """A law of the scores of one benchmark."""

    ratio: float | None
    """Tokens to parameters of the fitted runs; None of a law of size and tokens, or where it is unknown."""
    chance: float
    fitted: FittedLaw = field(repr=False)
    """The law of −ln Q, with Q = (score − chance) / (1 − chance)."""

    def scores(self, rows: pd.DataFrame) -> dict[str, np.ndarray]:
        """Return what the law predicts for rows with ``flops``, or ``n_params`` and ``tokens``, shapes [P].

        ``predicted``; ``low`` and ``high``, the 90 % interval of a new run; ``mean_low`` and ``mean_high``, that of the
        law; NaN where unknown.
        """
        predicted = self.fitted.predict(rows.drop(columns=_DEFICIT, errors="ignore")).rows
        # The higher −ln Q is, the lower the score.
        ends = {"low": "high", "high": "low", "mean_low": "mean_high", "mean_high": "mean_low"}
        return {
            name: self.chance + (1 - self.chance) * np.exp(-predicted[source].to_numpy("float64"))
            for name, source in {"predicted": "predicted", **ends}.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: the ratio, and what `FittedLaw.to_dict` has of the constants and the fit."""
        data = self.fitted.to_dict()
        kept = ("formula", "params", "n_points", "residual_rms", "held_out", "warnings")
        return {"ratio": self.ratio, **{name: data[name] for name in kept}}


@dataclass(frozen=True, kw_only=True)
class DirectScore:
    """The score of one run that was not fitted, or at one compute, predicted by a law."""

    model: str | None
    """None for a compute that no run has."""
    flops: float
    ratio: float | None
    """Tokens to parameters."""
    formula: str | None = None
    """The law that predicts it; None without one."""
    predicted: float | None = None
    low: float | None = None
    high: float | None = None
    """The 90 % interval of the score of a new run."""
    mean_low: float | None = None
    mean_high: float | None = None
    """The 90 % interval of the law."""
    observed: float | None = None
    relative_error: float | None = None
    """(predicted − observed) / observed."""
    reason: str | None = None
    """Why there is no prediction, or no interval."""
    two_step: TargetScore | None = None
    """The prediction of `predict_scores` beside it; None without a loss, or for a compute that no run has."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; of the two steps what they predict, from the run's own loss and from size and tokens."""
        data = {item.name: getattr(self, item.name) for item in fields(self)}
        if self.two_step is None:
            return data
        kept = ("predicted", "low", "high", "relative_error", "reason", "chained")
        return data | {"two_step": {name: value for name, value in self.two_step.to_dict().items() if name in kept}}


@dataclass(frozen=True, kw_only=True)
class DirectFit:
    """The laws of one benchmark, and what they predict."""

    task: str
    metric: str
    variant: str | None
    chance: float | None
    """The score at chance; None where it is unknown, and taken for 0."""
    laws: tuple[DirectLaw, ...]
    """One for each ratio of tokens to parameters with three runs or more; then one of size and tokens, if there are
    several ratios and five runs."""
    predictions: tuple[DirectScore, ...] = ()
    at_chance: tuple[str, ...]
    """The runs that are not fitted, for their scores are not clearly above chance."""
    reason: str | None = None
    """Why there is no law; None where there is one."""
    two_step_reason: str | None = None
    """Why the predictions in two steps are not beside these; None where they are, or where no run is predicted."""
    runs: pd.DataFrame = field(repr=False)
    """The fitted runs: ``model, flops, score, ratio``."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as ``lmsat fit direct --json`` prints it: all but the runs."""
        data = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "runs"}
        return data | {
            "laws": [law.to_dict() for law in self.laws],
            "predictions": [one.to_dict() for one in self.predictions],
            "confidence": CONFIDENCE,
        }


def fit_direct(
    data: Results | pd.DataFrame,
    fit_models: Sequence[str] = (),
    predict_models: Sequence[str] = (),
    *,
    at: float | None = None,
    loss: str = "loss",
    task: str = "*",
    metric: str = "*",
    repetitions: int = 1000,
    seed: int = 0,
) -> list[DirectFit]:
    """Return the laws of each benchmark's scores at the end of the runs (Krajewski et al. 2025, eqs. 2 and 4).

    −ln Q = A/C^alpha holds at one ratio of tokens to parameters, and is fitted to each ratio with three runs; −ln Q =
    A/N^alpha + B/D^beta is fitted to all runs of several ratios. Q = (score − chance) / (1 − chance). Scores less than
    two standard errors of a guess above chance are left out: their logarithm is that of noise. Fit and intervals are
    those of `fit`.

    Args:
        data: As for `benchmarks_of`, with ``flops``, or ``n_params`` and ``tokens`` (C = 6ND), at the last checkpoints.
        fit_models: Names of models or sizes to fit; by default all that are not predicted.
        predict_models: Names of models or sizes to predict.
        at: A compute in operations, for which the score is predicted at each ratio.
        loss: The loss of the predictions in two steps, see `predict_scores`.
        task, metric: Globs.
        repetitions: Samples of the bootstrap; 0 for no intervals.
        seed: Of the random numbers.

    Raises:
        LmsatError: As `benchmarks_of`, without compute, for unknown names, and if no benchmark is a share.
    """
    if at is not None:
        check_number("at", at, "give a compute in operations, such as 1e24", least=0, most=1e60)
    check_simulation(repetitions, seed, usual=1000)
    shares = [
        one
        for one in benchmarks_of(data, task=task, metric=metric)
        if one.higher_is_better and metric_named(one.metric).is_share
    ]
    if not shares:
        raise LmsatError(
            "no score is a share of right answers or a probability, as the law needs: choose such a metric"
        )
    ends = [(one, _with_compute(one.rows.groupby("model", sort=False).tail(1))) for one in shares]
    check_names([rows for _, rows in ends], fit_models, predict_models)
    others = {str(name) for _, rows in ends for name in rows.group[~are_named(rows, predict_models)]}
    fitted = fit_models or sorted(others)
    two_steps: list[TargetScore] = []
    two_step_reason = None
    if predict_models:
        try:
            two_steps = predict_scores(
                data, fitted, predict_models, loss=loss, task=task, metric=metric, repetitions=repetitions, seed=seed
            )
        except LmsatError as error:
            two_step_reason = str(error)
    found = []
    for benchmark, rows in ends:
        own = _fit(benchmark, rows[are_named(rows, fitted)], repetitions, seed=seed)
        beside = {_key(one, one.model, one.observed): one for one in two_steps}
        predictions = [
            _predicted(own.laws, row, own.reason, beside.get(_key(benchmark, row.group, row.score)))
            for _, row in rows[are_named(rows, predict_models)].iterrows()
        ]
        if at is not None:
            predictions += list(_at(own.laws, at))
        found.append(replace(own, predictions=tuple(predictions), two_step_reason=two_step_reason))
    return found


def _key(one: Benchmark | TargetScore, model: str, score: float) -> tuple[Any, ...]:
    return one.task, one.metric, one.variant, str(model), float(score)


def _with_compute(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with ``flops`` and ``ratio``, the latter NaN where unknown.

    Raises `LmsatError` if the compute is unknown for all.
    """
    count = TOTAL if TOTAL in rows.columns and rows[TOTAL].notna().any() else NON_EMBEDDING
    known = {count, "tokens"} <= set(rows.columns)
    ratio = rows["tokens"] / rows[count] if known else np.nan
    flops = 6 * rows[count] * rows["tokens"] if known else np.nan
    if "flops" in rows.columns:
        flops = rows["flops"].where(rows["flops"].notna(), flops)
    sizes = {TOTAL: rows[count]} if known else {}
    rows = rows.assign(flops=flops, ratio=ratio, **sizes)
    kept = rows[rows.flops.notna() & (rows.flops > 0)]
    if kept.empty:
        raise LmsatError("the compute of the runs is unknown: add a column flops, or n_params and tokens")
    if left_out := sorted(set(rows.model) - set(kept.model)):
        logger.warning("Left out, for their compute is unknown: %s", ", ".join(left_out[:8]))
    check_magnitudes(kept, ["flops"])
    return kept


def _fit(benchmark: Benchmark, rows: pd.DataFrame, repetitions: int, seed: int) -> DirectFit:
    """Return the laws of a benchmark, without predictions."""
    chance = benchmark.chance or 0.0
    above_P = _above_chance(rows, chance)
    shares = (rows.score - chance) / (1 - chance)
    # A perfect score has no logarithm of a logarithm.
    kept = rows.assign(**{_DEFICIT: -np.log(shares.clip(1e-300))})[above_P & (shares < 1)]
    columns = [name for name in ("model", "flops", TOTAL, "tokens", "score", "ratio", _DEFICIT) if name in kept.columns]
    kept = kept[columns].reset_index(drop=True)
    laws, reasons = [], []
    ratios = list(_by_ratio(kept))
    for ratio, own in ratios:
        try:
            law = fit(BY_COMPUTE, own, repetitions=repetitions, seed=seed)
        except LmsatError as error:
            reasons.append(f"{_in_words(ratio)}: {error}")
            continue
        laws.append(DirectLaw(ratio=ratio, chance=chance, fitted=law))
    if len(ratios) > 1:
        try:
            law = fit(BY_SIZE_AND_TOKENS, kept, repetitions=repetitions, seed=seed)
            laws.append(DirectLaw(ratio=None, chance=chance, fitted=law))
        except LmsatError as error:
            reasons.append(str(error))
    reason = None if laws else "; ".join(reasons) or "no score is clearly above chance"
    return DirectFit(
        task=benchmark.task,
        metric=benchmark.metric,
        variant=benchmark.variant,
        chance=benchmark.chance,
        laws=tuple(laws),
        at_chance=tuple(map(str, rows.model[~above_P])),
        reason=reason,
        runs=kept,
    )


def _above_chance(rows: pd.DataFrame, chance: float) -> pd.Series:
    """Return which scores lie two standard errors of a guess above chance, or just above it if n is unknown."""
    if "n_samples" not in rows.columns:
        return rows.score > chance
    stderrs = np.sqrt(chance * (1 - chance) / rows.n_samples.where(rows.n_samples > 0))
    return rows.score > chance + _ABOVE_CHANCE * stderrs.fillna(0.0)


def _by_ratio(rows: pd.DataFrame) -> Iterator[tuple[float | None, pd.DataFrame]]:
    """Yield the runs of each ratio of tokens to parameters, from few to many, with its median."""
    unknown = rows[rows.ratio.isna()]
    known = rows[rows.ratio.notna()].sort_values("ratio", kind="stable")
    starts = np.flatnonzero(np.diff(np.log(known.ratio.to_numpy())) > np.log(_ONE_RATIO)) + 1
    for start, end in zip([0, *starts], [*starts, len(known)], strict=True):
        if end > start:
            own = known.iloc[start:end]
            yield float(own.ratio.median()), own
    if len(unknown):
        yield None, unknown


def _in_words(ratio: float | None) -> str:
    return "runs of unknown size and tokens" if ratio is None else f"{ratio:.3g} tokens for each parameter"


def _predicted(
    laws: Sequence[DirectLaw], row: pd.Series, reason: str | None, two_step: TargetScore | None
) -> DirectScore:
    """Return the score of a run by the law at its ratio, else by that of size and tokens."""
    ratio = None if np.isnan(row.ratio) else float(row.ratio)
    unknown = DirectScore(
        model=str(row.model), flops=float(row.flops), ratio=ratio, observed=float(row.score), two_step=two_step
    )
    law = next((law for law in laws if _is_of(law, ratio)), None)
    if law is None:
        fitted = ", ".join(_in_words(own.ratio) for own in laws)
        return replace(unknown, reason=reason or f"it has {_in_words(ratio)}, and the laws are of {fitted}")
    return _of_law(law, row.to_frame().T.infer_objects(), unknown)


def _is_of(law: DirectLaw, ratio: float | None) -> bool:
    if law.fitted.law is BY_SIZE_AND_TOKENS:
        return ratio is not None
    if law.ratio is None or ratio is None:
        return law.ratio is ratio
    return bool(abs(np.log(law.ratio / ratio)) <= np.log(_ONE_RATIO))


def _at(laws: Sequence[DirectLaw], flops: float) -> Iterator[DirectScore]:
    import pandas as pd

    for law in laws:
        if law.fitted.law is BY_COMPUTE:
            unknown = DirectScore(model=None, flops=flops, ratio=law.ratio)
            yield _of_law(law, pd.DataFrame({"flops": [flops]}), unknown)


def _of_law(law: DirectLaw, rows: pd.DataFrame, unknown: DirectScore) -> DirectScore:
    values = {name: float(value_P[0]) for name, value_P in law.scores(rows).items()}
    numbers: dict[str, Any] = {name: value if np.isfinite(value) else None for name, value in values.items()}
    observed = unknown.observed
    return replace(
        unknown,
        **numbers,
        formula=law.fitted.law.formula,
        relative_error=(values["predicted"] - observed) / observed if observed else None,
        reason=next((text for text in law.fitted.warnings if text.startswith("no intervals: ")), None),
    )
