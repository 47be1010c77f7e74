"""Losses by head rank out of arrays: against plain loops, and corpora drawn again."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rank_results import RANKS, arrays_of, curve_of

from lmsat_plugin.analysis.rank_needed import CURVES, RankCurve, by_rank
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
