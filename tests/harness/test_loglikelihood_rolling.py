"""The log-likelihood of whole texts is lm-eval's, exact in float32, whatever the batches."""

from __future__ import annotations

import pytest
from evaluation import rolling_requests
from lm_eval.models.huggingface import HFLM
from memory_probes import Memory
from tiny_models import WINDOW, make_model

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
