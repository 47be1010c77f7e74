"""Singular values by blocks of rows against the whole matrix and LAPACK."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmsat_plugin.model.spectrum import singular_values, triangle


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 9), st.integers(0, 9))
def test_triangle_by_blocks_has_the_matrix_gram(rows, width, block, seed):
    matrix = torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, width)))
    r = triangle(matrix, block)
    assert r.shape == (min(rows, width), width)
    np.testing.assert_allclose(r.T @ r, matrix.T @ matrix, atol=1e-12)


def test_spectrum_of_a_head_of_many_blocks():
    matrix = np.random.default_rng(0).standard_normal((20_000, 6)) * np.logspace(0, -4, 6)
    ours, expected = singular_values(torch.from_numpy(matrix)), np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
