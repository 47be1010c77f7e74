"""The W-error against spectra whose sums are known, and the corpus dimension beside a width."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lmsat_plugin.analysis.rank_needed.dimension import capacity, w_error
from lmsat_plugin.errors import LmsatError


def test_w_error_of_a_flat_spectrum():
    expected = [math.sqrt(1 - d / 10) for d in range(1, 11)]
    np.testing.assert_allclose(w_error(np.full(10, 1e-200)), expected, rtol=1e-14)


def test_w_error_of_a_power_law():
    """s = 2⁻ⁱ down to 1e-120: the tail is a geometric sum, and exact where 1 − (the head's sum) would be 0."""
    n = 400
    s = 2.0 ** -np.arange(n)
    expected = [2.0**-d * math.sqrt((1 - 4.0 ** (d - n)) / (1 - 4.0**-n)) for d in range(1, n + 1)]
    np.testing.assert_allclose(w_error(s[::-1]), expected, rtol=1e-13)


def test_w_error_is_the_error_of_the_truncated_matrix():
    matrix = np.random.default_rng(0).standard_normal((30, 8)) * np.arange(1, 9)
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    errors = [np.linalg.norm(matrix - (u[:, :d] * s[:d]) @ vt[:d]) for d in range(1, 9)]
    np.testing.assert_allclose(w_error(s), np.array(errors) / np.linalg.norm(matrix), atol=1e-14)


@pytest.mark.parametrize("s", [[0.0, 0.0], [1.0, math.nan], []])
def test_w_error_of_nothing_is_refused(s):
    with pytest.raises(LmsatError, match="no W-error"):
        w_error(np.array(s))


def test_capacity():
    errors = np.sqrt(1 - np.arange(1, 101) / 100)
    found = capacity(errors, 64)
    assert (found.dimension, found.ratio) == (100, 100 / 64)
    assert found.w_error_at_hidden_size == pytest.approx(0.6)
    assert capacity(errors, 50, negligible=0.5).dimension == 75
    # Known in part: nothing is said of what lies beyond.
    found = capacity(errors[:80], 90)
    assert (found.dimension, found.w_error_at_hidden_size, found.ratio) == (None, None, None)
    assert capacity(errors, 200).w_error_at_hidden_size == 0
    assert capacity(errors, 200).ratio == 0.5
