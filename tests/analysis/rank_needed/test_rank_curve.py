"""Losses by head rank against plain loops and corpora drawn again; the rank needed against known crossings."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rank_results import FULL, RANKS, arrays_of, curve_of

from lmsat_plugin.analysis.rank_needed import CURVES, RankCurve, by_rank, rank_needed
from lmsat_plugin.errors import LmsatError


def test_losses_and_gaps_in_a_loop():
    arrays = arrays_of()
    curve = RankCurve.from_arrays(arrays, "weighted")
    nats, full = arrays["rank_head/weighted_truncated_by_document"], arrays["rank_head/full_by_document"]
    tokens = arrays["rank_head/by_document_tokens"]
    assert curve.full_loss == pytest.approx(math.fsum(full) / sum(tokens))
    for k in range(len(RANKS)):
        assert curve.losses_K[k] == pytest.approx(math.fsum(nats[k]) / sum(tokens))
        gap = math.fsum(nats[k] - full) / sum(tokens)
        assert curve.gaps_K[k] == pytest.approx(gap)
        squares = [(a - b - gap * n) ** 2 for a, b, n in zip(nats[k], full, tokens, strict=True)]
        stderr = math.sqrt(len(tokens) / (len(tokens) - 1) * math.fsum(squares)) / sum(tokens)
        assert curve.gap_stderrs_K[k] == pytest.approx(stderr)


def test_standard_error_is_the_spread_over_corpora():
    gaps, stderrs = [], []
    for seed in range(400):
        curve = RankCurve.from_arrays(arrays_of(seed, documents=40))
        gaps.append(curve.gaps_K)
        stderrs.append(curve.gap_stderrs_K)
    np.testing.assert_allclose(np.mean(stderrs, axis=0), np.std(gaps, axis=0), rtol=0.15)
    # Far below that of the loss itself: documents are hard for both heads alike.
    assert np.mean(stderrs) < 0.1 * 0.3 / math.sqrt(40)


def test_from_arrays_chooses_and_sorts():
    arrays = arrays_of()
    assert RankCurve.from_arrays(arrays).name == "trained"
    untrained = arrays_of(trained=False)
    assert RankCurve.from_arrays(untrained).name == "weighted"
    alone = {key: value for key, value in untrained.items() if "weighted" not in key}
    assert RankCurve.from_arrays(alone).name == "truncated"
    for name in CURVES:
        expected = RankCurve.from_arrays(arrays, name)
        shuffled = dict(arrays)
        for key, value in arrays.items():
            if len(value) == len(RANKS):
                shuffled[key] = value[[2, 0, 3, 1]]
        found = RankCurve.from_arrays(shuffled, name)
        assert found.ranks_K.tolist() == RANKS.tolist()
        np.testing.assert_array_equal(found.losses_K, expected.losses_K)
        np.testing.assert_array_equal(found.bound_K, expected.bound_K)
    bounds = {name: RankCurve.from_arrays(arrays, name).bound_K.tolist() for name in CURVES}
    assert bounds["truncated"] == [12.5, 6.25, 3.125, 1.5625]
    assert bounds["weighted"] == [24, 11.5, 5.25, 2.125]
    assert bounds["trained"] == bounds["truncated"]


def test_heads_that_diverged_are_left_out():
    arrays = arrays_of()
    arrays["rank_head/trained_by_document"][1, 3] = np.nan
    arrays["rank_head/trained_by_document"][2] = np.inf
    found, whole = RankCurve.from_arrays(arrays), RankCurve.from_arrays(arrays_of())
    assert found.ranks_K.tolist() == [4, 32]
    np.testing.assert_array_equal(found.gaps_K, whole.gaps_K[[0, 3]])
    np.testing.assert_array_equal(found.bound_K, whole.bound_K[[0, 3]])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"trained_by_document": None}, "no heads were trained: .*train_tokens=N"),
        ({"ranks": None}, "lack rank_head/ranks: run"),
        ({"ranks": np.array([4, 8])}, r"do not belong together \(ranks \[4, 8\], losses of shape \(4, 6\), 6"),
        ({"ranks": np.array([0, 4, 8, 16])}, "do not belong together"),
        ({"by_document_tokens": np.ones(5)}, "do not belong together"),
        ({"by_document_tokens": np.zeros(6)}, "do not belong together"),
        ({"ranks": np.array(4)}, "do not belong together"),
        ({"truncated_bound": np.ones(3)}, "do not belong together"),
        ({"full_by_document": np.full(6, np.nan)}, "not finite"),
        ({"trained_by_document": np.full((4, 6), np.inf)}, "not finite"),
    ],
)
def test_bad_arrays_are_one_sentence(change, sentence):
    arrays = arrays_of() | {f"rank_head/{key}": value for key, value in change.items()}
    with pytest.raises(LmsatError, match=sentence):
        RankCurve.from_arrays({key: value for key, value in arrays.items() if value is not None}, "trained")


def test_unknown_curves_are_refused():
    with pytest.raises(LmsatError, match=r"'best' is not a curve .*trained, weighted, truncated"):
        RankCurve.from_arrays(arrays_of(), "best")


def test_by_rank():
    table = by_rank(curve_of([4, 3.5, 3.1, 3.0]), np.full(16, 2.0))
    assert list(table.columns) == ["rank", "w_error", "loss", "gap", "gap_stderr", "bound"]
    np.testing.assert_allclose(table.w_error, [math.sqrt(0.75), math.sqrt(0.5), 0, 0])
    np.testing.assert_allclose(table.loss, [4, 3.5, 3.1, 3.0])
    np.testing.assert_allclose(table.gap, [1, 0.5, 0.1, 0], atol=1e-12)
    np.testing.assert_allclose(table.gap_stderr, 0, atol=1e-12)
    assert table.bound.isna().all()


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
    with pytest.raises(LmsatError, match=f"{next(iter(values))}=.* is out of range"):
        rank_needed(curve_of([4.0, 3.5, 3.0, 3.0]), **values)
