"""Massive activations, kurtosis and norms against each state, one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_models import WINDOW, make_model
from window_passes import window_passes

from lmsat_plugin import measure
from lmsat_plugin.errors import DivergedError
from lmsat_plugin.probes.activations import median_of_rows

SIX = ["gpt2", "gpt_neox", "opt_narrow", "llama", "gemma2", "mamba"]
ROUNDED = {"gemma2": 1e-6, "mamba": 1e-6}


def expected(model, tokenizer, texts) -> dict[str, list[float]]:
    """Return the arrays by their definitions, state by state."""
    passes = list(window_passes(model, tokenizer, texts))
    arrays: dict[str, list[float]] = {}
    for layer in range(len(passes[0].layers)):
        rows = [(each.first + i, state) for each in passes for i, state in enumerate(each.layers[layer])]
        ratios = [(position, np.abs(h).max() / np.median(np.abs(h))) for position, h in rows]
        greatest = max(ratio for _, ratio in ratios)
        kurtosis = [((h - h.mean()) ** 4).mean() / h.var() ** 2 - 3 for _, h in rows]
        values = {
            "massive_ratio": greatest,
            "first_position_share": max(ratio for position, ratio in ratios if position == 0) / greatest,
            "kurtosis": math.fsum(kurtosis) / len(rows),
            "norm": math.fsum(math.sqrt(math.fsum(h * h)) for _, h in rows) / len(rows),
        }
        for name, value in values.items():
            arrays.setdefault(f"{name}_by_layer", []).append(value)
    return arrays


@pytest.mark.parametrize("architecture", SIX)
def test_every_layer_against_its_states(architecture, tokenizer, documents):
    model, texts = make_model(architecture), [text for text in documents if text][:5]
    settings = {"corpus": texts, "tokenizer": tokenizer, "max_length": WINDOW, "batch_size": 3}
    single = measure(model, ["activations"], **settings)
    double = measure(model.double(), ["activations"], **settings)
    arrays = expected(model, tokenizer, texts)
    for name, values in arrays.items():
        exact = ROUNDED.get(architecture, 1e-10)
        np.testing.assert_allclose(double.arrays[f"activations/{name}"], values, rtol=exact, err_msg=name)
        # What the model itself rounds is in the states.
        np.testing.assert_allclose(single.arrays[f"activations/{name}"], values, rtol=1e-3, err_msg=name)
    metrics = double.measurements["activations"].metrics
    assert metrics == {
        "massive_ratio_max": pytest.approx(max(arrays["massive_ratio_by_layer"]), rel=1e-6),
        "massive_layer": int(np.argmax(arrays["massive_ratio_by_layer"])),
        "kurtosis_max": pytest.approx(max(arrays["kurtosis_by_layer"]), rel=1e-6),
        "norm_mean": pytest.approx(np.mean(arrays["norm_by_layer"]), rel=1e-6),
    }


@pytest.mark.parametrize("width", [1, 2, 7, 48])
def test_medians(width):
    values = torch.randn(100, width, generator=torch.Generator().manual_seed(width)).double()
    assert median_of_rows(values).tolist() == pytest.approx(np.median(values.numpy(), axis=1).tolist(), rel=1e-15)


def test_a_planted_massive_activation_is_found_in_its_layer(tokenizer):
    """One entry of the second block's output, at whatever token."""
    model = make_model("llama", spread=1.0)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.zero_()

        def plant(module, args, out):
            out[..., 5] = 1e4

        model.model.layers[1].register_forward_hook(plant)
    found = measure(model, ["activations"], corpus=["some words of a text"], tokenizer=tokenizer)
    assert found.metrics["lmsat_activations/massive_layer"] == 2
    assert found.metrics["lmsat_activations/massive_ratio_max"] > 1e4
    # A single entry of 48: the greatest kurtosis there is.
    assert found.metrics["lmsat_activations/kurtosis_max"] == pytest.approx(48 + 1 / 47 - 2 - 3, abs=0.05)


def test_states_of_zeros_are_left_out_and_counted(tokenizer):
    """As the embedding of a padding token that begins each text."""
    model = make_model("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[0] = 0
    found = measure(model, ["activations"], corpus=["a text", "another text"], tokenizer=tokenizer)
    details = found.provenance["probes"]["activations"]
    assert details["zero_medians_by_layer"][0] == details["flat_states_by_layer"][0] == 2
    assert np.isfinite(found.arrays["activations/massive_ratio_by_layer"]).all()
    assert np.isnan(found.arrays["activations/first_position_share_by_layer"]).all(), "no first state has a ratio"
    with torch.no_grad():
        model.get_input_embeddings().weight.zero_()
    found = measure(model, ["activations"], corpus=["a text"], tokenizer=tokenizer)
    assert found.metrics["lmsat_activations/massive_layer"] is None
    reasons = found.provenance["probes"]["activations"]["reasons"]
    assert reasons["massive_ratio_max"] == "the median of every hidden state is zero, so that none has a ratio to it"


def test_states_that_are_not_finite_name_their_layer(tokenizer):
    model = make_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[5, 5] = math.inf
    with pytest.raises(DivergedError, match=r"hidden states of layer 2 of 3 are not finite"):
        measure(model, ["activations"], corpus=["a few words"], tokenizer=tokenizer)
