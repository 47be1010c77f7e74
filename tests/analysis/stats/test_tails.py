"""p-values beyond what simulations resolve, against known tails and against far larger simulations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from lmsat_plugin.analysis.stats.tails import tail_p_values


def test_with_ten_as_large_p_is_their_share():
    simulated = np.arange(500.0)
    assert tail_p_values(np.array([0.0, 250.0, 489.5]), simulated) == pytest.approx([1, 251 / 501, 11 / 501])
    # Beyond all, it goes on falling, and is never 0.
    far = tail_p_values(np.array([495.0, 550.0, 600.0, 1e9]), simulated)
    assert (np.diff(far) < 0).all()
    assert far[-1] == 1e-6
    assert tail_p_values(np.array([2.0]), np.ones(500)) == 1 / 501


def test_of_exponential_tails_it_is_right_and_of_lighter_ones_cautious():
    rng = np.random.default_rng(0)
    for p in (1e-3, 1e-4):
        found = [tail_p_values(np.array([-np.log(p)]), np.sort(rng.exponential(size=2000)))[0] for _ in range(50)]
        assert np.exp(np.mean(np.log(found))) == pytest.approx(p, rel=0.25)
        largest = np.sort(rng.standard_normal((50, 2000, 8)).max(2))
        seen = norm.isf(1 - (1 - p) ** (1 / 8))
        found = [tail_p_values(np.array([seen]), one)[0] for one in largest]
        assert p < np.exp(np.mean(np.log(found))) < 10 * p
