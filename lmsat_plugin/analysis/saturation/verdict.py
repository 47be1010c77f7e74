"""The verdict on a model's saturation, and the reason in words.

Shapes: K checkpoints.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from lmsat_plugin.analysis.saturation.metric_series import MetricSeries
from lmsat_plugin.analysis.saturation.rise import Rise
from lmsat_plugin.analysis.stats.autoregressive import stderr_of_sum
from lmsat_plugin.analysis.stats.bootstrap import NORMAL

Verdict = Literal["saturates", "plateaus", "improving", "unclear", "diverged"]

SIGNIFICANT = 0.05
LEAST_CHECKPOINTS = 8
_NEGLIGIBLE = 0.2
"""The share of the gain over the whole run below which a late change is negligible."""
_BUMP = 3.0
"""How far above the level a bump has to be, in standard deviations of the noise."""
_SHORTEST_BUMP = 3
"""Checkpoints."""
_NORMAL_MAD = 0.6745
"""Median absolute deviation over standard deviation of normal numbers."""


def judge(series: MetricSeries, values_K: np.ndarray, rise: Rise | None, p_value: float | None) -> tuple[Verdict, str]:
    """Return the verdict on a series, and the reason.

    ``values_K`` are its `MetricSeries.losses_K` without outliers. ``rise``, None for too few checkpoints, is that of
    its last stretch, and ``p_value`` that of the rise against both noise and sample.
    """
    size, at_K = len(series.at_K), series.at_K
    if series.diverged is not None:
        lowest = int(series.losses_K.argmin())
        return "diverged", (
            f"its {series.metric} is not finite from {series.diverged.words} on; before, it was at best "
            f"{series.values_K[lowest]:.4g}, at {series.place(lowest)}"
        )
    if rise is None or p_value is None:
        return "unclear", (
            f"{size} checkpoint{'s' * (size > 1)} from {series.place(0)} on cannot tell a trend from "
            f"checkpoint-to-checkpoint noise: measure at least {LEAST_CHECKPOINTS}"
        )
    if (at_chance := _at_chance(series)) is not None:
        return "unclear", at_chance
    last = f"its last {rise.last} checkpoints (from {series.place(-rise.last)})"
    best = f"its best stretch ({series.places(rise.first, rise.stop - 1)})"
    if p_value < SIGNIFICANT:
        return "saturates", (
            f"{last} are {_difference(series, rise.size)} worse than {best}, {rise.size / rise.sigma:.1f} times the "
            f"checkpoint-to-checkpoint noise, p = {p_value:.2g}"
        )
    if rise.p_value < SIGNIFICANT:
        return "unclear", (
            f"{last} are {_difference(series, rise.size)} worse than {best}, more than checkpoint-to-checkpoint noise "
            f"explains, but another sample of {'questions' if series.higher_is_better else 'text'} may not show it "
            f"(p = {p_value:.2g}): measure more"
            f"{', or keep losses by document with arrays=DIR' if series.metric == 'loss' else ''}"
        )
    bump = _bump(series, values_K, rise)
    slope, error = _slope(np.log(at_K), values_K, rise)
    if rise.size < 0 and slope < -NORMAL * error:
        return "improving", f"{last} are {_difference(series, -rise.size)} better than {best}{bump}"
    gain = values_K[0] - float(values_K[rise.first : rise.stop].mean())
    direction = "worse" if rise.size > 0 else "better"
    if abs(rise.size) + NORMAL * rise.stderr < _NEGLIGIBLE * gain:
        return "plateaus", (
            f"{last} are {_difference(series, abs(rise.size))} {direction} than {best}, which checkpoint-to-checkpoint "
            f"noise alone explains (p = {p_value:.2g}){bump}"
        )
    return "unclear", (
        f"{last} are {_difference(series, abs(rise.size))} {direction} than {best}, and the checkpoint-to-checkpoint "
        f"noise, {_difference(series, rise.sigma)}, is too large to tell a trend (p = {p_value:.2g}){bump}: "
        "measure more checkpoints, or more text or questions"
    )


def _at_chance(series: MetricSeries) -> str | None:
    """Return the reason for a score that never clearly exceeds chance; None for other scores."""
    chance = series.chance
    if chance is None or series.stderr_K is None:
        return None
    away_K = (series.values_K - chance) * (1 if series.higher_is_better else -1)
    above = int((away_K > 2 * series.stderr_K).sum())
    if above >= max(3, len(away_K) // 4):
        return None
    checkpoints = f"{above} of {len(away_K)} checkpoints are clearly better than chance, {chance:g}"
    return f"{checkpoints}: there is no ability to lose"


def _slope(log_steps_K: np.ndarray, values_K: np.ndarray, rise: Rise) -> tuple[float, float]:
    """Return the slope of the second half of the checkpoints by ln(step), and its standard error."""
    weights_K = np.zeros(len(values_K))
    half = slice(len(values_K) // 2, None)
    centred = log_steps_K[half] - log_steps_K[half].mean()
    weights_K[half] = centred / (centred**2).sum()
    return float(weights_K @ values_K), stderr_of_sum(weights_K, rise.sigma, rise.phi)


def _bump(series: MetricSeries, values_K: np.ndarray, rise: Rise) -> str:
    """Return a clause on the longest bump, clearly above a level to which the values came back; "" without one."""
    level = float(values_K[rise.first : rise.stop].mean())
    # The edges of a bump enlarge few of the differences between neighbours, so their median is that of the noise.
    scale = float(np.median(np.abs(np.diff(values_K)))) / (_NORMAL_MAD * np.sqrt(2))
    high = values_K > level + _BUMP * scale
    high[: int(np.flatnonzero(values_K <= level + scale)[0])] = False
    edges = np.flatnonzero(np.diff(np.concatenate([[0], high.astype(int), [0]])))
    runs = [(stop - first, first, stop) for first, stop in zip(edges[::2], edges[1::2], strict=True)]
    length, first, stop = max(runs, default=(0, 0, 0))
    if length < _SHORTEST_BUMP:
        return ""
    height = _difference(series, float(values_K[first:stop].max()) - level)
    return f"; between {series.places(first, stop - 1, 'and')} it was up to {height} worse, and came back"


def _difference(series: MetricSeries, size: float) -> str:
    """Return a difference of `MetricSeries.losses_K` in words."""
    if series.is_ratio:
        return f"{100 * np.expm1(size):.3g} % of perplexity"
    if series.higher_is_better:
        return f"{100 * size:.3g} points"
    unit = " nats" if series.metric == "loss" else ""
    return f"{size:.3g}{unit} ({100 * size / abs(series.values_K[-1]):.2g} %)"
