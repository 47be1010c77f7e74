"""Differences: Holm's correction, standard errors over clusters, and the smallest difference that is found."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import norm, sem

from lmsat_plugin.analysis.stats.differences import clustered_stderr, holm, smallest_detectable


def test_holm_is_the_closure_of_bonferroni():
    rng = np.random.default_rng(0)
    for _ in range(50):
        p_values_Q = rng.choice([0.001, 0.009, 0.011, 0.013, 0.02, 0.03, 0.049, 0.2], 5)
        subsets = [s for n in range(1, 6) for s in itertools.combinations(range(5), n)]
        rejected = {s for s in subsets if p_values_Q[list(s)].min() <= 0.05 / len(s)}
        closed = [all(s in rejected for s in subsets if i in s) for i in range(5)]
        assert (holm(p_values_Q) <= 0.05).tolist() == closed


def test_holm_against_its_definition():
    rng = np.random.default_rng(1)
    p_values = rng.uniform(0, 0.2, 9)
    order = np.argsort(p_values)
    stepwise, largest = {}, 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (9 - rank) * p_values[index]))
        stepwise[index] = largest
    assert holm(p_values) == pytest.approx([stepwise[index] for index in range(9)])


def test_standard_error_without_clusters_is_the_usual_one():
    values_M = np.random.default_rng(2).normal(size=40)
    assert clustered_stderr(values_M) == pytest.approx(sem(values_M))
    assert clustered_stderr(values_M, np.arange(40)) == pytest.approx(sem(values_M))
    assert np.isnan(clustered_stderr(values_M, np.zeros(40)))


def test_standard_error_over_clusters_of_one_size_is_that_of_their_means():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(12, 1)) + rng.normal(size=(12, 5))
    clusters_M = np.repeat(rng.permutation(12), 5)
    assert clustered_stderr(values.ravel(), clusters_M) == pytest.approx(sem(values.mean(1)))


def test_the_smallest_detectable_difference_is_found_at_its_power():
    stderr = 0.3
    difference = smallest_detectable(stderr)
    assert norm.sf(norm.isf(0.025) - difference / stderr) == pytest.approx(0.8)
    found = np.abs(np.random.default_rng(4).normal(difference, stderr, 20_000)) > norm.isf(0.025) * stderr
    assert found.mean() == pytest.approx(0.8, abs=0.01)
