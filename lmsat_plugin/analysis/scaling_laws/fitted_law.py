"""Class `FittedLaw`: a law's constants with their intervals, how well it fits, and what it predicts.

Shapes: P points, Q constants, R sets of constants: the estimate, then the samples of the bootstrap.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.analysis.input_tables import records
from lmsat_plugin.analysis.scaling_laws.huber_regression import DELTA
from lmsat_plugin.analysis.scaling_laws.laws import Law, Points, rows_of
from lmsat_plugin.analysis.scaling_laws.outliers import Outlier, WithoutOutliers
from lmsat_plugin.analysis.stats.bootstrap import CONFIDENCE, Estimate, interval
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.framed import Framed
from lmsat_plugin.results.tree import Results

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = (*("model", "variant", "run", "revision", "step", "tokens", "n_params", "n_params_non_embedding"), "position")


@dataclass(frozen=True)
class Derived(Estimate):
    """A value that follows from a law's constants."""

    reason: str | None = None
    """Why there is no interval; None where there is one."""


@dataclass(frozen=True)
class Constant(Derived):
    """A constant of a law."""

    given: bool = False
    """Whether it was given and not fitted."""


@dataclass(frozen=True)
class Spread:
    """How far the fitted constants can move while the objective stays close to the best."""

    tolerance: float
    """How close, as a share of the best objective."""
    starts: int
    """How many points of the grid of exponents were followed."""
    best: int
    """How many of these lead to the best objective, to within a millionth."""
    params: dict[str, tuple[float, float]]
    """Ranges of the constants among the minima of the grid, and those with one exponent held off its optimum."""


@dataclass(frozen=True)
class HeldOut:
    """How well the law, fitted without the largest points, predicts these."""

    by: str
    """By what these are the largest, such as "largest N"."""
    models: tuple[str, ...]
    n_points: int
    n_trimmed: int
    """How many more of the largest points a robust fit leaves out, which are not predicted."""
    mean_gap: float
    """Mean of (observed − predicted) / predicted."""
    mean_absolute_gap: float


@dataclass(frozen=True, eq=False)
class Predictions:
    """A law's predictions for the rows of a table."""

    rows: pd.DataFrame
    """The rows with ``observed`` (NaN where unknown), ``predicted``, the interval ``low`` to ``high`` of a new run,
    ``mean_low`` to ``mean_high`` of the law, and ``gap`` = (observed − predicted) / predicted."""
    gaps: pd.DataFrame | None
    """``model, best, final``: gaps at a model's least loss and last checkpoint; None if no model has several rows."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: the rows and the gaps."""
        shown = [name for name in _SHOWN if name in self.rows]
        columns = [*shown, "observed", "predicted", "low", "high", "mean_low", "mean_high", "gap"]
        predictions: dict[str, Any] = {"predictions": records(self.rows[columns])}
        if self.gaps is not None:
            means = {f"mean_{name}": float(self.gaps[name].mean()) for name in ("best", "final")}
            predictions["gaps"] = {"models": records(self.gaps), **means}
        return predictions


@dataclass(frozen=True, eq=False)
class FittedLaw(Framed):
    """A law fitted to a table."""

    law: Law
    count: str | None
    """The column that is N; None for a law without N."""
    model: str | None
    """The model whose rows these are, for a law of single models."""
    params: dict[str, Constant]
    derived: dict[str, Derived]
    objective: float
    """Σ Huber(ln predicted − ln observed), a sum over the points."""
    residual_rms: float
    """Root mean square of ln predicted − ln observed."""
    condition_number: dict[str, float | None]
    """Of the Jacobian of log losses by all fitted constants, and by the exponents alone (`condition_numbers`)."""
    spread: Spread
    held_out: HeldOut | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    points: Points
    theta_RQ: np.ndarray
    """The constants as the law's form keeps them."""
    residuals_P: np.ndarray
    """ln observed − ln predicted of the points that were fitted, widened for the constants that were."""
    outliers: WithoutOutliers | None = None
    """The points beyond ten robust standard deviations, and the constants without them; None without any."""
    trimmed: tuple[Outlier, ...] | None = None
    """The points above the frontier that a robust fit leaves out; None of an ordinary fit."""
    others: tuple[FittedLaw, ...] = ()
    """The same law with N counted another way, or of the table's other models."""

    def frame_rows(self) -> list[dict[str, Any]]:
        """Return the constants, with their intervals."""
        return [{"constant": name, **asdict(constant)} for name, constant in self.params.items()]

    @property
    def given(self) -> str:
        """The constants that were given, in words; empty if all were fitted."""
        return ", ".join(f"{name} = {param.value:g}" for name, param in self.params.items() if param.given)

    def predict(self, data: Results | pd.DataFrame) -> Predictions:
        """Return the law's predictions for a table or for results; losses may be missing.

        A law of single models predicts the rows of each model that was fitted. Raises `LmsatError` for a table without
        the law's variables, or without rows of the law's models.
        """
        import pandas as pd

        rows, _ = rows_of(self.law, data)
        if self.model is None or "model" not in rows:
            predicted = self._predict(rows)
        else:
            fits = (self, *self.others)
            parts = [(law, rows[rows.model.astype(str) == law.model]) for law in fits]
            by_model = [law._predict(own) for law, own in parts if len(own)]
            if not by_model:
                models = ", ".join(str(law.model) for law in fits)
                raise LmsatError(f"the table to predict has no rows of {models}: give rows of a fitted model")
            predicted = pd.concat(by_model)
        return Predictions(rows=predicted, gaps=_best_and_final(predicted))

    def interval(self, estimate: float, samples_R: np.ndarray) -> tuple[float, float] | None:
        """Return the 90 % interval of an estimate from the samples of the bootstrap; see `interval_of_fit`."""
        return interval_of_fit(estimate, samples_R, repeated=self.points.repeated)

    def _predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        points = self.law.read(rows, self.count, observed=False)
        logs_RP = self.law.form.log_losses(self.theta_RQ, points.variables)[0]
        noise_RP = np.zeros_like(logs_RP)
        if len(logs_RP) > 1:
            noise_RP[1:] = np.random.default_rng(0).choice(self.residuals_P, logs_RP[1:].shape)
        ends: dict[str, Any] = {}
        for names, samples_RP in ((("mean_low", "mean_high"), logs_RP), (("low", "high"), logs_RP + noise_RP)):
            each = [
                self.interval(float(value), samples_R) or (np.nan, np.nan)
                for value, samples_R in zip(np.exp(logs_RP[0]), np.exp(samples_RP[1:]).T, strict=True)
            ]
            ends |= dict(zip(names, np.array(each).T, strict=True))
        # Samples shift the two bias corrections apart.
        ends["low"], ends["high"] = np.fmin(ends["low"], ends["mean_low"]), np.fmax(ends["high"], ends["mean_high"])
        predicted_P = np.exp(logs_RP[0])
        gap_P = points.losses_P / predicted_P - 1
        return points.table.assign(observed=points.losses_P, predicted=predicted_P, **ends, gap=gap_P)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as ``lmsat fit --json`` prints it."""
        return {
            "law": self.law.name,
            "formula": self.law.formula,
            "n": self.count,
            "model": self.model,
            "params": {name: asdict(estimate) for name, estimate in self.params.items()},
            "derived": {name: asdict(estimate) for name, estimate in self.derived.items()},
            "confidence": CONFIDENCE,
            "repetitions": len(self.theta_RQ) - 1,
            "objective": {"what": "sum of Huber losses of log loss", "delta": DELTA, "value": self.objective},
            "n_points": len(self.points.losses_P),
            "n_runs": self.points.runs,
            "residual_rms": self.residual_rms,
            "condition_number": self.condition_number,
            "spread": asdict(self.spread),
            "held_out": None if self.held_out is None else asdict(self.held_out),
            "outliers": None if self.outliers is None else asdict(self.outliers),
            "trimmed": None if self.trimmed is None else [asdict(point) for point in self.trimmed],
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "others": [other.to_dict() for other in self.others],
        }


def interval_of_fit(estimate: float, samples_R: np.ndarray, *, repeated: bool) -> tuple[float, float] | None:
    """Return the 90 % interval of percentiles of a bootstrap over runs; None if it has no finite ends.

    With one point a run the percentiles are bias-corrected (Efron 1981). That covers best: in simulations of the law
    `chinchilla` with 240, 30 and 12 runs 86 to 97 %, against 87 to 99 % of plain percentiles and 67 to 86 % of flipped
    residuals. With ``repeated`` points it is noisy (67 to 98 % with 7 to 25 runs), and plain ones cover 87 to 95 %.
    """
    if not np.isfinite(estimate):
        return None
    ends = interval(samples_R, estimate=None if repeated else estimate)
    return ends if ends is not None and np.isfinite(ends).all() else None


def _best_and_final(rows: pd.DataFrame) -> pd.DataFrame | None:
    import pandas as pd

    rows = rows[rows.observed.notna()]
    order = next((name for name in ("tokens", "step", "steps") if name in rows and rows[name].notna().any()), None)
    if order is None or "model" not in rows or not rows.model.duplicated().any():
        return None
    return pd.DataFrame(
        {
            "model": model,
            "best": float(own.gap.iloc[int(own.observed.argmin())]),
            "final": float(own.gap.iloc[int(own[order].astype("float64").argmax())]),
        }
        for model, own in rows.groupby("model", sort=False)
    )
