"""Spectra of n-gram matrices against a dense SVD, and the same numbers by every road."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ngram_matrices import branching_only, dense, frequencies_of, phrases, twins, w_error_of

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.ngrams import spectrum
from lmsat_plugin.ngrams.counting import count_ngrams
from lmsat_plugin.ngrams.lanczos import ritz_values
from lmsat_plugin.ngrams.spectrum import ngram_spectrum


@pytest.mark.parametrize("small", [True, False])
@given(
    text=st.sampled_from([phrases, twins]),
    vocab_size=st.sampled_from([1, 2, 3, 8, 30, 90]),
    order=st.integers(1, 5),
    weighted=st.booleans(),
    seed=st.integers(0, 1000),
    length=st.sampled_from([30, 300, 3000]),
)
def test_w_error_is_that_of_a_dense_svd(small, text, vocab_size, order, weighted, seed, length):
    documents = text(seed, vocab_size, length, order)
    counts = count_ngrams(documents, order, vocab_size)
    with pytest.MonkeyPatch.context() as patch:
        if not small:
            patch.setattr(spectrum, "_DENSE_ELEMENTS", 0)
        found = ngram_spectrum(counts, weighted=weighted)
    assert found.whole
    assert found.w_error_bound == 0
    assert found.w_error[-1] == 0
    matrix = dense(documents, order, vocab_size, weighted)
    np.testing.assert_allclose(found.w_error, w_error_of(matrix), rtol=0, atol=1e-8)
    assert (found.singular_values**2).sum() == pytest.approx((matrix**2).sum(), rel=1e-12)
    assert (np.diff(found.singular_values) <= 0).all()


@pytest.mark.parametrize("small", [True, False])
def test_the_tail_of_a_hapax_after_a_frequent_context(small, monkeypatch):
    """Two columns differ by one token among 100,000, so that all but 1e-5 of W has rank 1."""
    if not small:
        monkeypatch.setattr(spectrum, "_DENSE_ELEMENTS", 0)
    documents = [np.array([0, 1] * 50_000 + [0, 2] * 50_000 + [0, 2], dtype=np.int32)]
    found = ngram_spectrum(count_ngrams(documents, 2, 3))
    expected = w_error_of(dense(documents, 2, 3))
    np.testing.assert_allclose(found.w_error, expected, rtol=0, atol=1e-9)
    other = [np.array([0, 1] * 50_000 + [0, 2], dtype=np.int32)]
    found = ngram_spectrum(count_ngrams(other, 2, 3))
    np.testing.assert_allclose(found.w_error, w_error_of(dense(other, 2, 3)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("contexts", [25, 400])
@pytest.mark.parametrize("times", [10**5, 3 * 10**6, 10**8])
def test_the_tail_of_many_hapaxes(small, contexts, times, monkeypatch):
    """Contexts with hapaxes beside tokens that follow so many times: a tail far below the rest."""
    if not small:
        monkeypatch.setattr(spectrum, "_DENSE_ELEMENTS", 0)
    rng = np.random.default_rng(0)
    frequent = rng.integers(1, 4, (contexts, 20)) * times
    counts = branching_only(np.concatenate([rng.integers(0, 2, (contexts, 10)), frequent], axis=1))
    found = ngram_spectrum(counts)
    expected = w_error_of(frequencies_of(counts))
    np.testing.assert_allclose(found.w_error, expected, rtol=0, atol=1e-9)
    assert 0 < expected[20] < 1e-4


def test_closed_forms():
    cycle = [np.tile(np.arange(10, dtype=np.int32), 50)]
    found = ngram_spectrum(count_ngrams(cycle, 3, 10))
    np.testing.assert_allclose(found.w_error, np.sqrt(1 - np.arange(1, 11) / 10), atol=1e-15)
    np.testing.assert_allclose(found.singular_values, 1)
    assert (found.dimension(0.5), found.dimension(0.0), found.dimension(2.0)) == (8, 10, 1)
    frequencies = ngram_spectrum(count_ngrams([np.array([0, 0, 0, 1], dtype=np.int32)], 1, 3))
    np.testing.assert_allclose(frequencies.singular_values, [math.hypot(0.75, 0.25), 0, 0], atol=1e-15)
    np.testing.assert_allclose(frequencies.w_error, 0, atol=1e-15)


@pytest.mark.parametrize("decay", [0.0, 1.0, 3.0])
def test_block_lanczos_to_the_end(decay):
    """A basis that grows far beyond what is needed finds each eigenvalue once, to rounding."""
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.standard_normal((800, 800))).Q
    eigenvalues = (1 + rng.random(800)) * np.arange(1, 801.0) ** -decay
    matrix = (vectors * eigenvalues) @ vectors.T
    *_, (values, residuals) = ritz_values(lambda block: matrix @ block, 800, 50)
    np.testing.assert_allclose(values, np.sort(eigenvalues)[::-1][:50], rtol=0, atol=1e-12)
    assert residuals.max() < 1e-7


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("order", [2, 3])
def test_the_greatest_of_many(order, weighted, monkeypatch):
    monkeypatch.setattr(spectrum, "_WHOLE", 0)
    rng = np.random.default_rng(order)
    documents = [np.minimum(rng.zipf(1.2, 400), 900).astype(np.int32) - 1 for _ in range(100)]
    counts = count_ngrams(documents, order, 900)
    expected = w_error_of(dense(documents, order, 900, weighted))[:40]
    found = ngram_spectrum(counts, weighted=weighted, dimensions=40)
    assert not found.whole
    assert len(found.w_error) == len(found.singular_values) == 40
    np.testing.assert_allclose(found.w_error, expected, rtol=0, atol=5e-5)
    assert 0 < found.w_error_bound <= 5e-5
    # Where it stops early, the bound says how far off it is at most.
    monkeypatch.setattr(spectrum, "_BOUND", 1.0)
    rough = ngram_spectrum(counts, weighted=weighted, dimensions=40)
    assert rough.w_error_bound > found.w_error_bound
    above = rough.w_error - expected
    assert above.min() > -1e-12
    assert 0 < above.max() < rough.w_error_bound
    # Whoever wants all, or nearly, gets all.
    for options in ({"exact": True}, {"dimensions": 800}):
        assert ngram_spectrum(counts, **options).whole


def test_the_greatest_where_many_are_equal(monkeypatch):
    """Three hundred pairs of tokens with the same row each: one singular value, of rank 300."""
    monkeypatch.setattr(spectrum, "_WHOLE", 0)
    pairs = [np.array([i, 300 + i, i, 600 + i], dtype=np.int32) for i in range(300)]
    found = ngram_spectrum(count_ngrams(pairs, 2, 900), dimensions=64)
    np.testing.assert_allclose(found.w_error, w_error_of(dense(pairs, 2, 900))[:64], rtol=0, atol=5e-5)


def test_the_greatest_of_a_low_rank(monkeypatch):
    """Four hundred contexts with 20 distributions among them: the basis is soon exhausted."""
    monkeypatch.setattr(spectrum, "_WHOLE", 0)
    distributions = np.random.default_rng(0).integers(0, 4, (20, 500))
    counts = branching_only(np.tile(distributions, (20, 1)))
    found = ngram_spectrum(counts, dimensions=40)
    assert not found.whole
    expected = w_error_of(frequencies_of(counts))[:40]
    np.testing.assert_allclose(found.w_error[:19], expected[:19], rtol=0, atol=1e-12)
    # What is left is rounding of the squares.
    np.testing.assert_allclose(found.w_error[19:], 0, atol=1e-7)
    np.testing.assert_allclose(found.singular_values[20:], 0, atol=1e-6)


def test_what_does_not_fit_in_memory(monkeypatch):
    documents = phrases(0, 200, 20_000, disorder=0.5)
    counts = count_ngrams(documents, 2, 200)
    expected = ngram_spectrum(counts).w_error
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(LmsatError, match=r"all 200 singular values need 0 GB .* at most 50 dimensions"):
        ngram_spectrum(counts, exact=True)
    found = ngram_spectrum(counts, dimensions=50)
    assert not found.whole
    np.testing.assert_allclose(found.w_error, expected[:50], rtol=0, atol=5e-5)
