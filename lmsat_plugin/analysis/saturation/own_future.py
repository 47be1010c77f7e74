"""How a run ends if it goes on along its own learning curve: how often it is then judged as risen, and what it gains.

Shapes: K checkpoints so far, M later ones, R simulations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmsat_plugin.analysis.saturation.metric_series import MetricSeries
from lmsat_plugin.analysis.saturation.preparation import Cells
from lmsat_plugin.analysis.saturation.rise import best_models, p_values
from lmsat_plugin.analysis.saturation.trend import least_after, rise_model
from lmsat_plugin.analysis.scaling_laws.run_curves import LEAST_TO_EXTRAPOLATE, extrapolate
from lmsat_plugin.analysis.stats.autoregressive import simulate, stderr_of_sum
from lmsat_plugin.analysis.stats.bootstrap import Estimate, interval
from lmsat_plugin.analysis.stats.differences import SIGNIFICANT
from lmsat_plugin.errors import LmsatError

LEAST_SEEN = 0.2
"""The share of a run from which on its end is forecast."""
_FLAT_RUNS = 500
"""Simulations for the p of a rise, as many as verdicts have by default."""


@dataclass(frozen=True)
class OwnFuture:
    """The end of a run, by its own curve and noise alone."""

    p_saturates: float
    """The share of simulated ends with which the whole run is judged to rise as `Saturation.verdict` judges it."""
    now: float
    """The curve at the last checkpoint, in the unit of `power_law_losses`."""
    gain: Estimate
    """``now`` minus the loss of a checkpoint at the end, above 0 where training on helps."""


def power_law_losses(series: MetricSeries) -> np.ndarray:
    """Return the values as losses above 0, shape [K], which a power law needs: of scores up to 1, 1 minus the score.

    They are `MetricSeries.losses_K` up to a constant. Raises `LmsatError` for other values that are not above 0.
    """
    if series.higher_is_better and (series.values_K < 1).all() and (series.values_K >= 0).all():
        return 1 - series.values_K
    if not (series.losses_K > 0).all():
        raise LmsatError(
            f"a power law needs losses above 0 or scores from 0 to 1, and {series.metric} is "
            f"{series.values_K.min():.3g} to {series.values_K.max():.3g}"
        )
    return series.losses_K


def check_enough(at_K: np.ndarray, end: int) -> None:
    """Raise `LmsatError` for fewer checkpoints than a curve needs, and for less than a fifth of the run to ``end``."""
    if len(at_K) < LEAST_TO_EXTRAPOLATE:
        raise LmsatError(
            f"{len(at_K)} checkpoint{'s' * (len(at_K) > 1)} cannot tell a curve: measure at least "
            f"{LEAST_TO_EXTRAPOLATE}"
        )
    seen = at_K[-1] / end
    if seen < LEAST_SEEN:
        raise LmsatError(f"{100 * seen:.0f} % of the run are too little to extrapolate: train on to {LEAST_SEEN:.0%}")


def own_future(
    at_K: np.ndarray, losses_K: np.ndarray, later_M: np.ndarray, *, repetitions: int, seed: int
) -> OwnFuture:
    """Return how a run ends, with the uncertainty of what is extrapolated and with its AR(1) noise.

    In half of the simulated ends that are judged its curve goes on (`extrapolate`), in the other half its level stays.
    The gain is that of the curve.

    Args:
        at_K, losses_K: The run so far; see `power_law_losses`.
        later_M: The places of its later checkpoints, in order.
        repetitions, seed: Of the simulations.

    Raises:
        LmsatError: For fewer than a fifth of the run, or fewer checkpoints than a curve needs, and a loss that only
            rises.
    """
    check_enough(at_K, later_M[-1])
    ways = extrapolate(
        at_K.astype(np.float64), losses_K, later_M.astype(np.float64), repetitions=repetitions, seed=seed
    )
    half = repetitions - repetitions // 2
    stays_RM = _staying(at_K, losses_K, len(later_M), repetitions=half, rng=np.random.default_rng(seed))
    ends_RM = np.concatenate([ways.losses_RM[:half], stays_RM])
    all_at = np.concatenate([at_K, later_M])
    cells = Cells.of(all_at, np.concatenate([losses_K, ways.curve_M]))
    runs_RC = np.hstack([np.tile(losses_K, (len(ends_RM), 1)), ends_RM]) @ cells.weights_CK.T
    model = rise_model(tuple(all_at[cells.last_C].tolist()), tuple(cells.place_C.tolist()))
    p_R, _ = p_values(model, runs_RC, best_models(model, runs_RC), _FLAT_RUNS)
    ends = interval(ways.now - ways.losses_RM[:, -1])
    return OwnFuture(
        p_saturates=float((p_R < SIGNIFICANT).mean()),
        now=ways.now,
        gain=Estimate(float(ways.now - ways.curve_M[-1]), *(ends or ())),
    )


def _staying(
    at_K: np.ndarray, losses_K: np.ndarray, later: int, *, repetitions: int, rng: np.random.Generator
) -> np.ndarray:
    """Return ends at the level of the last checkpoints, with the noise about the run's most likely trend, [R, M].

    One break is too few for a run that falls, turns and rises: its level says more than its curve.
    """
    cells = Cells.of(at_K, losses_K)
    values_C = cells.weights_CK @ losses_K
    best = best_models(rise_model(tuple(at_K[cells.last_C].tolist()), tuple(cells.place_C.tolist())), values_C[None])
    sigma, phi = float(best.sigma_R[0]), float(best.plausible_R[0])
    # The end of a line through them: of a run that still falls steeply their mean lies above the last one.
    last = min(2 * least_after(len(values_C)), len(values_C))
    design = np.column_stack([np.ones(last), np.log(at_K[cells.last_C[-last:]] / at_K[cells.last_C[-1]])])
    weights_C = np.linalg.pinv(design)[0]
    level_R = weights_C @ values_C[-last:] + stderr_of_sum(weights_C, sigma, phi) * rng.standard_normal(repetitions)
    white_RM = sigma * rng.standard_normal((repetitions, later))
    return level_R[:, None] + simulate(white_RM, np.full(repetitions, phi))
