"""The verdict on a model's saturation, and the reason in words.

Shapes: K checkpoints, C cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lmsat_plugin.analysis.saturation.metric_series import MetricSeries
from lmsat_plugin.analysis.saturation.preparation import LEAST_CHECKPOINTS, Cells
from lmsat_plugin.analysis.saturation.rise import MEDIAN_OF_NORMAL, Rise
from lmsat_plugin.analysis.saturation.trend import LONG
from lmsat_plugin.analysis.stats.autoregressive import stderr_of_sum
from lmsat_plugin.analysis.stats.bootstrap import NORMAL
from lmsat_plugin.analysis.stats.differences import SIGNIFICANT

Verdict = Literal["saturates", "plateaus", "improving", "unclear", "diverged"]

TOLERANCE = 2.0
"""Stretches that differ by less than so many standard deviations of one checkpoint count as equal."""
_LARGEST = 1e100
"""Values beyond it, and differences below its inverse, have no squares."""
_BUMP = 3.0
"""How far above the level a bump has to be, in standard deviations of the noise."""
_SHORTEST_BUMP = 3
_MOST_PER_CENT = 1.1
"""The ratio of two perplexities from which on it is said as a factor: 2.26 times is not 126 % better."""
"""Cells."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Judged:
    """What a verdict is made of."""

    series: MetricSeries
    cells: Cells
    values_C: np.ndarray
    """Means of the cells' `MetricSeries.losses_K`."""
    rise: Rise
    p_value: float
    """Of the rise against both noise and sample."""
    tolerance: float
    """In the unit of ``values_C``."""

    def places(self, first: int, last: int, joint: str = "to") -> str:
        """Return where two cells lie, in words."""
        return self.series.places(int(self.cells.first_C[first]), int(self.cells.last_C[last]), joint)

    @property
    def last(self) -> str:
        """The last stretch, in words."""
        return self._stretch(len(self.values_C) - self.rise.last, len(self.values_C))

    @property
    def before(self) -> str:
        """The stretch before the last one, in words."""
        stop = len(self.values_C) - self.rise.last
        return f"the {self._number(max(0, stop - self.rise.last), stop)} before"

    @property
    def best(self) -> str:
        """The best stretch before the last one, in words."""
        return f"its best stretch ({self.places(self.rise.first, self.rise.stop - 1)})"

    def _stretch(self, first: int, stop: int) -> str:
        start = self.series.place(int(self.cells.first_C[first]))
        return f"its last {self._number(first, stop)} checkpoints (from {start})"

    def _number(self, first: int, stop: int) -> int:
        return int((self.cells.weights_CK[first:stop] > 0).sum())

    def difference(self, size: float) -> str:
        """Return a difference of ``values_C`` in words."""
        return in_words(self.series, abs(size))


def without_judgement(series: MetricSeries, checkpoints: int) -> tuple[Verdict, str] | None:
    """Return the verdict on a series that is not judged, and the reason; None for others.

    ``checkpoints`` is the number of cells.
    """
    if series.diverged is not None:
        lowest = int(series.losses_K.argmin())
        return "diverged", (
            f"its {series.metric} is not finite from {series.diverged.words} on; before, it was at best "
            f"{series.values_K[lowest]:.4g}, at {series.place(lowest)}"
        )
    if checkpoints < LEAST_CHECKPOINTS:
        alone = "" if checkpoints == len(series.at_K) else " that lie apart"
        return "unclear", (
            f"{checkpoints} checkpoint{'s' * (checkpoints > 1)}{alone} from {series.place(0)} on cannot tell a trend "
            f"from checkpoint-to-checkpoint noise: measure at least {LEAST_CHECKPOINTS}"
        )
    if (series.losses_K == series.losses_K[0]).all():
        return "unclear", (
            f"all {len(series.at_K)} values are {series.values_K[0]:.4g}: without checkpoint-to-checkpoint noise "
            "nothing can be told; check that these are different checkpoints, and that the metric is not at its limit"
        )
    largest, nearest = float(np.abs(series.losses_K).max()), float(np.ptp(series.losses_K / 2)) * 2
    if largest > _LARGEST or nearest < 1 / _LARGEST:
        return "unclear", (
            f"values of {largest:.2g} that differ by {nearest:.2g} are no measurements that can be told apart: check "
            "what they are"
        )
    if (at_chance := _at_chance(series)) is not None:
        return "unclear", at_chance
    return None


def judge(judged: Judged) -> tuple[Verdict, str]:
    """Return the verdict on a series, and the reason."""
    series, rise, p_value = judged.series, judged.rise, judged.p_value
    worse = (
        f"{judged.last} are {judged.difference(rise.size)} worse than {judged.best}, "
        f"{rise.size / rise.sigma:.1f} times the checkpoint-to-checkpoint noise"
    )
    if p_value < SIGNIFICANT:
        return "saturates", f"{worse}, p = {p_value:.2g} of the rise"
    if rise.p_value < SIGNIFICANT:
        return "unclear", (
            f"{worse}, but another sample of {'questions' if series.higher_is_better else 'text'} may not show the "
            f"rise (p = {p_value:.2g}): measure more"
            f"{', or keep losses by document with arrays=DIR' if series.metric == 'loss' else ''}"
        )
    if rise.own_p_value < SIGNIFICANT:
        return "unclear", (
            f"{worse}: p of the rise is {rise.own_p_value:.2g} if neighbouring checkpoints correlate by "
            f"{rise.phi:.1f}, and {rise.p_value:.2g} if by {rise.most_phi:.1f}, and {len(judged.values_C)} checkpoints "
            f"cannot tell which: measure {'more' if len(judged.values_C) >= LONG else f'{LONG} or more'}, evenly over "
            "training"
        )
    return _without_rise(judged)


def _without_rise(judged: Judged) -> tuple[Verdict, str]:
    rise, values_C = judged.rise, judged.values_C
    bump, came_back = _bump(judged), ""
    change, error, before = rise.change, rise.change_stderr, judged.before
    if bump is not None:
        first, stop, came_back = bump
        if first < len(values_C) - rise.last < stop + rise.last:
            # What lies before the last stretch is the bump.
            change, error, before = rise.size, rise.stderr, judged.best
    compared = f"{judged.last} are {judged.difference(change)} {'worse' if change > 0 else 'better'} than {before}"
    falling = bool((np.diff(values_C) < 0).all())
    slope, slope_error = _slope(np.log(judged.series.at_K[judged.cells.last_C]), values_C, rise)
    sure = change < -NORMAL * error or (bump is None and slope < -NORMAL * slope_error)
    if falling or (change < 0 and rise.size < 0 and sure):
        return "improving", f"{compared}{', and each is better than the one before it' if falling else ''}{came_back}"
    said = f"p = {judged.p_value:.2g} of a rise"
    if abs(change) + NORMAL * error < judged.tolerance:
        return "plateaus", (
            f"{compared}; with its error that is less than the tolerance, {judged.difference(judged.tolerance)} "
            f"({said}){came_back}"
        )
    return "unclear", (
        f"{compared}, ± {judged.difference(NORMAL * error)}: neither surely better nor surely within the "
        f"tolerance, {judged.difference(judged.tolerance)} ({said}){came_back}: measure more checkpoints, or more text "
        "or questions"
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


def _slope(log_steps_C: np.ndarray, values_C: np.ndarray, rise: Rise) -> tuple[float, float]:
    """Return the slope of the second half of the cells by ln(step), and its standard error."""
    weights_C = np.zeros(len(values_C))
    half = slice(len(values_C) // 2, None)
    centred = log_steps_C[half] - log_steps_C[half].mean()
    weights_C[half] = centred / (centred**2).sum()
    return float(weights_C @ values_C), stderr_of_sum(weights_C, rise.sigma, rise.phi)


def _bump(judged: Judged) -> tuple[int, int, str] | None:
    """Return where the longest bump is, clearly above a level to which the values came back, and a clause on it."""
    rise, values_C = judged.rise, judged.values_C
    level = float(values_C[rise.first : rise.stop].mean())
    # The edges of a bump enlarge few of the differences between neighbours, so their median is that of the noise.
    scale = float(np.median(np.abs(np.diff(values_C)))) / (MEDIAN_OF_NORMAL * np.sqrt(2))
    high = values_C > level + _BUMP * scale
    reached = np.flatnonzero(values_C <= level + scale)
    high[: int(reached[0])] = False
    high[int(reached[-1]) :] = False
    edges = np.flatnonzero(np.diff(np.concatenate([[0], high.astype(int), [0]])))
    runs = [(stop - first, first, stop) for first, stop in zip(edges[::2], edges[1::2], strict=True)]
    length, first, stop = max(runs, default=(0, 0, 0))
    if length < _SHORTEST_BUMP:
        return None
    height = judged.difference(float(values_C[first:stop].max()) - level)
    return first, stop, f"; between {judged.places(first, stop - 1, 'and')} it was up to {height} worse, and came back"


def in_words(series: MetricSeries, size: float) -> str:
    """Return a difference of `MetricSeries.losses_K` in words.

    That of perplexities is a ratio: in per cent while that is nearly the same in both directions, else a factor.
    """
    if series.is_ratio:
        ratio = float(np.exp(size))
        return f"{100 * (ratio - 1):.3g} %" if ratio < _MOST_PER_CENT else f"a factor of {ratio:.3g}"
    if series.higher_is_better:
        return f"{100 * size:.3g} points"
    unit = " nats" if series.metric == "loss" else ""
    final = abs(series.values_K[-1])
    return f"{size:.3g}{unit}" + (f" ({100 * size / final:.2g} %)" if final > 0 else "")
