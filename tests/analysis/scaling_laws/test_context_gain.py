"""What a longer context gains: against laws it was made with, least squares by scipy, and simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from positions import TOKENS, positions
from scipy.optimize import brentq, curve_fit

from lmsat_plugin.analysis.scaling_laws.context_gain import context_gain
from lmsat_plugin.errors import LmsatError


@pytest.mark.parametrize(("a", "b", "c"), [(4.0, 3.2, 0.47), (2.3, 5.4, 0.62), (0.0, 6.0, 0.1)])
def test_context_recovers_the_law_it_was_made_with(a, b, c):
    found = context_gain(positions(a, b, c, TOKENS), share=0.03)
    assert (found.a, found.b, found.exponent) == pytest.approx((a, b, c), rel=0.02, abs=0.03)

    def gain(t: float) -> float:
        return b * t**-c * (1 - 2**-c) / (a + b * t**-c) - 0.03

    stop = brentq(gain, 1, 1e6) if gain(1e6) < 0 else math.inf
    if stop > 256:
        assert found.stops_at is None
    else:
        assert found.stops_at == pytest.approx(stop, rel=0.02)


def test_context_is_the_weighted_least_squares_of_scipy():
    arrays = positions(2.3, 5.4, 0.62, TOKENS, np.random.default_rng(4))
    found = context_gain(arrays)
    law = [found.positions_K, found.losses_K]
    by_scipy, _ = curve_fit(lambda t, a, b, c: a + b * t**-c, *law, p0=(2, 4, 0.5), sigma=found.stderrs_K)
    assert (found.a, found.b, found.exponent) == pytest.approx(tuple(by_scipy), rel=1e-3)
    tokens = arrays["loss/by_position_tokens"]
    mean = (arrays["loss/by_position"] * tokens).sum() / tokens.sum()
    assert np.average(found.losses_K, weights=found.stderrs_K**-2.0) == pytest.approx(mean)


def test_context_intervals_hold_the_truth_and_noise_is_no_gain():
    rng, exponents, stops, false = np.random.default_rng(5), 0, 0, 0
    stop = (0.05 * 2.3 / (5.4 * (1 - 2**-0.62 - 0.05))) ** (-1 / 0.62)
    for seed in range(60):
        found = context_gain(positions(2.3, 5.4, 0.62, TOKENS, rng), 0.05, repetitions=200, seed=seed)
        exponents += found.exponent_low <= 0.62 <= found.exponent_high
        stops += found.stops_low <= stop <= found.stops_high
        flat = context_gain(positions(3.0, 0.0, 1.0, TOKENS, rng), repetitions=200, seed=seed)
        false += flat.improves
        assert flat.improves == (flat.exponent is not None)
    assert 46 <= exponents <= 60
    assert 46 <= stops <= 60
    assert false <= 15


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({}, "lack loss/by_position"),
        (positions(2, 1, 1, np.ones(8)), "do not show a power law"),
        ({**positions(2, 1, 1, np.ones(64)), "loss/by_position": np.ones(3)}, "do not belong together"),
        (positions(np.nan, 1, 1, np.ones(64)), "not finite"),
    ],
)
def test_bad_arrays(arrays, what):
    with pytest.raises(LmsatError, match=what):
        context_gain(arrays)
