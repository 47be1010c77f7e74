"""Where runs are going: the chance that their loss ends above its least value, and what training on gains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from lmsat_plugin.analysis.given_numbers import check_number, check_simulation
from lmsat_plugin.analysis.saturation.by_model import Saturation
from lmsat_plugin.analysis.saturation.hindcasts import (
    LEAST_RUNS,
    PUBLISHED,
    BaseRate,
    Hindcast,
    Skill,
    base_rate,
    chance,
    hindcasts,
    skill_of,
    widened,
)
from lmsat_plugin.analysis.saturation.metric_series import MetricSeries
from lmsat_plugin.analysis.saturation.own_future import check_enough, own_future, power_law_losses
from lmsat_plugin.analysis.saturation.precedents import Precedent, precedents_of
from lmsat_plugin.analysis.saturation.preparation import LEAST_CHECKPOINTS
from lmsat_plugin.analysis.saturation.several_metrics import names_of
from lmsat_plugin.analysis.stats.bootstrap import Estimate
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.series import place_in_words

_BEHIND = 1.05
"""A run counts as behind the others if the furthest of them has come so many times as far."""
_LATER = 2
"""A run that is behind none is forecast for so many times its length."""
_LEAST_TOKENS = 1e9
"""From here on a number that is asked for counts tokens: no training has so many steps."""
_MOST_LATER = 150
"""Checkpoints of one simulated end."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Where one run is going."""

    name: str
    """What people call the run; no other forecast beside it has this name."""
    until: int | None
    """The place at which training ends, on the series' axis; None where it is not known."""
    seen: float | None
    """The share of training until then that is over."""
    p_saturates: float | None
    """The chance that the whole run is judged to saturate, that is, that its loss ends above its least value."""
    p_own: float | None
    """The same by the run's own curve and noise alone."""
    base: BaseRate
    expected_gain: Estimate | None
    """The curve now minus the loss of a checkpoint at the end, by its own curve, with the 90 % interval of `widened`.

    It is above 0 where training on helps, and in the unit of `MetricSeries.losses_K`."""
    reason: str | None
    """Why there is no forecast."""
    precedents: list[Precedent] | None
    """None for fewer than three other runs with geometry."""
    skill: Skill
    series: MetricSeries

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, which ``lmsat saturation --forecast --json`` adds to the verdict's."""
        return {
            "p_saturates": self.p_saturates,
            "p_base_rate": self.base.value,
            "expected_gain": None if self.expected_gain is None else asdict(self.expected_gain),
            "forecast": {
                "sentence": self.sentence(),
                "until": self.until,
                "seen": self.seen,
                "p_own": self.p_own,
                "base_rate": self.base._asdict(),
                "reason": self.reason,
                "precedents": None if self.precedents is None else [asdict(one) for one in self.precedents],
                "hindcasts": self.skill.to_dict(),
            },
        }

    def sentence(self) -> str:
        """Return the forecast in words."""
        if self.p_saturates is None or self.expected_gain is None or self.until is None:
            return f"{self.name}: no forecast: {self.reason}."
        series = self.series
        name = "the loss" if series.metric == "loss" else f"{series.task} {series.metric}"
        turned = "below its highest" if series.higher_is_better else "above its least"
        return (
            f"{self.name}: If training goes on to {place_in_words(series.axis, self.until)}, {name} ends {turned} "
            f"value with a chance of {100 * self.p_saturates:.0f} % (base rate {100 * self.base.value:.0f} %), and "
            f"{_change(series, self.expected_gain)}."
        )


def forecast_saturation(
    results: Sequence[Saturation], *, until: float | None = None, repetitions: int = 100, seed: int = 0
) -> list[Forecast]:
    """Return where each run is going.

    A run's own end is simulated (`own_future`): in half of the simulations its learning curve, a saturating or a broken
    power law, goes on with its parameters' uncertainty, in the other half the level of its last checkpoints stays, both
    with AR(1) noise. The whole run is judged as `find_saturation` judges it. The chance that it saturates is the share
    of such ends, weighed by the share of training that is over, and the base rate, weighed by the share to come. The
    base rate is that of the other runs by the same metric, or of published runs where fewer than three others are
    judged. `Forecast.skill` says how good such forecasts were in hindsight.

    Args:
        results: Verdicts of `find_saturation`.
        until: The place at which training ends, on the axis of each series; from a billion on, tokens. By default the
            last place of the furthest run by the same metric or, for runs that are behind none, twice their own.
        repetitions, seed: Of each simulation.

    Raises:
        LmsatError: For an ``until`` below 1, fewer than 2 repetitions, and a ``seed`` out of range.
    """
    if until is not None:
        check_number("until", until, "give a step or tokens at which training ends", least=1, ends=True)
    check_simulation(repetitions, seed, usual=100, least=2)
    groups: dict[tuple[object, ...], list[Saturation]] = {}
    for result in results:
        groups.setdefault(_kind(result), []).append(result)
    hindsight = {kind: hindcasts(group, repetitions=repetitions, seed=seed) for kind, group in groups.items()}
    found = []
    for name, result in zip(names_of(results), results, strict=True):
        kind = _kind(result)
        forecast = _forecast(result, groups[kind], hindsight[kind], until=until, repetitions=repetitions, seed=seed)
        found.append(replace(forecast, name=name))
    return found


def _kind(result: Saturation) -> tuple[object, ...]:
    """Return what runs have to share to say something about each other."""
    return result.task, result.metric, result.corpus, result.num_fewshot, result.filter, result.axis


def _forecast(
    result: Saturation,
    group: Sequence[Saturation],
    found: Sequence[Hindcast],
    *,
    until: float | None,
    repetitions: int,
    seed: int,
) -> Forecast:
    others = [other for other in group if other is not result]
    base, series = base_rate(others), result.series
    end = own = reason = None
    try:
        end = _end(series, [other.series for other in others], until)
        _check(result, end)
        own = own_future(
            series.at_K, power_law_losses(series), _later(series.at_K, end), repetitions=repetitions, seed=seed
        )
    except LmsatError as error:
        reason = str(error)
    seen = p_saturates = gain = None
    if end is not None:
        seen = float(series.at_K[-1] / end)
    if own is not None and seen is not None:
        p_saturates = chance(own.p_saturates, base.value, seen)
        gain = widened(own, seen, [one for one in found if one.label != result.label])
    enough = len({one.label for one in found}) >= LEAST_RUNS
    return Forecast(
        name=result.label,
        until=end,
        seen=seen,
        p_saturates=p_saturates,
        p_own=None if own is None else own.p_saturates,
        base=base,
        expected_gain=gain,
        reason=reason,
        precedents=precedents_of(result, others),
        skill=skill_of(found) if enough else PUBLISHED,
        series=series,
    )


def _check(result: Saturation, end: int) -> None:
    """Raise `LmsatError` for a run of which nothing can be forecast."""
    series = result.series
    if result.axis == "order":
        raise LmsatError("its checkpoints state no step, tokens or words")
    if series.diverged is not None:
        raise LmsatError(f"it diverged at {series.diverged.words}")
    if end <= series.at_K[-1]:
        raise LmsatError(f"it has come to {series.place(-1)} already: give a later end with --until")
    check_enough(series.at_K, end)
    if result.p_value is None and len(series.at_K) >= LEAST_CHECKPOINTS:
        raise LmsatError(result.reason)


def _end(series: MetricSeries, others: Sequence[MetricSeries], until: float | None) -> int:
    """Return the place at which training ends. Raises `LmsatError` for tokens where those of the run are unknown."""
    last = int(series.at_K[-1])
    if until is None:
        furthest = max((int(other.at_K[-1]) for other in others), default=0)
        return furthest if furthest > _BEHIND * last else _LATER * last
    if until < _LEAST_TOKENS or series.axis != "step":
        return int(until)
    tokens = series.tokens_at(-1)
    if tokens is None:
        raise LmsatError("the tokens that it has seen are unknown: give the end as a step")
    return round(last * until / tokens)


def _later(at_K: np.ndarray, end: int) -> np.ndarray:
    """Return the places of later checkpoints, as far apart as the last ones, or farther to be few, with the end."""
    gap = max(float(np.median(np.diff(at_K[-4:]))) if len(at_K) > 1 else 1.0, (end - at_K[-1]) / _MOST_LATER)
    number = max(1, round((end - at_K[-1]) / gap))
    return np.unique(np.rint(np.linspace(at_K[-1], end, number + 1)[1:]).astype(np.int64))


def _change(series: MetricSeries, gain: Estimate) -> str:
    """Return a gain with its interval, in words."""
    known = [value for value in (gain.value, gain.low, gain.high) if value is not None]
    sizes, unit = np.array(known), " nats/token" if series.metric == "loss" else ""
    if series.is_ratio:
        sizes, unit = -100 * np.expm1(-sizes), " %"
    elif series.higher_is_better:
        sizes, unit = 100 * sizes, " points"
    better, worse = ("rises", "falls") if series.higher_is_better else ("falls", "rises")
    said = f"{better} by a further" if sizes[0] >= 0 else f"{worse} by"
    if sizes[0] < 0:
        sizes = np.concatenate([-sizes[:1], -sizes[:0:-1]])
    if len(sizes) < 3:
        return f"{said} {sizes[0]:.2g}{unit}"
    digits = max(0, 1 - int(np.floor(np.log10(max(sizes[2] - sizes[1], 1e-9)))))
    value, low, high = (f"{size:.{digits}f}" for size in sizes)
    return f"{said} {value}{unit} ({low} to {high})"
