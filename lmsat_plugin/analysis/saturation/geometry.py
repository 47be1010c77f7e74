"""When the geometry of a model's representations turned: evidence beside the verdict, which does not use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.analysis.stats.correlations import spearman

if TYPE_CHECKING:
    import pandas as pd

_LEAST = 4
_COLLAPSED = 0.5
_LEAST_RISE = 0.05
"""By how much the mean anisotropy is higher after a jump; less may be checkpoint-to-checkpoint noise."""
_ANISOTROPY = "lmsat_anisotropy", "anisotropy_last"
_ENTROPY = "lmsat_head", "singular_entropy"


@dataclass(frozen=True)
class Geometry:
    """The training steps at which a model's geometry turned, beside its loss (Godey et al. 2024, Sec. 4).

    None stands for what did not happen or was not measured. These turns co-occur with saturation; a low rank alone does
    not cause it (Kulkarni et al. 2026).
    """

    anisotropy_jump_step: int | None = None
    """The end of the steepest rise of the last layer's anisotropy by ln(step), if its mean is 0.05 higher after it."""
    anisotropy_above_half_step: int | None = None
    """The first checkpoint from which on the last layer's anisotropy stays above 0.5 (Fig. 3)."""
    entropy_turn_step: int | None = None
    """The step at which the singular entropy of the LM head is lowest, if it rises afterwards (Fig. 5)."""
    entropy_spike_step: int | None = None
    """The end of the steepest rise of the logarithm of the singular entropy after its turn."""
    lags: dict[str, int] | None = None
    """Each of these steps minus the step of the lowest loss: positive where the geometry turns later."""
    rates: dict[str, float] | None = None
    """Spearman correlation, over checkpoints, of the rate of change by ln(step) of the loss with that of
    ``anisotropy_last`` and of ln ``singular_entropy``."""


def geometry_of(results: pd.DataFrame, steps: np.ndarray, values: np.ndarray, best_step: int) -> Geometry:
    """Return when a model's geometry turned, beside its losses at some steps, the lowest of them at ``best_step``.

    ``results`` are rows of a tidy table, of one model. Fewer than four checkpoints of a metric are ignored.
    """
    anisotropy, entropy = (_series(results, *name) for name in (_ANISOTROPY, _ENTROPY))
    turns: dict[str, int | None] = {}
    rates = {}
    if anisotropy is not None:
        turns["anisotropy_jump_step"] = _steepest_rise(*anisotropy, _LEAST_RISE)
        turns["anisotropy_above_half_step"] = _stays_above(*anisotropy)
        rates["anisotropy_last"] = _correlation(steps, values, *anisotropy)
    if entropy is not None:
        entropy = entropy[0], np.log(np.maximum(entropy[1], np.finfo(np.float64).tiny))
        turn = int(entropy[1].argmin())
        if turn < len(entropy[1]) - 1:
            turns["entropy_turn_step"] = int(entropy[0][turn])
            turns["entropy_spike_step"] = _steepest_rise(entropy[0][turn:], entropy[1][turn:])
        rates["singular_entropy"] = _correlation(steps, values, *entropy)
    lags = {name.removesuffix("_step"): step - best_step for name, step in turns.items() if step is not None}
    known = {name: rate for name, rate in rates.items() if rate is not None}
    return Geometry(**turns, lags=lags or None, rates=known or None)


def _series(results: pd.DataFrame, task: str, metric: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return steps above 0 and values; None for fewer than four."""
    rows = results[(results.task == task) & (results.metric == metric)]
    steps, values = (rows[name].to_numpy(np.float64, na_value=np.nan) for name in ("step", "value"))
    known = (steps > 0) & np.isfinite(values)
    # The first of each step.
    steps, first = np.unique(steps[known], return_index=True)
    return None if len(steps) < _LEAST else (steps.astype(np.int64), values[known][first])


def _rates(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.diff(values) / np.diff(np.log(steps))


def _steepest_rise(steps: np.ndarray, values: np.ndarray, least: float = -np.inf) -> int | None:
    """Return the end of the steepest rise; None if the mean after it exceeds the mean before by less than ``least``."""
    rates = _rates(steps, values)
    after = int(rates.argmax()) + 1
    risen = values[after:].mean() - values[:after].mean()
    return int(steps[after]) if rates.max() > 0 and risen >= least else None


def _stays_above(steps: np.ndarray, values: np.ndarray) -> int | None:
    below = np.flatnonzero(values <= _COLLAPSED)
    first = below[-1] + 1 if len(below) else 0
    return int(steps[first]) if first < len(steps) else None


def _correlation(steps: np.ndarray, values: np.ndarray, other_steps: np.ndarray, others: np.ndarray) -> float | None:

    shared = np.intersect1d(steps[steps > 0], other_steps)
    if len(shared) < _LEAST + 1:
        return None
    mine = _rates(shared, values[np.isin(steps, shared)])
    theirs = _rates(shared, others[np.isin(other_steps, shared)])
    return spearman(mine, theirs)
