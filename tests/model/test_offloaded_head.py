"""Models of which accelerate has put parts elsewhere: their heads are read, and can be replaced."""

from __future__ import annotations

import copy

import pytest
import torch
from accelerate import dispatch_model
from tiny_models import make_model

from lmsat_plugin import measure
from lmsat_plugin.model.lm_head import head_weight
from lmsat_plugin.model.restricted_head import truncate_head


@pytest.fixture(params=["gpt_neox", "gpt2"])
def models(request, tmp_path):
    """Return a model, untied or tied, and a copy of it whose head, or whose tied weight, is on the disk."""
    model = make_model(request.param)
    parts = {"gpt_neox": {"gpt_neox": "cpu", "lm_head": "disk"}, "gpt2": {"transformer": "disk", "lm_head": "disk"}}
    spread = dispatch_model(
        copy.deepcopy(model), parts[request.param], main_device="cpu", offload_dir=str(tmp_path), force_hooks=True
    )
    assert spread.get_output_embeddings().weight.is_meta
    return model, spread


def test_head_of_an_offloaded_model(models):
    model, spread = models
    assert torch.equal(head_weight(spread), head_weight(model))
    assert spread.get_output_embeddings().weight.is_meta, "it is where it was"


def test_offloaded_model_is_measured(models, documents, tokenizer):
    settings = {"corpus": documents, "tokenizer": tokenizer, "max_tokens": 300}
    whole, parts = (measure(model, ["loss", "head"], **settings) for model in models)
    assert parts.metrics == pytest.approx(whole.metrics, rel=1e-6)


def test_replaced_head_keeps_the_hook_that_brings_the_states_to_it(models):
    model, spread = models
    for each in models:
        truncate_head(each, 4)
    hook = spread.get_output_embeddings()._hf_hook
    assert torch.device(hook.execution_device) == torch.device("cpu")
    ids = torch.arange(8)[None]
    with torch.no_grad():
        torch.testing.assert_close(spread(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)
