"""Hindcasts: what would have been forecast from the beginning of runs whose end is known, and how good that was.

A chance p of what did (y = 1) or did not happen (y = 0) is scored by (p − y)², whose mean is the Brier score (1950).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from lmsat_plugin.analysis.saturation.by_model import Saturation
from lmsat_plugin.analysis.saturation.own_future import OwnFuture, own_future, power_law_losses
from lmsat_plugin.analysis.stats.bootstrap import CONFIDENCE, NORMAL, Estimate
from lmsat_plugin.analysis.stats.differences import clustered_stderr
from lmsat_plugin.errors import LmsatError

SHARES = (0.3, 0.5, 0.7)
"""The shares of a run from which its end is forecast."""
_CLASSES = (0.1, 0.2, 0.4, 0.6, 0.8)
"""The chances that part the classes of `reliability`."""
LEAST_RUNS = 3
"""Fewer runs at hand say too little: published ones stand in."""
PUBLISHED_RUNS, PUBLISHED_SATURATING = 37, 7
"""The runs of Pythia of which EleutherAI published LAMBADA perplexities over training, without shots and with five
(github.com/EleutherAI/pythia, evals/pythia-v1, without the interventions), and those of them that saturate."""
PUBLISHED_ERROR = 0.104
"""Nine tenths of the hindcasts of these runs have at most this `Hindcast.error`."""


class BaseRate(NamedTuple):
    """How often runs saturate, of which nothing else is known."""

    value: float
    saturating: int
    runs: int
    source: str
    """``other runs`` at hand, or ``published runs``."""


def base_rate(others: Sequence[Saturation]) -> BaseRate:
    """Return (k + ½) / (n + 1), of n other runs k that saturate (Jeffreys' prior).

    Of fewer than three it is the share of published runs. Runs without a p-value, which are not judged, do not count.
    """
    judged = [other for other in others if other.p_value is not None]
    saturating = sum(other.verdict == "saturates" for other in judged)
    if len(judged) < LEAST_RUNS:
        return BaseRate(PUBLISHED_SATURATING / PUBLISHED_RUNS, PUBLISHED_SATURATING, PUBLISHED_RUNS, "published runs")
    return BaseRate((saturating + 0.5) / (len(judged) + 1), saturating, len(judged), "other runs")


def chance(own: float, base: float, seen: float) -> float:
    """Return the chance that a run saturates: of its own future for the share of the run that is seen, else the base.

    The weights are not fitted to anything: what a curve knows of its own end grows with the share of it that is seen.
    """
    return seen * own + (1 - seen) * base


@dataclass(frozen=True, kw_only=True)
class Hindcast:
    """What would have been forecast of one run, and what happened."""

    label: str
    share: float
    """Of the run, from which its end is forecast."""
    seen: float
    """The same, of the last checkpoint until then."""
    own: OwnFuture
    p_base_rate: float
    saturates: bool
    observed_gain: float
    """The curve at the last checkpoint until then minus the last loss of all."""

    @property
    def p_saturates(self) -> float:
        """The forecast chance."""
        return chance(self.own.p_saturates, self.p_base_rate, self.seen)

    @property
    def error(self) -> float:
        """The size of the error of the gain, as a share of the loss until then."""
        assert self.own.gain.value is not None
        return abs(self.observed_gain - self.own.gain.value) / self.own.now


def widened(own: OwnFuture, seen: float, others: Sequence[Hindcast]) -> Estimate:
    """Return the gain of a run's own future, its interval at least as wide as the errors of hindcasts of other runs.

    A curve knows neither the schedule nor a rise to come, so that its own interval is too narrow. Nine tenths of the
    others' errors lie within the wider one (split conformal prediction); of fewer than three other runs those of
    published runs stand in. Beyond the last of `SHARES` errors shrink with what is to come.
    """
    gain, errors = own.gain, np.sort([one.error for one in others])
    assert gain.value is not None
    error = PUBLISHED_ERROR
    if len({one.label for one in others}) >= LEAST_RUNS:
        error = float(errors[min(len(errors), int(np.ceil(CONFIDENCE * (len(errors) + 1)))) - 1])
    width = error * own.now * min(1.0, (1 - seen) / (1 - SHARES[-1]))
    low, high = (gain.value if end is None else end for end in (gain.low, gain.high))
    return Estimate(gain.value, min(low, gain.value - width), max(high, gain.value + width))


class ForecastClass(NamedTuple):
    """Hindcasts of similar chances."""

    forecast: float
    """The mean of their chances."""
    happened: float
    """The share of them whose run saturates."""
    hindcasts: int


def reliability(found: Sequence[Hindcast]) -> list[ForecastClass]:
    """Return hindcasts in classes of their chance: of a reliable forecast as many come true as it says."""
    forecast = np.array([one.p_saturates for one in found])
    happened = np.array([one.saturates for one in found])
    class_of = np.digitize(forecast, _CLASSES)
    return [
        ForecastClass(float(forecast[own].mean()), float(happened[own].mean()), int(own.sum()))
        for own in (class_of == number for number in range(len(_CLASSES) + 1))
        if own.any()
    ]


@dataclass(frozen=True, kw_only=True)
class Skill:
    """How good hindcasts were, beside the base rate."""

    brier: float
    brier_base_rate: float
    runs: int
    hindcasts: int
    better: bool
    """Whether the Brier score is surely lower than the base rate's, one-sided 5 % with runs as clusters.

    It also has to be lower than that of the share of these runs that saturate, which no forecast knows."""
    source: str
    """``runs at hand`` or ``published runs``."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def sentence(self) -> str:
        """Return the skill in words."""
        verdict = "better than" if self.better else "no better than"
        where = (
            "runs at hand" if self.source == "runs at hand" else "published runs of Pythia, for want of runs at hand"
        )
        *shares, last = (f"{100 * share:.0f}" for share in SHARES)
        return (
            f"In {self.hindcasts} hindcasts of {self.runs} {where}, from {', '.join(shares)} and {last} % of training, "
            f"the forecast's Brier score is {self.brier:.3f} and the base rate's {self.brier_base_rate:.3f}: {verdict} "
            "the base rate."
        )


PUBLISHED = Skill(brier=0.135, brier_base_rate=0.171, runs=37, hindcasts=74, better=True, source="published runs")
"""On the runs of `PUBLISHED_RUNS`, by benchmarks/forecasts.py."""


def hindcasts(results: Sequence[Saturation], *, repetitions: int = 100, seed: int = 0) -> list[Hindcast]:
    """Return what would have been forecast from `SHARES` of each judged run.

    The base rate of a run is that of the others. Left out is what `own_future` refuses.
    """
    judged = [result for result in results if result.p_value is not None]
    found = []
    for result in judged:
        base = base_rate([other for other in judged if other is not result]).value
        at_K = result.series.at_K
        for share in SHARES:
            seen = int((at_K <= share * at_K[-1]).sum())
            try:
                losses_K = power_law_losses(result.series)
                own = own_future(at_K[:seen], losses_K[:seen], at_K[seen:], repetitions=repetitions, seed=seed)
            except LmsatError:
                continue
            found.append(
                Hindcast(
                    label=result.label,
                    share=share,
                    seen=float(at_K[seen - 1] / at_K[-1]),
                    own=own,
                    p_base_rate=base,
                    saturates=result.verdict == "saturates",
                    observed_gain=float(own.now - losses_K[-1]),
                )
            )
    return found


def skill_of(found: Sequence[Hindcast], source: str = "runs at hand") -> Skill:
    """Return how good hindcasts were. ``found`` holds at least one."""
    happened = np.array([one.saturates for one in found], dtype=np.float64)
    own = (np.array([one.p_saturates for one in found]) - happened) ** 2
    base = (np.array([one.p_base_rate for one in found]) - happened) ** 2
    labels = np.array([one.label for one in found])
    stderr = clustered_stderr(base - own, labels)
    return Skill(
        brier=float(own.mean()),
        brier_base_rate=float(base.mean()),
        runs=len(set(labels.tolist())),
        hindcasts=len(found),
        better=bool((base - own).mean() > NORMAL * stderr and own.mean() < happened.var()),
        source=source,
    )
