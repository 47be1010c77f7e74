"""The settings of lmsat_rank_head, and its default learning rates."""

from __future__ import annotations

import pytest

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.probes.rank_head.settings import RankHeadSettings, default_rate
from lmsat_plugin.settings import parse_settings


@pytest.mark.parametrize(
    ("rank", "width", "rate"),
    [(32, 1024, 2e-2), (128, 2048, 1e-2), (512, 1024, 7e-3), (2048, 2048, 2e-3), (4096, 4096, 1e-3), (8, 64, 2e-2)],
)
def test_rates_of_normal_heads_are_the_papers(rank, width, rate):
    """Fig. 9 of Godey et al. 2024, as digitised."""
    assert default_rate("normal", rank, width, 1024) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ranks": [0]}, "ranks=0 is not right"),
        ({"ranks": [8, 8]}, "rank 8 is given twice"),
        ({"ranks": ["x"]}, "ranks=x is not right"),
        ({"ranks": [1.5]}, "ranks=1.5 is not right"),
        ({"ranks": []}, "ranks=.* is not right"),
        ({"learning_rate": -1}, "learning_rate=-1 is not right"),
        ({"init": "zero"}, "init=zero is not right"),
        ({"train_tokens": 0}, "train_tokens=0 is not right"),
    ],
)
def test_settings_that_are_none(values, message):
    with pytest.raises(LmsatError, match=message):
        parse_settings(RankHeadSettings, values)


def test_one_rank_may_stand_alone():
    assert parse_settings(RankHeadSettings, {"ranks": 8}).ranks == (8,)
