"""The log-likelihood of whole texts is lm-eval's, exact in float32, whatever the batches."""

from __future__ import annotations

import pytest
import torch
from evaluation import rolling_requests
from lm_eval.models.huggingface import HFLM
from memory_probes import Memory
from tiny_models import WINDOW, make_model

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness.model import SaturationLM

FLOAT32 = {"dtype": "float32", "device": "cpu"}


def test_rolling_loglikelihood_is_that_of_hf(architecture, checkpoint, documents):
    folder, requests = str(checkpoint(architecture)), rolling_requests(documents)
    options = {**FLOAT32, "max_length": WINDOW}
    hf = HFLM(pretrained=folder, softmax_dtype="float32", batch_size=16, **options)
    expected = hf.loglikelihood_rolling(requests, disable_tqdm=True)
    lm = SaturationLM(pretrained=folder, **options)
    for batch_size in (1, 5, "auto"):
        lm.batch_size_per_gpu = batch_size
        # No absolute tolerance: the empty document's log-likelihood is 0.
        assert lm.loglikelihood_rolling(requests, disable_tqdm=True) == pytest.approx(expected, rel=1e-5, abs=0)


def test_rolling_loglikelihood_at_the_default_window(checkpoint, documents):
    folder, requests = str(checkpoint("mamba")), rolling_requests(documents)
    hf = HFLM(pretrained=folder, softmax_dtype="float32", **FLOAT32)
    lm = SaturationLM(pretrained=folder, **FLOAT32)
    assert lm.max_length == hf.max_length
    ours, theirs = (each.loglikelihood_rolling(requests, disable_tqdm=True) for each in (lm, hf))
    assert ours == pytest.approx(theirs, rel=1e-5, abs=0)


def test_out_of_memory_in_rolling_loglikelihood(documents, tokenizer):
    requests = rolling_requests(documents)

    def lm(model):
        return SaturationLM(pretrained=model, tokenizer=tokenizer, batch_size=8, max_length=WINDOW, device="cpu")

    expected = lm(make_model("llama")).loglikelihood_rolling(requests, disable_tqdm=True)
    model = make_model("llama")
    memory = Memory(model, 3 * WINDOW, after=4)
    assert lm(model).loglikelihood_rolling(requests, disable_tqdm=True) == pytest.approx(expected, rel=1e-6)
    assert memory.refused == 2


@pytest.mark.parametrize("name", ["gpt2", "mistral"])
def test_prefix_in_every_window(name, checkpoint, documents, tokenizer):
    """Each window is run alone, and its log-likelihood taken from the model's own logits."""
    length = 24
    lm = SaturationLM(pretrained=str(checkpoint(name)), **FLOAT32, max_length=length, rolling_prefix="window")
    expected = []
    for text in documents:
        tokens, total, start = tokenizer.encode(text), 0.0, 0
        while start < len(tokens):
            stop = min(len(tokens), start + (length - 1 if start else length))
            seen = tokens[stop - length : stop] if start else tokens[:stop]
            inputs = torch.tensor([[0, *seen[:-1]]])
            with torch.no_grad():
                log_p = lm.model(inputs).logits[0].double().log_softmax(-1)
            total += float(sum(log_p[len(seen) - stop + at, tokens[at]] for at in range(start, stop)))
            start = stop
        expected.append(total)
    found = lm.loglikelihood_rolling(rolling_requests(documents), disable_tqdm=True)
    assert found == pytest.approx(expected, rel=1e-6, abs=0)
    lm.rolling_prefix = "document"
    assert lm.loglikelihood_rolling(rolling_requests(documents), disable_tqdm=True) != pytest.approx(found, rel=1e-4)


def test_unknown_policy_is_named(checkpoint):
    with pytest.raises(LmsatError, match="rolling_prefix='auto' is none of its values: give document or window"):
        SaturationLM(pretrained=str(checkpoint("gpt2")), **FLOAT32, rolling_prefix="auto")
