"""The parts of a model are the model's: head(hidden) is its logits, the states are its hidden states."""

from __future__ import annotations

import pytest
import torch
import transformers
from tiny_models import ROWS, WINDOW, make_model

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.model.anatomy import check_positions, dissect, hidden_states
from lmsat_plugin.model.lm_head import Head
from lmsat_plugin.model.size import size_of


@pytest.fixture
def window():
    return torch.randint(2, 512, (WINDOW,), generator=torch.Generator().manual_seed(1))


def test_head_of_hidden_states_is_the_models_logits(architecture, window):
    model = make_model(architecture)
    anatomy = dissect(model, window)
    assert anatomy.head is not None, "the head should be understood, not worked around"
    with torch.no_grad():
        expected = model(window[None]).logits[0]
        last = hidden_states(anatomy.base, anatomy.blocks, window[None], None)[0]
        ours = anatomy.head.logits(anatomy.head.prepare(last))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    pieces = [anatomy.head.logits(last, a, min(a + 100, ROWS)) for a in range(0, ROWS, 100)]
    torch.testing.assert_close(torch.cat(pieces, 1), ours)


def test_states_seen_by_hooks_are_the_models_hidden_states(architecture, window):
    model = make_model(architecture)
    anatomy = dissect(model, window)
    assert anatomy.blocks is not None, "the blocks should be found, so that not all layers are kept"
    with torch.no_grad():
        expected = model(window[None], output_hidden_states=True).hidden_states
        seen = {}
        hidden_states(anatomy.base, anatomy.blocks, window[None], lambda i, h: seen.setdefault(i, h.clone()))
    if architecture == "mamba":  # its list begins after the first block and holds the last before the norm too
        expected = (model.get_input_embeddings()(window[None]), *expected[:2], expected[3])
    assert sorted(seen) == list(range(len(expected)))
    for index, states in enumerate(expected):
        torch.testing.assert_close(seen[index], states)
    assert anatomy.layer_widths == tuple(states.shape[-1] for states in expected)


def test_unknown_head_is_found_out(window):
    """A model that does to its logits what no rule knows is measured by its own logits."""
    model = make_model("llama")
    lm_head = model.lm_head
    model.register_forward_hook(lambda module, args, out: out.__setitem__("logits", out.logits * 1.5) or out)
    anatomy = dissect(model, window)
    assert anatomy.head is None
    assert model.lm_head is lm_head


def test_head_keeps_half_types_unrounded():
    """Logits of a bfloat16 head are those of its weights in float64, not rounded to 8 bits."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(300, 64, generator=generator).bfloat16()
    hidden = torch.randn(20, 64, generator=generator).bfloat16()
    head = Head(weight)
    ours = head.logits(head.prepare(hidden))
    torch.testing.assert_close(ours.double(), hidden.double() @ weight.double().T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("width", "heads", "expected"),
    # Pythia-14m and Pythia-70m, as their authors count them.
    [(128, 4, (14_067_712, 1_189_888)), (512, 8, (70_426_624, 18_915_328))],
)
def test_numbers_of_parameters_are_those_published(width, heads, expected):
    config = transformers.GPTNeoXConfig(
        vocab_size=50304, hidden_size=width, num_hidden_layers=6, num_attention_heads=heads, intermediate_size=4 * width
    )
    with torch.device("meta"):
        model = transformers.GPTNeoXForCausalLM(config)
    found = size_of(model)
    assert (found["n_params"], found["n_params_non_embedding"]) == expected


def test_tied_heads_and_learned_positions_are_embeddings():
    with torch.device("meta"):
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config())
    model.tie_weights()
    # 12 blocks of 12·768² + 13·768, and the final norm.
    assert size_of(model)["n_params_non_embedding"] == 12 * (12 * 768**2 + 13 * 768) + 2 * 768
    assert size_of(model)["n_params"] == 124_439_808


WITH_TABLE = {"gpt2", "gptj", "opt", "opt_narrow"}


def test_positions_beyond_a_table_are_not_tried(architecture):
    """On a GPU a position that a table does not have ends the process' connection to the device."""
    model = make_model(architecture)
    check_positions(model, WINDOW)
    if architecture not in WITH_TABLE:
        check_positions(model, 3 * WINDOW)
        with torch.no_grad():
            assert torch.isfinite(model(torch.ones(1, 3 * WINDOW, dtype=torch.long)).logits).all()
        return
    with pytest.raises(LmsatError, match=f"max_length={WINDOW + 1} is beyond the {WINDOW} positions"):
        check_positions(model, WINDOW + 1)
