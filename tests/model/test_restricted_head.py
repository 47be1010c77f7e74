"""Heads of lower rank in the place of a model's own: truncated ones, and files that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evaluation import rolling_requests
from lm_eval.models.huggingface import HFLM
from tiny_models import WINDOW, make_model

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.model.head_files import save_restricted_head
from lmsat_plugin.model.lm_head import is_tied
from lmsat_plugin.model.restricted_head import truncate_head


def truncated(weight: torch.Tensor, rank: int) -> torch.Tensor:
    u, s, vt = np.linalg.svd(weight.detach().double().numpy(), full_matrices=False)
    return torch.from_numpy((u[:, :rank] * s[:rank]) @ vt[:rank]).to(weight.dtype)


def test_truncated_head_is_the_truncated_svd(architecture):
    model = make_model(architecture)
    head, inputs = model.get_output_embeddings(), model.get_input_embeddings()
    before, bias = inputs.weight.clone(), getattr(head, "bias", None)
    rank = head.weight.shape[1] // 3
    expected = truncated(head.weight, rank)
    truncate_head(model, rank)
    new = model.get_output_embeddings()
    torch.testing.assert_close(new.weight, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert np.linalg.matrix_rank(new.weight.double().numpy(), tol=1e-4) == rank
    assert torch.equal(inputs.weight, before)
    assert model.get_input_embeddings() is inputs
    model.tie_weights()
    assert not is_tied(model), "nothing ties it again, as loading and saving do"
    assert getattr(new, "bias", None) is bias


def test_head_of_full_rank_leaves_the_model_as_it_is(architecture):
    model, window = make_model(architecture), torch.arange(2, 50)[None]
    with torch.no_grad():
        expected = model(window).logits
        truncate_head(model, model.get_output_embeddings().weight.shape[1])
        torch.testing.assert_close(model(window).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["gpt_neox", "gpt2", "gemma2"])
def test_head_rank_through_lm_eval(architecture, checkpoint, documents, tokenizer):
    """The same as lm-eval's own model with a head put in by hand; gpt2's and gemma2's are tied."""
    options = {"device": "cpu", "max_length": WINDOW}
    lm = SaturationLM(pretrained=str(checkpoint(architecture)), dtype="float32", head_rank=10, **options)
    model = make_model(architecture)
    assert is_tied(model) == (architecture != "gpt_neox")
    model.config.tie_word_embeddings = False
    low = truncated(model.get_output_embeddings().weight, 10)
    model.set_output_embeddings(torch.nn.Linear(*low.T.shape, bias=False))
    model.get_output_embeddings().weight = torch.nn.Parameter(low)
    hf = HFLM(pretrained=model, tokenizer=tokenizer, softmax_dtype="float32", **options)
    ours, theirs = (each.loglikelihood_rolling(rolling_requests(documents[:5]), True) for each in (lm, hf))
    assert ours == pytest.approx(theirs, rel=1e-5, abs=0)
    whole = SaturationLM(pretrained=str(checkpoint(architecture)), dtype="float32", **options)
    assert whole.loglikelihood_rolling(rolling_requests(documents[:5]), True) != pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("rank", [0, -1, 49, 1.5, "x", True])
def test_head_rank_that_is_none(rank, checkpoint):
    with pytest.raises(LmsatError, match=f"head_rank={rank} is not a rank of this head: .* from 1 to 48"):
        SaturationLM(pretrained=str(checkpoint("llama")), head_rank=rank, device="cpu")


@pytest.mark.parametrize(
    ("text", "other", "message"),
    [
        (None, None, "is not a file with a head of lmsat's .*: give one that lmsat_rank_head saved"),
        ("nonsense", None, "is not a file with a head of lmsat's"),
        (None, (576, 40), "is for a vocabulary of 576 rows and the width 40, but this model has 576 and 48"),
        (None, (500, 48), "is for a vocabulary of 500 rows and the width 48, but this model has 576 and 48"),
    ],
)
def test_head_files_that_do_not_fit(text, other, message, checkpoint, tmp_path):
    path = tmp_path / "head.safetensors"
    if text is not None:
        path.write_text(text)
    if other is not None:
        save_restricted_head(path, torch.randn(other[0], 3), torch.randn(3, other[1]), {})
    with pytest.raises(LmsatError, match=message):
        SaturationLM(str(checkpoint("gpt_neox")), head=str(path), device="cpu")
