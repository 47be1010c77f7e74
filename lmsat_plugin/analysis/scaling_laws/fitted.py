"""What a fit has found, and what it predicts.

Shapes: P points, Q constants, R samples of the bootstrap, the estimate before them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.analysis.scaling_laws.laws import rows_of
from lmsat_plugin.analysis.scaling_laws.robust import DELTA
from lmsat_plugin.analysis.stats.bootstrap import CONFIDENCE, interval
from lmsat_plugin.analysis.stats.estimate import Estimate
from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    import pandas as pd

    from lmsat_plugin.analysis.scaling_laws.laws import Law, Points
    from lmsat_plugin.results.tree import Results

_SHOWN = (
    "model",
    "variant",
    "run",
    "revision",
    "step",
    "tokens",
    "n_params",
    "n_params_non_embedding",
    "position",
)


@dataclass(frozen=True)
class Constant(Estimate):
    """A constant of a law."""

    given: bool = False
    """Whether it was not fitted."""


@dataclass(frozen=True)
class Spread:
    """How far the fitted constants can go while the objective stays close to the best."""

    tolerance: float
    """How close, as a share of the best objective."""
    starts: int
    """Points of the grid of exponents that were followed."""
    best: int
    """How many of these lead to the best objective, to a millionth of it."""
    params: dict[str, tuple[float, float]]
    """Ranges among the minima that the grid leads to, and those with one exponent held off its optimum."""


@dataclass(frozen=True)
class HeldOut:
    """How well the law, fitted without the largest, predicts these."""

    by: str
    """What the left-out have of all: "largest N", say."""
    models: tuple[str, ...]
    n_points: int
    mean_gap: float
    """Mean of (observed − predicted) / predicted."""
    mean_absolute_gap: float


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a law says of a table's rows."""

    rows: pd.DataFrame
    """The rows with ``observed`` (NaN where unknown), ``predicted``, its interval ``low`` and ``high`` (that of the
    law, not of one more run), and ``gap`` = (observed − predicted) / predicted."""
    gaps: pd.DataFrame | None
    """``model, best, final``: gaps at each model's least loss and last checkpoint; None if no model has several."""

    def to_dict(self) -> dict[str, Any]:
        """Return the rows and gaps for JSON."""
        shown = [name for name in _SHOWN if name in self.rows]
        columns = [*shown, "observed", "predicted", "low", "high", "gap"]
        found: dict[str, Any] = {"predictions": _records(self.rows[columns])}
        if self.gaps is not None:
            means = {f"mean_{name}": float(self.gaps[name].mean()) for name in ("best", "final")}
            found["gaps"] = {"models": _records(self.gaps), **means}
        return found


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    import pandas as pd

    return [
        {str(key): None if pd.isna(value) else value for key, value in row.items()}
        for row in table.to_dict("records")
    ]


@dataclass(frozen=True, eq=False)
class FittedLaw:
    """A law fitted to a table."""

    law: Law
    count: str | None
    """The column that N is counted in; None for a law without N."""
    model: str | None
    """The model whose rows these are, for a law of single models."""
    params: dict[str, Constant]
    derived: dict[str, Estimate]
    objective: float
    """Σ Huber(ln predicted − ln observed), a sum over the points."""
    residual_rms: float
    """√ of the mean square of ln predicted − ln observed."""
    condition_number: dict[str, float | None]
    """Of the Jacobian of log losses by all fitted constants, and by the exponents alone after projection."""
    spread: Spread
    held_out: HeldOut | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    points: Points
    theta_RQ: np.ndarray
    """The constants as the law's form keeps them: the estimate, then the samples of the bootstrap."""
    others: tuple[FittedLaw, ...] = ()
    """The same law with N counted another way, or of the table's other models."""

    @property
    def given(self) -> str:
        """The constants that were not fitted, in words; empty if all were."""
        return ", ".join(f"{name} = {one.value:g}" for name, one in self.params.items() if one.given)

    def predict(self, data: Results | pd.DataFrame) -> Predictions:
        """Return what the law says of a table's rows; losses may be missing.

        A law of single models predicts the rows of each model that was fitted.

        Raises:
            LmsatError: For a table without the law's variables, and for one without rows of the law's models.
        """
        import pandas as pd

        rows, _ = rows_of(self.law, data)
        if self.model is None or "model" not in rows:
            found = self._predict(rows)
        else:
            fits = (self, *self.others)
            parts = [(one, rows[rows.model.astype(str) == one.model]) for one in fits]
            predicted = [one._predict(own) for one, own in parts if len(own)]
            if not predicted:
                models = ", ".join(str(one.model) for one in fits)
                raise LmsatError(f"the table to predict has no rows of {models}: give rows of a fitted model")
            found = pd.concat(predicted)
        return Predictions(found, _best_and_final(found))

    def interval(self, estimate: float, samples_R: np.ndarray) -> tuple[float, float] | None:
        """Return the 90 % interval of an estimate from the samples of the bootstrap; see `interval_of_fit`."""
        return interval_of_fit(estimate, samples_R, repeated=self.points.repeated)

    def _predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        points = self.law.read(rows, self.count, observed=False)
        predicted_RP = np.exp(self.law.form.log_losses(self.theta_RQ, points.variables)[0])
        ends = [
            self.interval(float(one), samples_R) or (np.nan, np.nan)
            for one, samples_R in zip(predicted_RP[0], predicted_RP[1:].T, strict=True)
        ]
        low_P, high_P = np.array(ends).T
        return points.table.assign(
            observed=points.losses_P,
            predicted=predicted_RP[0],
            low=low_P,
            high=high_P,
            gap=points.losses_P / predicted_RP[0] - 1,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all that is no array, for JSON."""
        return {
            "law": self.law.name,
            "formula": self.law.formula,
            "n": self.count,
            "model": self.model,
            "params": {name: asdict(one) for name, one in self.params.items()},
            "derived": {name: asdict(one) for name, one in self.derived.items()},
            "confidence": CONFIDENCE,
            "repetitions": len(self.theta_RQ) - 1,
            "objective": {"what": "sum of Huber losses of log loss", "delta": DELTA, "value": self.objective},
            "n_points": len(self.points.losses_P),
            "n_runs": self.points.runs,
            "residual_rms": self.residual_rms,
            "condition_number": self.condition_number,
            "spread": asdict(self.spread),
            "held_out": None if self.held_out is None else asdict(self.held_out),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "others": [other.to_dict() for other in self.others],
        }


def interval_of_fit(estimate: float, samples_R: np.ndarray, *, repeated: bool) -> tuple[float, float] | None:
    """Return the 90 % interval of percentiles of a bootstrap over runs; None if it has no finite ends.

    With one point a run the percentiles are bias-corrected (Efron 1981), which covers best (chinchilla, 240, 30 and 12
    runs: 86 to 97 %; plain percentiles 87 to 99 %; flipped residuals 67 to 86 %). With ``repeated`` points of a run the
    correction is itself noise (7 to 25 runs: 67 to 98 %), and plain percentiles cover 87 to 95 %.
    """
    if not np.isfinite(estimate):
        return None
    ends = interval(samples_R, estimate=None if repeated else estimate)
    return ends if ends is not None and np.isfinite(ends).all() else None


def _best_and_final(rows: pd.DataFrame) -> pd.DataFrame | None:
    import pandas as pd

    rows = rows[rows.observed.notna()]
    order = next(
        (name for name in ("tokens", "step", "steps") if name in rows and rows[name].notna().any()), None
    )
    if order is None or "model" not in rows or not rows.model.duplicated().any():
        return None
    found = [
        {
            "model": model,
            "best": float(own.gap.iloc[int(own.observed.argmin())]),
            "final": float(own.gap.iloc[int(own[order].astype("float64").argmax())]),
        }
        for model, own in rows.groupby("model", sort=False)
    ]
    return pd.DataFrame(found)
