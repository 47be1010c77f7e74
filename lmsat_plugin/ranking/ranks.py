"""Ranks from pairwise tests: models that do not differ significantly share a rank.

Shapes: K models, M documents, Q pairs.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.analysis.stats.ratio import ratio_stderr

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SIGNIFICANT = 0.05
_METHOD = (
    "A rank is 1 + the number of models that are significantly better: two-sided tests of all {tested} pairs "
    "({paired} of them document by document, the others by standard errors), corrected by Holm at "
    f"{SIGNIFICANT:g}. They know the sample of documents or questions, not how much another training run would differ."
)


@dataclass(frozen=True, eq=False)
class Scored:
    """What a model is ranked by."""

    value: float
    stderr: float = np.nan
    """NaN if unknown."""
    documents: tuple[np.ndarray, np.ndarray] | None = None
    """Sums and tokens of the M documents, whose ratio of totals is the value; None if unknown."""


@dataclass(frozen=True)
class Ranks:
    """The ranks of K models; ties share a rank."""

    ranks: list[int | None]
    """None for a model that could be tested against no other."""
    paired: int
    """How many pairs were compared document by document."""
    tested: int
    """How many pairs were compared at all."""

    @property
    def method(self) -> str:
        """How the ranks were found, in words."""
        return _METHOD.format(tested=self.tested, paired=self.paired)


def rank_models(scored: Sequence[Scored], higher_is_better: bool) -> Ranks:
    """Return 1 + the number of models that are significantly better than each.

    Two models that read the same documents in the same tokens are compared by the differences of their documents'
    sums, with Student's t of M − 1 degrees of freedom; others by z = Δ / √(σ₁² + σ₂²) of their standard errors, which
    is too cautious where both read the same. Holm (1979) holds the chance of any false order at 5 %.
    """
    sign = 1 if higher_is_better else -1
    pairs_Q, p_values_Q, paired = [], [], 0
    for a, b in itertools.combinations(range(len(scored)), 2):
        p_value = _paired(scored[a], scored[b])
        paired += p_value is not None
        if p_value is None:
            p_value = _unpaired(scored[a], scored[b])
        if p_value is not None:
            better = sign * (scored[a].value - scored[b].value) > 0
            pairs_Q.append((a, b) if better else (b, a))
            p_values_Q.append(p_value)
    found: list[int | None] = [1 if len(scored) == 1 else None] * len(scored)
    for pair in pairs_Q:
        for index in pair:
            found[index] = 1
    for (_, worse), significant in zip(pairs_Q, holm(np.array(p_values_Q)), strict=True):
        found[worse] = (found[worse] or 1) + bool(significant)
    return Ranks(ranks=found, paired=paired, tested=len(pairs_Q))


def holm(p_values_Q: np.ndarray) -> np.ndarray:
    """Return which hypotheses are rejected at 5 % for all together (Holm 1979): p₍ₖ₎ ≤ 0.05 / (Q − k + 1) up to k."""
    rejected_Q = np.zeros(len(p_values_Q), bool)
    order_Q = np.argsort(p_values_Q, kind="stable")
    enough_Q = p_values_Q[order_Q] <= SIGNIFICANT / np.arange(len(p_values_Q), 0, -1)
    rejected_Q[order_Q] = np.logical_and.accumulate(enough_Q)
    return rejected_Q


def _paired(one: Scored, other: Scored) -> float | None:
    """Return the p-value of the difference of two ratios on the same documents; None if they are not the same."""
    from scipy.stats import t

    if one.documents is None or other.documents is None:
        return None
    (sums_M, tokens_M), (others_M, other_tokens_M) = one.documents, other.documents
    documents = len(tokens_M)
    if documents < 2 or not np.array_equal(tokens_M, other_tokens_M):
        return None
    differences_M = sums_M - others_M
    gap = differences_M.sum() / tokens_M.sum()
    return _two_sided(gap, float(ratio_stderr(differences_M, tokens_M)), lambda z: t.sf(z, documents - 1))


def _unpaired(one: Scored, other: Scored) -> float | None:
    from scipy.stats import norm

    stderr = float(np.hypot(one.stderr, other.stderr))
    return _two_sided(one.value - other.value, stderr, norm.sf) if np.isfinite(stderr) else None


def _two_sided(gap: float, stderr: float, tail: Callable[[float], float]) -> float:
    if gap == 0:
        return 1.0
    return 2 * float(tail(abs(gap) / stderr)) if stderr > 0 else 0.0
