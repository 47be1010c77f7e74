"""Ranks from pairwise tests: models that do not differ significantly share a rank.

Shapes: K models, M documents, Q pairs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lmsat_plugin.analysis.stats.ratio import ratio_stderr

SIGNIFICANT = 0.05
_METHOD = (
    "A rank is 1 + the number of models that are significantly better, by two-sided tests of all {tested} pairs "
    "({paired} of them document by document, the others by standard errors), corrected by Holm at "
    f"{SIGNIFICANT:g}. The tests allow for the sample of documents or questions, not for how training runs differ."
)


@dataclass(frozen=True, eq=False)
class Scored:
    """The value that a model is ranked by, and how sure it is."""

    value: float
    stderr: float = np.nan
    """NaN if unknown."""
    documents: tuple[np.ndarray, np.ndarray] | None = None
    """Sums and tokens of the M documents; the ratio of their totals is the value. None if unknown."""


@dataclass(frozen=True)
class Ranks:
    """The ranks of K models; ties share a rank."""

    ranks: list[int | None]
    """None for a model that could be tested against no other."""
    paired: int
    """The number of pairs that were compared document by document."""
    tested: int
    """The number of pairs that were compared."""

    @property
    def method(self) -> str:
        """How the ranks were found."""
        return _METHOD.format(tested=self.tested, paired=self.paired)


def rank_models(scored: Sequence[Scored], higher_is_better: bool) -> Ranks:
    """Return each model's rank, 1 + the number of models that are significantly better.

    Two models that read the same documents in the same tokens are compared by the differences of their documents'
    sums, with Student's t of M − 1 degrees of freedom. Other pairs are compared by z = Δ / √(σ₁² + σ₂²) of their
    standard errors, which is too cautious where both read the same text. Holm's correction (1979) keeps the
    probability of any false order at 5 %.
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
    ranks: list[int | None] = [1 if len(scored) == 1 else None] * len(scored)
    for pair in pairs_Q:
        for index in pair:
            ranks[index] = 1
    for (_, worse), significant in zip(pairs_Q, holm(np.array(p_values_Q)), strict=True):
        ranks[worse] = (ranks[worse] or 1) + bool(significant)
    return Ranks(ranks=ranks, paired=paired, tested=len(pairs_Q))


def holm(p_values_Q: np.ndarray) -> np.ndarray:
    """Return which of Q hypotheses are rejected at 5 % together: p₍ₖ₎ ≤ 0.05 / (Q − k + 1) up to k (Holm 1979)."""
    rejected_Q = np.zeros(len(p_values_Q), bool)
    order_Q = np.argsort(p_values_Q, kind="stable")
    enough_Q = p_values_Q[order_Q] <= SIGNIFICANT / np.arange(len(p_values_Q), 0, -1)
    rejected_Q[order_Q] = np.logical_and.accumulate(enough_Q)
    return rejected_Q


def _paired(first: Scored, second: Scored) -> float | None:
    """Return the p-value of the difference of two ratios on the same documents; None for different documents."""
    from scipy.stats import t

    if first.documents is None or second.documents is None:
        return None
    (sums_M, tokens_M), (others_M, other_tokens_M) = first.documents, second.documents
    documents = len(tokens_M)
    if documents < 2 or not np.array_equal(tokens_M, other_tokens_M):
        return None
    differences_M = sums_M - others_M
    gap = differences_M.sum() / tokens_M.sum()
    return _two_sided(gap, float(ratio_stderr(differences_M, tokens_M)), lambda z: t.sf(z, documents - 1))


def _unpaired(first: Scored, second: Scored) -> float | None:
    """Return the p-value of the difference by standard errors; None where one is unknown."""
    from scipy.stats import norm

    stderr = float(np.hypot(first.stderr, second.stderr))
    return _two_sided(first.value - second.value, stderr, norm.sf) if np.isfinite(stderr) else None


def _two_sided(gap: float, stderr: float, tail: Callable[[float], float]) -> float:
    if gap == 0:
        return 1.0
    return 2 * float(tail(abs(gap) / stderr)) if stderr > 0 else 0.0
