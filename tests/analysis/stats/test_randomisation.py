"""Tests by signs and intervals by subsets, against all signs and subsets, McNemar's test, and simulations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp

from lmsat_plugin.analysis.stats.differences import smallest_detectable
from lmsat_plugin.analysis.stats.randomisation import detectable, sign_test, sign_tests, subset_interval


def test_a_sign_test_is_that_of_all_signs():
    differences = np.random.default_rng(0).normal(0.4, 1, 11)
    signs = np.array(list(itertools.product([-1, 1], repeat=11)))
    exact = (np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9).mean()
    assert sign_test(differences) == pytest.approx(exact, abs=0.01)


def test_of_right_and_wrong_answers_it_is_mcnemars():
    differences = np.repeat([1.0, -1.0, 0.0], [14, 5, 400])
    assert sign_test(differences) == pytest.approx(binomtest(14, 19).pvalue, abs=0.01)
    # However large the sample, three answers that differ show nothing.
    assert sign_test(np.repeat([1.0, 0.0], [3, 1000])) == pytest.approx(0.25, abs=0.02)


def test_of_many_alike_units_it_is_students():
    differences = np.random.default_rng(1).normal(0.1, 1, 400)
    assert sign_test(differences) == pytest.approx(ttest_1samp(differences, 0).pvalue, abs=0.01)
    low, high = subset_interval(differences, np.ones(400))
    assert (low, high) == pytest.approx(ttest_1samp(differences, 0).confidence_interval(0.95), abs=0.01)


def test_what_no_draw_reaches_has_a_bound():
    assert sign_test(np.ones(400)) < 1e-80
    assert sign_test(np.zeros(400)) == 1


def test_tests_of_all_pairs_are_those_of_each():
    rng = np.random.default_rng(3)
    sums = 1e4 + rng.normal(np.array([0.0, 0.3, 0.6, 8.0])[:, None], 1, (4, 30))
    found = sign_tests(np.vstack([sums, sums[:1]]))
    assert np.array_equal(found, found.T)
    assert found[0, 4] == found[0, 0] == 1
    for a, b in itertools.combinations(range(4), 2):
        one = sign_test(sums[a] - sums[b])
        assert found[a, b] == pytest.approx(one, abs=0.01, rel=0.01 if one < 1e-4 else None)
    assert found[0, 3] < 1e-5


def test_the_interval_holds_what_the_test_does_not_refuse():
    rng = np.random.default_rng(2)
    counts = rng.integers(1, 50, 15).astype(float)
    differences = 0.3 * counts + counts * rng.normal(size=15)
    low, high = subset_interval(differences, counts)
    assert sign_test(differences - low * counts) == pytest.approx(0.05, abs=0.01)
    assert sign_test(differences - high * counts) == pytest.approx(0.05, abs=0.01)
    shares = np.array([sum(s) for s in itertools.product(*zip(np.zeros(15), counts, strict=True))])[1:]
    sums = np.array([sum(s) for s in itertools.product(*zip(np.zeros(15), differences, strict=True))])[1:]
    assert (low, high) == pytest.approx(np.quantile(sums / shares, [0.025, 0.975]), abs=0.05)


def test_what_can_be_found_of_many_units_is_that_of_their_standard_error():
    differences = np.random.default_rng(3).normal(0, 1, 500)
    expected = smallest_detectable(differences.std(ddof=1) / np.sqrt(500))
    for around_zero in (True, False):
        assert detectable(differences, np.ones(500), around_zero=around_zero) == pytest.approx(expected, rel=0.05)
    # A difference that is there does not make others harder to find.
    shifted = detectable(differences + 3, np.ones(500), around_zero=False)
    assert shifted == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("unequal", [False, True])
def test_false_alarms_and_power(unequal):
    """Where one of 22 documents holds half of the tokens, Student's t of the ratio calls a third of them different."""
    rng = np.random.default_rng(4)
    counts = np.full(60, 100.0)
    if unequal:
        counts = np.array([28_000.0, 4000, 3000, *rng.integers(300, 1500, 19)])
    drift = counts * rng.normal(0, 0.05, len(counts))
    said = found = 0
    for _ in range(300):
        differences = drift * rng.choice([-1, 1], len(counts))
        p = sign_test(differences, 999)
        said += p <= 0.05
        size = detectable(differences, counts, around_zero=p > 0.05)
        found += sign_test(differences + size * counts, 999) <= 0.05
    assert 0.03 <= said / 300 <= 0.07
    assert 0.75 <= found / 300 <= 0.85
