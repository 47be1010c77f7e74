"""Ranks from pairwise tests: models that do not differ significantly share a rank.

Shapes: K models, M documents, Q pairs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lmsat_plugin.analysis.stats.differences import SIGNIFICANT, combined, holm, two_sided
from lmsat_plugin.analysis.stats.randomisation import sign_tests

_METHOD = (
    "A rank is 1 + the number of models that are significantly better, by two-sided tests of all {tested} pairs "
    "({paired} of them document by document, the others by standard errors), corrected by Holm at "
    f"{SIGNIFICANT:g}. The tests allow for the sample of documents or questions, "
)
_RUNS = {
    "none": "not for how training runs differ.",
    "some": "and, of models with several runs alone, for how these differ.",
    "all": "and for how training runs differ.",
}


@dataclass(frozen=True, eq=False)
class Scored:
    """The value that a model is ranked by, and how sure it is."""

    value: float
    stderr: float = np.nan
    """NaN if unknown."""
    documents: tuple[np.ndarray, np.ndarray] | None = None
    """Sums and tokens of the M documents; the ratio of their totals is the value. None if unknown."""
    runs: int = 1
    """The number of runs that the value is the mean of."""
    between: float = 0.0
    """The standard error of that mean from how runs differ, which ``stderr`` leaves out; 0 for a single run."""


@dataclass(frozen=True)
class Ranks:
    """The ranks of K models; ties share a rank."""

    ranks: list[int | None]
    """None for a model that could be tested against no other."""
    paired: int
    """The number of pairs that were compared document by document."""
    tested: int
    """The number of pairs that were compared."""
    runs: Literal["none", "some", "all"] = "none"
    """Of which models several runs count."""

    @property
    def method(self) -> str:
        """How the ranks were found."""
        return _METHOD.format(tested=self.tested, paired=self.paired) + _RUNS[self.runs]


def rank_models(scored: Sequence[Scored], higher_is_better: bool) -> Ranks:
    """Return each model's rank, 1 + the number of models that are significantly better.

    Two models that read the same documents in the same tokens are compared by the signs of the differences of their
    documents' sums (`sign_tests`), which hold however much longer one document is than the others. Other pairs are
    compared by z = Δ / √(σ₁² + σ₂²) of their standard errors, which is too cautious where both read the same text. For
    a mean over runs, the variance of that mean is added to either, with the degrees of freedom of Welch (1947) and
    Satterthwaite (1946). Holm's correction (1979) keeps the probability of any false order at 5 %.
    """
    sign = 1 if higher_is_better else -1
    pairs_Q, p_values_Q, by_documents = [], [], _by_documents(scored)
    for a, b in itertools.combinations(range(len(scored)), 2):
        p_value = by_documents[a, b] if (a, b) in by_documents else _unpaired(scored[a], scored[b])
        if p_value is not None:
            better = sign * (scored[a].value - scored[b].value) > 0
            pairs_Q.append((a, b) if better else (b, a))
            p_values_Q.append(p_value)
    ranks: list[int | None] = [1 if len(scored) == 1 else None] * len(scored)
    for pair in pairs_Q:
        for index in pair:
            ranks[index] = 1
    for (_, worse), significant in zip(pairs_Q, holm(np.array(p_values_Q)) <= SIGNIFICANT, strict=True):
        ranks[worse] = (ranks[worse] or 1) + bool(significant)
    repeated = [one.runs > 1 for one in scored]
    runs: Literal["none", "some", "all"] = "all" if all(repeated) else "some" if any(repeated) else "none"
    return Ranks(ranks=ranks, paired=len(by_documents), tested=len(pairs_Q), runs=runs)


def _by_documents(scored: Sequence[Scored]) -> dict[tuple[int, int], float]:
    """Return p of the pairs that read the same documents, by their indices in order."""
    readers: dict[bytes, list[int]] = {}
    for index, one in enumerate(scored):
        if one.documents is not None and len(one.documents[1]) > 1:
            readers.setdefault(np.asarray(one.documents[1], dtype=np.float64).tobytes(), []).append(index)
    found = {}
    for group in readers.values():
        sums_KM = np.array([one.documents[0] for one in map(scored.__getitem__, group) if one.documents is not None])
        p_KK = sign_tests(sums_KM) if len(group) > 1 else np.ones((1, 1))
        for (i, a), (j, b) in itertools.combinations(enumerate(group), 2):
            found[a, b] = _with_runs(scored[a], scored[b], float(p_KK[i, j]))
    return found


def _with_runs(first: Scored, second: Scored, p: float) -> float:
    """Return p with the variance between runs added to that of the sample, whose error is the normal one of its p."""
    from scipy.special import ndtri

    between = _between(first, second)
    if not between or p >= 1:
        return p
    gap = first.value - second.value
    sample = abs(gap) / -float(ndtri(p / 2))
    return max(p, two_sided(gap, *combined([(sample, np.inf), *between])))


def _unpaired(first: Scored, second: Scored) -> float | None:
    """Return the p-value of the difference by standard errors; None where one is unknown."""
    stderr = float(np.hypot(first.stderr, second.stderr))
    if not np.isfinite(stderr):
        return None
    return two_sided(first.value - second.value, *combined([(stderr, np.inf), *_between(first, second)]))


def _between(first: Scored, second: Scored) -> list[tuple[float, float]]:
    """Return the standard errors that come from how runs differ, with their degrees of freedom."""
    return [(one.between, one.runs - 1) for one in (first, second) if one.runs > 1]
