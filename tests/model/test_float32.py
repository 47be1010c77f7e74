"""Float32 is float32, though a training or a launcher has set its products to less."""

from __future__ import annotations

import pytest
import torch
from tiny_models import make_model

from lmsat_plugin import measure
from lmsat_plugin.model.float32 import exact_float32


@pytest.fixture
def medium():
    """Set what the Trainer's ``torch_compile`` sets, or less."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


def test_what_was_set_comes_back(medium):
    @exact_float32()
    def fail():
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.get_float32_matmul_precision() == "medium"
    assert torch.backends.cuda.matmul.allow_tf32


def test_a_loss_does_not_inherit_it(documents, tokenizer, medium):
    """On a CPU with units for bfloat16 "medium" is bfloat16, so that only equality shows that it was put aside."""
    model = make_model("llama")
    probes = ["loss", "gradient_noise", "rank_head"]
    settings = {"corpus": documents, "tokenizer": tokenizer, "noise_tokens": 256, "noise_sequence": 16, "ranks": [4]}
    found = measure(model, probes, **settings).metrics
    torch.set_float32_matmul_precision("highest")
    assert found == measure(model, probes, **settings).metrics
