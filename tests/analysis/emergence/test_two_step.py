"""The second step, a sigmoid: against a sigmoid and a break."""

from __future__ import annotations

import numpy as np
import pytest
from emergence_scores import made_scores

from lmsat_plugin.analysis.emergence.two_step import two_step


def test_a_sigmoid_is_predicted():
    losses = np.linspace(1.8, 3.2, 60)
    for sign, floor, height, perfect in ((1, 0.25, 0.75, 1.0), (-1, 0.75, -0.75, 0.0)):
        scores = floor + height / (1 + np.exp(4 * (losses - 2.2)))
        found = two_step(made_scores(losses, scores, chance=floor, perfect=perfect, sign=sign))
        assert (found.floor, found.height) == pytest.approx((floor, height), abs=0.01)
        assert (found.middle, found.steepness) == pytest.approx((2.2, 4), rel=0.01)
        assert found.absolute_error < 0.002
        assert found.n_predicted == found.to_dict()["n_foretold"] == 15
        np.testing.assert_allclose(found.score(losses), scores, atol=0.002)


def test_a_break_is_not_predicted():
    losses = np.linspace(1.8, 3.2, 60)
    scores = 0.25 + 0.9 * np.maximum(2.0 - losses, 0) + np.random.default_rng(0).normal(0, 0.003, 60)
    found = two_step(made_scores(losses, scores, chance=0.25, perfect=1.0))
    assert found is None or found.absolute_error > 0.03
    assert two_step(made_scores(losses[:9], scores[:9], chance=0.25, perfect=1.0)) is None
