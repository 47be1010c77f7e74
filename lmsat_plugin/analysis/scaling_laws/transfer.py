"""The law `transfer` (Kaplan et al. 2020, Sec. 3.2.2): the loss on another corpus as a line of that trained on.

Shapes: G runs, R repetitions, the first of them the estimate.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lmsat_plugin.analysis.scaling_laws.forms import Line
from lmsat_plugin.analysis.scaling_laws.laws import Law, Points
from lmsat_plugin.analysis.scaling_laws.resampling import RUNS_BEYOND
from lmsat_plugin.analysis.stats.bootstrap import Estimate


def offsets(values: Mapping[str, np.ndarray], points: Points, counts_RG: np.ndarray) -> dict[str, np.ndarray]:
    """Return the mean offset over runs in nats, and its drift within runs in nats per doubling of the tokens.

    The offset is other_loss − loss, as if the slope were 1. The drift needs a column ``tokens`` or ``step`` and runs of
    several checkpoints; with few such runs it has no interval.
    """
    offsets_P = points.losses_P - points.values["loss"]
    means_G = np.bincount(points.runs_P, offsets_P) / np.bincount(points.runs_P)
    derived = {"offset_at_slope_1": counts_RG @ means_G / counts_RG.sum(1)}
    column = next((name for name in ("tokens", "step", "steps") if name in points.table), None)
    if column is None:
        return derived
    trained_P = pd.to_numeric(points.table[column], errors="coerce").to_numpy(np.float64)
    drifts_G = np.full(points.runs, np.nan)
    for run in range(points.runs):
        of_run_P = (points.runs_P == run) & (trained_P > 0)
        doublings = np.log2(trained_P[of_run_P])
        if len(set(doublings)) > 1:
            drifts_G[run] = np.polyfit(doublings, offsets_P[of_run_P], 1)[0]
    known_G = np.isfinite(drifts_G)
    if known_G.any():
        with np.errstate(invalid="ignore"):
            drifts_R = counts_RG[:, known_G] @ drifts_G[known_G] / counts_RG[:, known_G].sum(1)
        if known_G.sum() <= RUNS_BEYOND:
            drifts_R[1:] = np.nan
        derived["drift_per_doubling"] = drifts_R
    return derived


def parallel(params: Mapping[str, Estimate]) -> tuple[str, ...]:
    """Return a sentence on whether the slope's interval holds 1, which means a constant offset."""
    slope = params["slope"]
    if slope.low is None or slope.high is None:
        return ()
    inside = slope.low <= 1 <= slope.high
    return (f"a slope of 1, a constant offset, lies {'within' if inside else 'outside'} the slope's interval",)


TRANSFER = Law(
    name="transfer",
    formula="other_loss = offset + slope · loss",
    form=Line("loss"),
    columns={"loss": "loss"},
    size="loss",
    target="other_loss",
    checkpoints=True,
    derive=offsets,
    remark=parallel,
)
