"""The rank needed against curves whose crossing is known, and its interval against simulated corpora."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rank_results import FULL, RANKS, arrays_of, curve_of

from lmsat_plugin.analysis.rank_needed import RankCurve, rank_needed
from lmsat_plugin.errors import LmsatError


def test_pythia_1b_of_the_paper():
    """Fig. 8, digitised: the loss is within 1 % of the full one between ranks 1024 and 1536."""
    ranks = np.array([32, 64, 128, 256, 512, 1024, 1536, 2048])
    curve = curve_of([3.83, 3.395, 3.007, 2.785, 2.65, 2.538, 2.491, 2.474], full=2.474, ranks=ranks)
    found = rank_needed(curve)
    share = (2.538 - 1.01 * 2.474) / (2.538 - 2.491)
    assert found.rank == pytest.approx(1024 * 1.5**share)


@pytest.mark.parametrize("within", [0.02, 0.1, 0.3])
def test_rank_needed_of_a_curve_linear_in_the_logarithm(within):
    """L(r) = 4.2 − 0.3 log2(r / 4) until the full loss of 3.3: every crossing is exact, also between ranks."""
    curve = curve_of([4.2, 3.9, 3.6, 3.3], full=3.3)
    found = rank_needed(curve, within)
    expected = 32 * 2 ** -(within * 3.3 / 0.3)
    if expected > 4:
        assert found.rank == pytest.approx(expected, rel=1e-12)
        assert found.reached
        assert not found.at_most
    else:
        assert (found.rank, found.at_most) == (4, True)
    # Documents that are all alike leave nothing to chance.
    assert found.low == pytest.approx(found.rank, rel=1e-9)
    assert found.high == pytest.approx(found.rank, rel=1e-9)


def test_rank_needed_of_a_curve_that_rises_again():
    """A higher rank that was trained worse does not make the lower one insufficient."""
    found = rank_needed(curve_of([4.0, 3.2, 3.4, 3.0]), within=0.1)
    assert found.rank == pytest.approx(4 * 2 ** (0.7 / 0.8))
    # Between 8 and 32 the least loss stays at 3.2 up to 16, then falls to 3.
    found = rank_needed(curve_of([4.0, 3.2, 3.4, 3.0]), within=0.05)
    assert found.rank == pytest.approx(16 * 2 ** (0.05 / 0.2))


def test_rank_needed_that_is_not_reached():
    found = rank_needed(curve_of([4.0, 3.5, 3.2, 3.1]), within=0.01)
    assert (found.rank, found.low, found.high) == (None, None, None)
    assert not found.reached
    assert not found.at_most


@pytest.mark.filterwarnings("error")
def test_an_interval_that_reaches_beyond_the_highest_rank():
    """One document of two needs more rank than was measured: samples of it alone do not get there."""
    tokens = np.array([100, 100])
    nats = np.array([[4.0, 4.0], [3.5, 3.5], [3.0, 3.3], [3.0, 3.05]]) * 100
    found = rank_needed(
        RankCurve(name="trained", ranks_K=RANKS, nats_KM=nats, tokens_M=tokens, full_nats_M=np.full(2, 300.0))
    )
    assert 16 < found.rank < 32
    assert found.low == pytest.approx(8 * 2 ** (0.47 / 0.5))
    assert found.high is None


def test_one_document_has_no_interval():
    found = rank_needed(curve_of([4.0, 3.5, 3.0, 3.0], tokens=np.array([1000])))
    assert 8 < found.rank < 16
    assert (found.low, found.high) == (None, None)
    assert np.isnan(curve_of([4.0, 3.5, 3.0, 3.0], tokens=np.array([1000])).gap_stderrs_K).all()


def test_interval_does_not_depend_on_how_many_samples_fit(monkeypatch):
    curve = RankCurve.from_arrays(arrays_of(documents=20))
    whole = rank_needed(curve, 0.05)
    monkeypatch.setattr("lmsat_plugin.analysis.stats.bootstrap._COUNTS_AT_ONCE", 20 * 7)
    assert rank_needed(curve, 0.05) == whole
    assert rank_needed(curve, 0.05, seed=1) != whole
    assert whole.low < whole.rank < whole.high
    wider = rank_needed(curve, 0.05, confidence=0.99)
    assert wider.low < whole.low < whole.high < wider.high


def test_interval_covers_the_truth_as_often_as_it_says():
    """Corpora of 60 documents; the losses are expectations of ratios that are known."""
    ranks, truth = np.array([8, 16, 32, 64, 128]), np.array([0.8, 0.4, 0.2, 0.1, 0.05])
    rng = np.random.default_rng(0)
    target = 0.06 * FULL
    expected = 32 * 2 ** ((0.2 - target) / 0.1)
    covered = []
    for _ in range(300):
        tokens = rng.integers(50, 600, size=60)
        full = tokens * (FULL + rng.normal(0, 0.5, size=60))
        # What a document loses is its own, at all ranks alike, and some more by rank.
        gaps = truth[:, None] * rng.lognormal(-0.18, 0.6, size=60) + rng.normal(0, 0.01, size=(5, 60))
        curve = RankCurve(
            name="trained", ranks_K=ranks, nats_KM=full + gaps * tokens, tokens_M=tokens, full_nats_M=full
        )
        found = rank_needed(curve, 0.06, seed=1)
        covered.append(found.low <= expected <= found.high)
    assert 0.82 < np.mean(covered) < 0.95


@pytest.mark.parametrize("values", [{"within": -0.01}, {"within": math.nan}, {"confidence": 1.0}])
def test_questions_without_an_answer_are_refused(values):
    with pytest.raises(LmsatError, match=r"within=.* confidence="):
        rank_needed(curve_of([4.0, 3.5, 3.0, 3.0]), **values)
