"""The difference of a metric between two models, each of one or several runs: its interval, its p, its power.

Shapes: M documents or questions, C clusters of them (all alone where no passage is shared), R runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from lmsat_plugin.analysis.comparison.measured import Units
from lmsat_plugin.analysis.stats.differences import SIGNIFICANT, combined, smallest_detectable, two_sided
from lmsat_plugin.analysis.stats.randomisation import detectable, sign_test, subset_interval

LEAST_UNITS = 10
_NOTHING = 1e-12


@dataclass(frozen=True, eq=False)
class RunValue:
    """A metric of one run."""

    value: float
    stderr: float
    """NaN if unknown."""
    n: int | None
    """The number of documents or questions."""
    units: Units | None
    """What the value is made of; None if that is unknown."""


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A difference, the second model's value minus the first one's. What is unknown is None; ``reason`` says why."""

    a: float | None
    b: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    """``low`` and ``high`` are the ends of the 95 % interval, which excludes 0 where a test of this metric does."""
    p: float | None = None
    mde: float | None = None
    """The smallest difference that a test of this metric alone at 5 % finds with a power of 80 %."""
    n: int | None = None
    paired: bool = False
    unit: str | None = None
    """What is paired: documents, questions, or passages with the questions about them."""
    clusters: int | None = None
    """The number of passages, where questions share them."""
    reason: str | None = None


def untested(first: Sequence[RunValue], second: Sequence[RunValue], reason: str) -> Tested:
    """Return the two values alone, and why they are not compared."""
    a, b = _mean(first), _mean(second)
    return Tested(a=a if np.isfinite(a) else None, b=b if np.isfinite(b) else None, reason=reason)


def compared(first: Sequence[RunValue], second: Sequence[RunValue]) -> Tested:
    """Return the difference of two models' means over their runs.

    Where all runs have answered some of the same questions, or read the same documents, the difference is that of these
    alone, and its test is by their signs (`sign_test`), with the questions about one passage taken together. Otherwise
    its standard error is √(σ₁² + σ₂²) of the two values', which is too cautious where both read the same. The variance
    of a mean over runs is added to either, by Student's t with the degrees of freedom of Welch and Satterthwaite.
    """
    runs = [*first, *second]
    if not all(np.isfinite(run.value) for run in runs):
        return untested(first, second, "a value is not finite")
    units = [run.units for run in runs if run.units is not None]
    if len(units) < len(runs):
        return _by_stderrs(first, second)
    keys = _in_common(units)
    kind = units[0].kind
    if not keys:
        return untested(first, second, f"the two have no {kind}s in common")
    passages = [units[0].passages[units[0].places[key]] for key in keys] if units[0].passages else list(keys)
    _, cluster_M = np.unique(np.array(passages), return_inverse=True)
    clusters = int(cluster_M.max()) + 1
    if clusters < LEAST_UNITS:
        what = kind if clusters == len(keys) else "passage"
        said = f"{clusters} {what}{'s' if clusters > 1 else ''} in common"
        return untested(first, second, f"the two have {said}, fewer than {LEAST_UNITS}")
    parts = [run.of(keys) for run in units]
    counts_M = parts[0][1]
    if not all(np.array_equal(counts_M, own) for _, own in parts):
        return _by_stderrs(first, second)
    sums_RM = np.array([sums_M for sums_M, _ in parts])
    values_R = sums_RM.sum(1) / counts_M.sum()
    one, other = slice(len(first)), slice(len(first), None)
    differences_M = sums_RM[other].mean(0) - sums_RM[one].mean(0)
    sums_C, counts_C = (np.bincount(cluster_M, weights=own_M) for own_M in (differences_M, counts_M))
    a, b = float(values_R[one].mean()), float(values_R[other].mean())
    tested = _by_signs(Tested(a=a, b=b, difference=float(sums_C.sum() / counts_C.sum())), sums_C, counts_C)
    between = [*_between_runs(values_R[one]), *_between_runs(values_R[other])]
    if between and tested.low is not None and tested.high is not None:
        # The sample's part of the error is that whose interval is the one just found.
        sample = (tested.high - tested.low) / (2 * NormalDist().inv_cdf(1 - SIGNIFICANT / 2))
        tested = _by_errors(a, b, [(sample, np.inf), *between])
    alone = clusters == len(keys)
    unit = kind if alone else "passage"
    return replace(tested, n=len(keys), paired=True, unit=unit, clusters=None if alone else clusters)


def _in_common(units: Sequence[Units]) -> list[str]:
    """Return the keys that all have, in the order of the first."""
    shared = set.intersection(*(set(one.keys) for one in units))
    return [key for key in units[0].keys if key in shared]


def _by_stderrs(first: Sequence[RunValue], second: Sequence[RunValue]) -> Tested:
    stderrs = [float(np.mean([run.stderr for run in runs])) for runs in (first, second)]
    counts = [run.n for run in (*first, *second) if run.n is not None]
    n = min(counts, default=None)
    if n is not None and n < LEAST_UNITS:
        return untested(first, second, f"{n} documents or questions are fewer than {LEAST_UNITS}")
    if not np.isfinite(stderrs).all():
        return untested(first, second, "no standard error is known, and no scores of single questions are kept")
    values = [np.array([run.value for run in runs]) for runs in (first, second)]
    errors = [(math.hypot(*stderrs), np.inf), *_between_runs(values[0]), *_between_runs(values[1])]
    return replace(_by_errors(float(values[0].mean()), float(values[1].mean()), errors), n=n)


def _between_runs(values_R: np.ndarray) -> list[tuple[float, float]]:
    """Return the standard error of a mean over runs that comes from how these differ; nothing for a single run."""
    runs = len(values_R)
    return [(float(values_R.std(ddof=1) / np.sqrt(runs)), runs - 1.0)] if runs > 1 else []


def _by_signs(values: Tested, sums_C: np.ndarray, counts_C: np.ndarray) -> Tested:
    """Return a difference with p, its interval and what could be found; with p alone where no unit differs."""
    sums_C = np.where(np.abs(sums_C) > _NOTHING * counts_C, sums_C, 0.0)
    p = sign_test(sums_C)
    low, high = subset_interval(sums_C, counts_C)
    if low == high:
        return replace(values, p=p)
    mde = detectable(sums_C, counts_C, around_zero=p > SIGNIFICANT)
    return replace(values, p=p, low=low, high=high, mde=mde)


def _by_errors(a: float, b: float, errors: Sequence[tuple[float, float]]) -> Tested:
    """Return the difference of two values, by the independent parts of its standard error."""
    from scipy.special import stdtrit

    stderr, freedom = combined(errors)
    found = Tested(a=a, b=b, difference=b - a, p=two_sided(b - a, stderr, freedom))
    if stderr <= _NOTHING * max(abs(a), abs(b)):
        # No unit differs from the others, which says nothing of units that were not drawn.
        return found
    half = float(stdtrit(freedom, 1 - SIGNIFICANT / 2)) * stderr
    return replace(found, low=b - a - half, high=b - a + half, mde=smallest_detectable(stderr, freedom=freedom))


def _mean(runs: Sequence[RunValue]) -> float:
    return float(np.mean([run.value for run in runs]))
