"""Ranks from pairwise tests: ties share a rank, and the tests are those of the textbooks."""

from __future__ import annotations

import numpy as np
from scipy.stats import permutation_test

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


def two_models(nats_M, others_M, tokens_M, **options) -> list[Scored]:
    return [
        Scored(float(sums_M.sum() / tokens_M.sum()), 0.17, (sums_M, tokens_M), **options)
        for sums_M in (nats_M, others_M)
    ]


def test_pairs_of_documents_are_tested_as_by_scipy():
    """The test by signs of twelve documents is exact in scipy; its 5 % decide the rank of two models."""
    rng = np.random.default_rng(1)
    tokens_M = np.full(12, 100)
    decided = set()
    for _ in range(25):
        nats_M = rng.normal(300, 60, 12)
        others_M = nats_M + rng.normal(6, 10, 12)
        two = two_models(nats_M, others_M, tokens_M)
        found = rank_models(two, higher_is_better=False)
        exact = permutation_test((nats_M - others_M,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
        better = int(nats_M.sum() > others_M.sum())
        assert (found.ranks[better], found.paired) == (1, 1)
        if abs(exact - 0.05) > 0.01:
            assert found.ranks[1 - better] == 1 + (exact <= 0.05)
            decided.add(bool(exact <= 0.05))
    assert decided == {True, False}
    # Other tokens are other documents: then only the standard errors count.
    other = Scored(two[1].value, 0.17, (others_M, tokens_M + 1))
    assert rank_models([two[0], other], higher_is_better=False).paired == 0


def test_one_long_document_does_not_make_a_rank():
    """Of equal models whose one document holds half of the tokens, Student's t told four in ten apart."""
    rng = np.random.default_rng(3)
    tokens_M = np.array([2000, *[100] * 20])
    apart = 0
    for _ in range(200):
        nats_M = 3.0 * tokens_M
        two = two_models(nats_M, nats_M + 0.05 * tokens_M * rng.standard_normal(21), tokens_M)
        apart += rank_models(two, higher_is_better=False).ranks != [1, 1]
    assert apart <= 200 * 0.05 + 3 * np.sqrt(200 * 0.05 * 0.95)


def test_runs_that_differ_make_a_difference_of_documents_less_sure():
    rng = np.random.default_rng(4)
    tokens_M = np.full(200, 100)
    nats_M = rng.normal(300, 60, 200)
    others_M = nats_M + rng.normal(3, 10, 200)
    assert rank_models(two_models(nats_M, others_M, tokens_M), False).ranks == [1, 2]
    assert rank_models(two_models(nats_M, others_M, tokens_M, runs=3, between=1e-9), False).ranks == [1, 2]
    assert rank_models(two_models(nats_M, others_M, tokens_M, runs=3, between=0.02), False).ranks == [1, 1]


def test_equal_models_share_the_first_rank_in_95_of_100_cases():
    rng = np.random.default_rng(2)
    wrong = sum(
        set(rank_models([Scored(value, 0.1) for value in rng.normal(3, 0.1, 5)], False).ranks) != {1}
        for _ in range(600)
    )
    assert wrong / 600 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)
    assert wrong > 0
