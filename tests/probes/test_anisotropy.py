"""Anisotropy against loops over pairs of states, and closed forms."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import GROUPED, WINDOW, make_model
from window_passes import states_of

from lmsat_plugin import measure
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.probe import ProbeContext, StateMoments
from lmsat_plugin.probes.anisotropy import AnisotropyProbe


def mean_cosine_of_pairs(states) -> float:
    cosines = [
        math.fsum(a * b) / math.sqrt(math.fsum(a * a) * math.fsum(b * b))
        for (i, a), (j, b) in itertools.product(enumerate(states), repeat=2)
        if i != j
    ]
    return math.fsum(cosines) / len(cosines)


def mean_cosine(states) -> float:
    units = states / np.linalg.norm(states, axis=1, keepdims=True)
    cosines = units @ units.T
    return cosines[~np.eye(len(units), dtype=bool)].mean()


# A document longer than a window, so that the last window begins with states that are not counted.
TEXTS = ["The states that predict a token are counted once. " * 4, "Two words", "naïve — 🙂"]


def test_anisotropy_against_a_loop_over_pairs(tokenizer):
    model = make_model("gpt_neox").double()
    outcome = measure(model, ["anisotropy"], corpus=TEXTS, tokenizer=tokenizer, batch_size=2)
    layers = states_of(model, tokenizer, TEXTS)
    assert len(layers[0]) > WINDOW + 10
    expected = list(map(mean_cosine_of_pairs, layers))
    np.testing.assert_allclose(outcome.arrays["anisotropy/by_layer"], expected, rtol=1e-9)
    summary = {"last": expected[-1], "mean": np.mean(expected), "max": max(expected)}
    for key, value in summary.items():
        assert outcome.metrics[f"lmsat_anisotropy/anisotropy_{key}"] == pytest.approx(value, rel=1e-9)


def test_anisotropy_of_every_architecture(architecture, tokenizer, documents):
    model = make_model(architecture)
    texts = [text for text in documents if text][:5]
    arrays = measure(model, ["anisotropy"], corpus=texts, tokenizer=tokenizer, max_length=WINDOW).arrays
    layers = states_of(model, tokenizer, texts)
    np.testing.assert_allclose(arrays["anisotropy/by_layer"], list(map(mean_cosine, layers)), rtol=1e-4)
    norms = [np.linalg.norm(states, axis=1).mean() for states in layers]
    np.testing.assert_allclose(arrays["anisotropy/mean_norm_by_layer"], norms, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["gpt_neox", "llama"])
def test_effective_rank_against_lapack(architecture, tokenizer, documents):
    """Of the centred states; behind gpt_neox' norm their covariance is singular."""
    model = make_model(architecture).double()
    outcome = measure(model, ["anisotropy"], corpus=documents, tokenizer=tokenizer, max_tokens=None)
    states = states_of(model, tokenizer, documents)[-1]
    centred = states - states.mean(0)
    s = np.linalg.svd(centred, compute_uv=False)
    p = s[s > 0] / s.sum()
    assert outcome.metrics["lmsat_anisotropy/effective_rank_last"] == pytest.approx(
        np.exp(-(p * np.log(p)).sum()), rel=1e-6
    )
    eigenvalues = outcome.arrays["anisotropy/last_covariance_eigenvalues"]
    np.testing.assert_allclose(eigenvalues, s**2 / len(states), rtol=1e-9, atol=1e-12 * s[0] ** 2 / len(states))


def anisotropy_of(batches: list[torch.Tensor]) -> float:
    """Return the anisotropy of states that come in batches."""
    width = batches[0].shape[1]
    context = ProbeContext(
        model=None, tokenizer=None, vocab_rows=0, device=torch.device("cpu"), synchronise=False,
        layer_widths=(width, width),
    )  # fmt: skip
    moments = StateMoments(context, width)
    probe = AnisotropyProbe()
    probe.start(replace(context, last_moments=moments))
    for batch in batches:
        moments.add(batch)
        for layer in (0, 1):
            probe.update_hidden(layer, batch, None)
    return probe.finish().metrics["anisotropy_last"]


@given(st.integers(1, 8), st.integers(1, 6), st.integers(1, 7))
def test_anisotropy_of_repeated_directions(directions, copies, size):
    """States along orthogonal directions, so many copies of each: of the other states, copies − 1 are parallel."""
    if directions * copies < 2:
        return
    lengths = torch.arange(1.0, directions * copies + 1)[:, None]
    states = torch.eye(8)[:directions].repeat(copies, 1) * lengths
    expected = (copies - 1) / (directions * copies - 1)
    assert anisotropy_of(list(states.split(size))) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("cosine", [-1.0, -0.5, 0.0, 1.0])
def test_anisotropy_of_two_states_is_their_cosine(cosine):
    states = torch.tensor([[2.0, 0.0], [3 * cosine, 3 * math.sqrt(1 - cosine**2)]], dtype=torch.float64)
    assert anisotropy_of([states]) == pytest.approx(cosine, abs=1e-15)


def test_anisotropy_of_one_token_is_an_error(tokenizer):
    with pytest.raises(LmsatError, match=r"at least 2 tokens: .*max_tokens"):
        measure(make_model("llama"), ["anisotropy"], corpus=["word"], tokenizer=tokenizer, max_tokens=1)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_broken_layer_is_named(layer, tokenizer):
    """Not a number from the embeddings or a block on: the states behind it are the first that are broken."""
    model = make_model("llama")
    with torch.no_grad():
        if layer:
            model.model.layers[layer - 1].mlp.down_proj.weight[5, 5] = math.nan
        else:
            model.get_input_embeddings().weight.fill_(0)
    what = rf"not finite: the weight \S+ \(layer {layer}\) is" if layer else "zero: .*float32"
    with pytest.raises(LmsatError, match=rf"hidden states of layer {layer} of 3 are {what}"):
        measure(model, ["anisotropy"], corpus=["a few words"], tokenizer=tokenizer)


@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
def test_states_of_zero_norm_have_no_direction(kind, tokenizer):
    """The one special token begins each document, and torch keeps its row at zero: so are its states in every layer."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **{**GROUPED, "pad_token_id": 0})
    model = transformers.AutoModelForCausalLM.from_config(config).double().eval()
    outcome = measure(model, ["anisotropy"], corpus=TEXTS, tokenizer=tokenizer, batch_size=2)
    layers = states_of(model, tokenizer, TEXTS)
    zeros = [int((np.linalg.norm(states, axis=1) == 0).sum()) for states in layers]
    assert zeros[0] == len(TEXTS)
    expected = [mean_cosine(states[np.linalg.norm(states, axis=1) > 0]) for states in layers]
    np.testing.assert_allclose(outcome.arrays["anisotropy/by_layer"], expected, rtol=1e-9)
    assert outcome.provenance["probes"]["anisotropy"]["zero_states_by_layer"] == zeros
    plain = measure(make_model("llama"), ["anisotropy"], corpus=TEXTS, tokenizer=tokenizer)
    assert "zero_states_by_layer" not in plain.provenance["probes"]["anisotropy"]
