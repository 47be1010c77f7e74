"""The spectrum of the LM head against LAPACK and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_models import VOCAB, make_model

from lmsat_plugin import measure
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.model.lm_head import is_tied


def head_of(spectrum, rows=VOCAB, seed=0) -> np.ndarray:
    """Return a matrix U diag(s) Vᵀ of this spectrum, with random orthonormal U and V."""
    generator = np.random.default_rng(seed)
    u, v = (np.linalg.qr(generator.standard_normal((n, len(spectrum))))[0] for n in (rows, len(spectrum)))
    return (u * spectrum) @ v.T


def measured_head(weight, tokenizer, dtype=torch.float64):
    """Measure a model whose head has these rows for the tokenizer's tokens, and large padding."""
    model = make_model("llama").to(dtype)
    assert not is_tied(model)
    with torch.no_grad():
        model.lm_head.weight.fill_(1e6)
        model.lm_head.weight[:VOCAB] = torch.from_numpy(weight).to(dtype)
    return measure(model, ["head"], tokenizer=tokenizer), model.lm_head.weight[:VOCAB].detach()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_spectrum_against_lapack(dtype, tokenizer):
    """A condition number of 1e5: by a Gram matrix the small singular values would be off by percents."""
    outcome, weight = measured_head(head_of(np.logspace(0, -5, 48)), tokenizer, dtype)
    expected = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(outcome.arrays["head/singular_values"], expected, rtol=1e-6)
    assert outcome.metrics["lmsat_head/condition_number"] == pytest.approx(expected[0] / expected[-1], rel=1e-6)
    if dtype == torch.float64:
        assert outcome.metrics["lmsat_head/condition_number"] == pytest.approx(1e5, rel=1e-6)


def test_flat_spectrum(tokenizer):
    outcome, _ = measured_head(head_of(np.full(48, 0.3)), tokenizer)
    expected = {
        "singular_entropy": 0,
        "singular_entropy_linear": 0,
        "effective_rank": 48,
        "stable_rank": 48,
        "condition_number": 1,
        "top_singular_ratio": 1,
    }
    assert outcome.measurements["head"].metrics == pytest.approx(expected, abs=1e-9)


def test_spectrum_with_one_dominant_value(tokenizer):
    """What is left of the rest falls with the ratio, and so does the distance to ln d and to rank 1."""
    outcome, _ = measured_head(head_of(np.array([1.0] + [1e-9] * 47)), tokenizer)
    expected = {
        "singular_entropy": math.log(48),
        "singular_entropy_linear": math.log(48),
        "effective_rank": 1,
        "stable_rank": 1,
        "condition_number": 1e9,
        "top_singular_ratio": 48,
    }
    assert outcome.measurements["head"].metrics == pytest.approx(expected, rel=2e-6)


def test_spectrum_of_two_levels(tokenizer):
    """Half the singular values twice the other half: p = s²/Σs² is 4/5 and 1/5, p = s/Σs 2/3 and 1/3, over 24."""
    outcome, _ = measured_head(head_of(np.repeat([2.0, 1.0], 24)), tokenizer)

    def kl(p):
        return math.log(48) + p * math.log(p / 24) + (1 - p) * math.log((1 - p) / 24)

    expected = {
        "singular_entropy": kl(4 / 5),
        "singular_entropy_linear": kl(2 / 3),
        "effective_rank": 48 * math.exp(-kl(2 / 3)),
        "stable_rank": 24 * 5 / 4,
        "condition_number": 2,
        "top_singular_ratio": 4 / 3,
    }
    assert outcome.measurements["head"].metrics == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("value", "message"), [(math.nan, "not finite in 2 rows, first in that of token 7"), (0, "zero")]
)
def test_broken_head_is_an_error(value, message, tokenizer):
    weight = head_of(np.ones(48)) if value else np.zeros((VOCAB, 48))
    weight[[7, 9], 3] = value
    with pytest.raises(LmsatError, match=message):
        measured_head(weight, tokenizer)
