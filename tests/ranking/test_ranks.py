"""Ranks from pairwise tests: ties share a rank, and the tests are those of the textbooks."""

from __future__ import annotations

import numpy as np
from scipy.stats import ttest_rel

from lmsat_plugin.ranking.ranks import Scored, rank_models


def test_models_that_cannot_be_told_apart_share_a_rank():
    # 0.1 / (0.04 √2) = 1.8 is no difference, 0.2 is one: 3.5 with three pairs.
    three = [Scored(value, 0.04) for value in (1.2, 1.0, 1.1)]
    found = rank_models(three, higher_is_better=False)
    assert found.ranks == [2, 1, 1]
    assert (found.tested, found.paired) == (3, 0)
    assert rank_models(three, higher_is_better=True).ranks == [1, 2, 1]
    assert rank_models([Scored(1.0)], higher_is_better=False).ranks == [1]
    assert rank_models([Scored(1.0), Scored(9.0)], higher_is_better=False).ranks == [None, None]
    assert rank_models([Scored(1.0), Scored(2.0, 0.1), Scored(9.0, 0.1)], True).ranks == [None, 2, 1]


def test_pairs_of_documents_are_tested_as_by_scipy():
    """With documents of one length the ratio's test is the paired t test; its 5 % decide the rank of two models."""
    rng = np.random.default_rng(1)
    tokens_M = np.full(12, 100)
    decided = set()
    for _ in range(60):
        nats_M = rng.normal(300, 60, 12)
        others_M = nats_M + rng.normal(6, 10, 12)
        two = [Scored(float(sums_M.sum() / 1200), 0.17, (sums_M, tokens_M)) for sums_M in (nats_M, others_M)]
        found = rank_models(two, higher_is_better=False)
        significant = ttest_rel(nats_M, others_M).pvalue <= 0.05
        better = int(nats_M.sum() > others_M.sum())
        assert found.ranks[1 - better] == 1 + significant
        assert (found.ranks[better], found.paired) == (1, 1)
        decided.add(bool(significant))
    assert decided == {True, False}
    # Other tokens are other documents: then only the standard errors count.
    other = Scored(two[1].value, 0.17, (others_M, tokens_M + 1))
    assert rank_models([two[0], other], higher_is_better=False).paired == 0


def test_equal_models_share_the_first_rank_in_95_of_100_cases():
    rng = np.random.default_rng(2)
    wrong = sum(
        set(rank_models([Scored(value, 0.1) for value in rng.normal(3, 0.1, 5)], False).ranks) != {1}
        for _ in range(600)
    )
    assert wrong / 600 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)
    assert wrong > 0
