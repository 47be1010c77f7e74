"""When did the rise begin: a change point on the logarithm of the steps, with an interval.

Shapes: K checkpoints, R simulated runs, P places where the rise may begin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.analysis.stats.autoregressive import simulate
from lmsat_plugin.analysis.stats.bootstrap import TAIL, Simulation

if TYPE_CHECKING:
    from lmsat_plugin.analysis.saturation.rise import Rise

_LEAST_AFTER = 3
_PARAMETERS = 4


@dataclass(frozen=True)
class Onset:
    """Where a rise begins, as indices of checkpoints."""

    first: int
    """The first checkpoint that is risen."""
    low: int
    """The last checkpoint that is surely before the rise."""
    high: int
    """The first checkpoint that is surely risen."""


def onset_of(log_steps_K: np.ndarray, values_K: np.ndarray, rise: Rise, simulation: Simulation) -> Onset:
    """Return where the values leave the level of the best stretch for good.

    From that stretch on, the values are a level, and after the change a line in the logarithm of the steps that starts
    anywhere: a jump, a ramp, or both. Least squares choose the place. The 90 % interval is of the places that are
    chosen in simulations of that curve with the run's own autoregressive noise, or with the residuals of the curve if
    these are larger.
    """
    start = rise.first
    x_P, y_P = log_steps_K[start:], values_K[start:]
    places = np.arange(max(2, rise.stop - start - 1), len(y_P) - _LEAST_AFTER + 1)
    makers = []
    for place in places:
        after = np.arange(len(y_P)) >= place
        design = np.stack([np.ones(len(y_P)), after, after * (x_P - x_P[place])], axis=1).astype(float)
        makers.append(np.linalg.qr(design)[0])

    def choose(runs_RP: np.ndarray) -> np.ndarray:
        """Return the index of the best place for each run; what is explained is largest there."""
        return np.stack([((runs_RP @ basis) ** 2).sum(1) for basis in makers]).argmax(0)

    best = int(choose(y_P[None])[0])
    curve_P = makers[best] @ (makers[best].T @ y_P)
    left = np.sqrt(((y_P - curve_P) ** 2).sum() / max(1, len(y_P) - _PARAMETERS))
    repetitions = simulation.repetitions
    white_RP = max(left, rise.sigma) * simulation.rng.standard_normal((repetitions, len(y_P)))
    found_R = places[choose(curve_P + simulate(white_RP, np.full(repetitions, rise.phi)))]
    low, high = np.quantile(found_R, [TAIL, 1 - TAIL], method="inverted_cdf")
    first = int(places[best])
    return Onset(
        first=start + first, low=start + min(int(low), first) - 1, high=start + max(int(high), first)
    )
