"""Sentences on a law that does not fit: residuals beyond the noise, large gaps at the largest sizes (`misfits`).

Shapes: P points.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lmsat_plugin.analysis.input_tables import as_floats
from lmsat_plugin.analysis.scaling_laws.fitted_law import HeldOut
from lmsat_plugin.analysis.scaling_laws.laws import Points

_SEVERAL = 3.0
"""How many times the noise residuals are when the law does not fit."""
_LARGE_GAP = 0.05


def misfits(points: Points, residuals_P: np.ndarray, held_out: HeldOut | None, *, fitted: bool) -> Iterator[str]:
    """Yield a sentence for each sign that the law does not hold for the points."""
    noise = _noise(points)
    rms = float(np.sqrt(np.mean(residuals_P**2)))
    if noise is not None and rms > _SEVERAL * noise:
        yield (
            f"the residuals ({rms:.2g}, rms of log loss) are {rms / noise:.1f} times the noise of the losses "
            f"({noise:.2g}): the law does not describe these points"
        )
    if held_out is None and fitted:
        yield "no held-out error: without the largest too little is left to fit"
    if held_out is not None and held_out.mean_absolute_gap > _LARGE_GAP:
        yield (
            f"the {held_out.by} is off by {100 * held_out.mean_absolute_gap:.1f} % if it is not fitted: the law does "
            "not extrapolate on these points"
        )


def _noise(points: Points) -> float | None:
    """Return the standard deviation of log losses: of runs with the same variables, else from ``stderr``; or None."""
    keys_P = np.unique(np.column_stack(list(points.values.values())), axis=0, return_inverse=True)[1].ravel()
    counts = np.bincount(keys_P)
    logs_P = np.log(points.losses_P)
    means = np.bincount(keys_P, logs_P) / counts
    if (more := int((counts - 1).sum())) >= 3:
        return float(np.sqrt(((logs_P - means[keys_P]) ** 2).sum() / more)) or None
    if "stderr" not in points.table:
        return None
    errors_P = as_floats(points.table["stderr"]).to_numpy() / points.losses_P
    errors_P = errors_P[np.isfinite(errors_P) & (errors_P > 0)]
    return float(np.median(errors_P)) if len(errors_P) else None
