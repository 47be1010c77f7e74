"""Operations against those that PyTorch counts in real forward passes, and against sums over matrices."""

from __future__ import annotations

import pytest
import torch
import transformers
from model_configs import empty, mixtures
from tiny_models import ROWS, WINDOW, configs
from torch.utils.flop_counter import FlopCounterMode

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.model.flops import forward_flops


def counted(config, tokens: int) -> FlopCounterMode:
    """Return PyTorch's counter after a forward pass of a model with weights."""
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    # PyTorch does not count a fused attention on a CPU, nor products with the matrices of several experts at once.
    model.set_attn_implementation("eager")
    model.set_experts_implementation("eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.arange(tokens)[None] % ROWS, use_cache=False)
    return counter


@pytest.mark.parametrize("name", sorted(configs().keys() - {"mamba"}))
def test_flops_are_those_that_pytorch_counts(name):
    """But for what is no product of matrices (embed) and the half of the attention that Kaplan leaves out."""
    counter = counted(configs()[name], WINDOW)
    flops = forward_flops(empty(configs()[name]), WINDOW)
    assert counter.get_total_flops() == (flops.total - flops.embed + flops.attention_mask) * WINDOW
    assert counter.flop_counts["Global"][torch.ops.aten.bmm] == 2 * flops.attention_mask * WINDOW
    if name in ("gpt2", "gpt_neox"):
        per_token = 2 * 3 * 12 * 48**2 if name == "gpt2" else 2 * 3 * 48 * (4 * 48 + 2 * 96)
        assert flops.attention_qkv + flops.attention_project + flops.feed_forward == per_token
        assert flops.attention_mask == 2 * 3 * WINDOW * 48


def test_state_space_layers_cost_their_matrices_convolution_and_scan():
    flops = forward_flops(empty(configs()["mamba"]), WINDOW)
    inner, state, rank = 96, 8, 3
    matrices = 48 * 2 * inner + inner * (rank + 2 * state) + rank * inner + inner * 48
    assert flops.other == 3 * 2 * (matrices + 4 * inner + inner * state)
    assert flops.attention_mask == flops.attention_qkv == flops.feed_forward == 0
    # The first positions' padding is all that a pass costs besides.
    totals = [counted(configs()["mamba"], tokens).get_total_flops() for tokens in (WINDOW, 2 * WINDOW)]
    assert totals[1] - totals[0] == (flops.total - flops.embed) * WINDOW


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe"])
def test_of_a_mixture_the_experts_that_are_used_count(name):
    """A real pass runs each expert on the tokens that choose it alone."""
    flops = forward_flops(empty(mixtures()[name]), WINDOW)
    total = counted(mixtures()[name], WINDOW).get_total_flops()
    assert total == (flops.total - flops.embed + flops.attention_mask) * WINDOW


@pytest.mark.parametrize(
    ("name", "feed_forward"),
    [
        # Three matrices an expert, of which two of four count, and the router.
        ("mixtral", 3 * (2 * 3 * 48 * 96 + 48 * 4)),
        # A plain layer; two layers with two experts, the shared one, its gate, and the router.
        ("qwen2_moe", 3 * 48 * 96 + 2 * (2 * 3 * 48 * 40 + 3 * 48 * 56 + 48 + 48 * 6)),
        # One expert of four, the shared one, and the router, though all experts are multiplied with all tokens.
        ("llama4", 3 * (3 * 48 * 96 + 3 * 48 * 96 + 48 * 4)),
    ],
)
def test_a_mixtures_feed_forward_by_hand(name, feed_forward):
    assert forward_flops(empty(mixtures()[name]), WINDOW).feed_forward == 2 * feed_forward


def test_a_model_that_needs_values_cannot_be_counted():
    model = empty(configs()["llama"])
    model.register_forward_pre_hook(
        lambda module, args, kwargs: print(int(kwargs["input_ids"].sum())), with_kwargs=True
    )
    with pytest.raises(LmsatError, match=r"^the operations of LlamaForCausalLM cannot be counted, .*alone$"):
        forward_flops(model, WINDOW)
