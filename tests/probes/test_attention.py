"""Attention heads against their weights, one sequence at a time, and how eager attention comes and goes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import transformers
from tiny_models import GROUPED, VOCAB, make_model

from lmsat_plugin import measure
from lmsat_plugin.model.fixed import model_digest
from lmsat_plugin.probes.attention import probe as attention_probe
from lmsat_plugin.probes.attention.probe import induction, of_text
from lmsat_plugin.probes.attention.weights import eager_attention

SIX = ["gpt2", "gpt_neox", "opt_narrow", "llama", "gemma2", "mistral"]
ROUNDED = {"gemma2": 1e-6, "mistral": 1e-6, "llama": 1e-6}
SCALARS = ("sink_rate", "attention_entropy", "previous_token_share", "induction_score", "induction_share")


def text_of(tokenizer, tokens: int) -> str:
    """Return text of at least so many tokens."""
    text = "Heads look at the first token, at the one before, or at what followed a token the first time. "
    while len(tokenizer.encode(text)) < tokens:
        text += text
    return text


def weights_of(model, tokens: list[int]) -> list[np.ndarray]:
    """Return each layer's attention [H, T, T] of one sequence, float64."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        out = model(torch.tensor([tokens]), output_attentions=True)
    return [layer[0].double().numpy() for layer in out.attentions]


def expected(model, sequences: list[list[int]], repeated: list[list[int]]) -> dict[str, np.ndarray]:
    """Return the arrays [L, H] by their definitions, in loops over queries."""
    sink, entropy, previous, copied = [], [], [], []
    for layers in (weights_of(model, tokens) for tokens in sequences):
        sink.append([[float(np.mean(a[:, 0]) > 0.3) for a in layer] for layer in layers])
        entropy.append(
            [
                [np.mean([-sum(p * math.log(p) for p in a[i] if p > 0) / math.log(i + 1) for i in range(1, 64)])
                 for a in layer]
                for layer in layers
            ]
        )  # fmt: skip
        previous.append([[np.mean([a[i, i - 1] for i in range(1, 64)]) for a in layer] for layer in layers])
    for tokens in repeated:
        layers = weights_of(model, tokens)
        second = range(32, 63)
        behind = {i: tokens.index(tokens[i]) + 1 for i in second}
        copied.append([[np.mean([a[i, behind[i]] for i in second]) for a in layer] for layer in layers])
    arrays = {"sink": sink, "entropy": entropy, "previous_token": previous, "induction": copied}
    return {f"{name}_by_head": np.mean(values, axis=0) for name, values in arrays.items()}


@pytest.mark.parametrize("architecture", SIX)
def test_every_head_against_its_weights(architecture, tokenizer, monkeypatch):
    monkeypatch.setattr(attention_probe, "REPEATED_SEQUENCES", 3)
    monkeypatch.setattr(attention_probe, "SEQUENCES", 4)
    seen = []
    read = attention_probe.attention_weights
    monkeypatch.setattr(
        attention_probe, "attention_weights", lambda model, tokens: seen.append(tokens) or read(model, tokens)
    )
    model = make_model(architecture)
    before, digest = model.config._attn_implementation, model_digest(model)
    texts = [text_of(tokenizer, 300), "short", text_of(tokenizer, 70)]
    settings = {"corpus": texts, "tokenizer": tokenizer, "max_tokens": None}
    single = measure(model, ["attention"], **settings)
    assert (model.config._attn_implementation, model_digest(model)) == (before, digest)
    seen.clear()
    found = measure(model.double(), ["attention"], **settings)
    sequences = [tokens.tolist() for batch in seen for tokens in batch if batch.shape[1] == 64]
    repeated = [tokens.tolist() for batch in seen for tokens in batch if batch.shape[1] == 63]
    assert (len(sequences), len(repeated)) == (4, 3)
    assert all(tokens[0] == 0 for tokens in sequences + repeated)
    assert all(tokens[1:32] == tokens[32:] and len(set(tokens[1:])) == 31 < VOCAB for tokens in repeated)
    arrays = expected(model, sequences, repeated)
    for name, array in arrays.items():
        exact = ROUNDED.get(architecture, 1e-10)
        np.testing.assert_allclose(found.arrays[f"attention/{name}"], array, rtol=exact, atol=exact, err_msg=name)
        np.testing.assert_allclose(single.arrays[f"attention/{name}"], array, atol=1e-4, err_msg=name)
    assert found.measurements["attention"].metrics == pytest.approx(
        {
            "sink_rate": arrays["sink_by_head"].mean(),
            "attention_entropy": arrays["entropy_by_head"].mean(),
            "previous_token_share": (arrays["previous_token_by_head"] > 0.3).mean(),
            "induction_score": arrays["induction_by_head"].max(),
            "induction_share": (arrays["induction_by_head"] > 0.3).mean(),
        },
        rel=1e-6,
    )


def test_heads_whose_answers_are_known():
    """One attends to the first token, one to all alike, one to the one before, one to what followed the first time."""
    first, equal, before, copy = torch.zeros(4, 63, 63, dtype=torch.float64)
    for i in range(63):
        first[i, 0] = before[i, max(i - 1, 0)] = 1
        equal[i, : i + 1] = 1 / (i + 1)
        copy[i, i - 30 if i > 31 else 0] = 1
    weights = torch.stack([first, equal, before, copy])[None]
    values = of_text(weights)
    # Of equal attention 1/i, i = 1 ... 63, goes to the first token: 0.075 on average.
    assert values["sinks"].tolist() == [[1.0, 0.0, 0.0, 1.0]]
    assert values["entropy"][0].tolist() == pytest.approx([0, 1, 0, 0], abs=1e-12)
    assert values["previous"][0, 2].item() == 1
    assert induction(weights)[0].tolist() == pytest.approx([0, sum(1 / i for i in range(33, 64)) / 31, 0, 1])


def test_text_and_windows_that_are_too_short_are_null_with_a_sentence(tokenizer):
    found = measure(make_model("llama"), ["attention", "loss"], corpus=["a few words"], tokenizer=tokenizer)
    metrics, details = found.measurements["attention"].metrics, found.provenance["probes"]["attention"]
    assert [name for name in SCALARS if metrics[name] is None] == list(SCALARS[:3])
    assert details["reasons"]["sink_rate"] == "no document has the 63 tokens of a sequence: give longer text"
    assert 0 < metrics["induction_score"] < 1
    short = measure(
        make_model("llama"), ["attention"], corpus=[text_of(tokenizer, 200)], tokenizer=tokenizer, max_length=32
    )
    assert set(short.measurements["attention"].metrics.values()) == {None}
    reasons = short.provenance["probes"]["attention"]["reasons"]
    assert reasons["induction_score"] == "the window of 32 tokens is shorter than the 64 of a sequence"


def test_a_model_without_attention_is_null_with_a_sentence(tokenizer):
    found = measure(make_model("mamba"), ["attention", "loss"], corpus=[text_of(tokenizer, 200)], tokenizer=tokenizer)
    assert dict.fromkeys(SCALARS) == found.measurements["attention"].metrics
    reasons = found.provenance["probes"]["attention"]["reasons"]
    assert set(reasons.values()) == {"MambaForCausalLM has no attention weights"}
    assert found.metrics["lmsat_loss/loss"] > 0


def test_a_model_that_takes_no_such_argument_is_null_with_a_sentence(tokenizer, monkeypatch):
    model = make_model("llama")
    forward = model.model.forward

    def strict(input_ids, use_cache=None, output_hidden_states=None, output_attentions=None, **kwargs):
        if output_attentions:
            raise TypeError("output_attentions is not known")
        return forward(input_ids, use_cache=use_cache, output_hidden_states=output_hidden_states, **kwargs)

    monkeypatch.setattr(model.model, "forward", strict)
    found = measure(model, ["attention"], corpus=[text_of(tokenizer, 200)], tokenizer=tokenizer)
    assert set(found.measurements["attention"].metrics.values()) == {None}
    assert "does not run with output_attentions (output_attentions is not known)" in str(found.provenance["probes"])


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_attention_is_put_back_after_an_error(implementation):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**GROUPED)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
    parts = model.config, model.model.layers[0].self_attn.config

    def fail() -> None:
        with eager_attention(model):
            assert {config._attn_implementation for config in parts} == {"eager"}
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert {config._attn_implementation for config in parts} == {implementation}
