"""The gradient's noise against brute force, and settings that cannot be met."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gradient_noise_runs import brute_force, by_definition, run
from tiny_models import make_model

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.probes.gradient_noise import probe
from lmsat_plugin.probes.gradient_noise.gradients import GradientSum


@pytest.fixture
def drawn(monkeypatch):
    """Return a list to which the probe adds the sequences it draws."""
    found = []
    own = probe.draw_sequences
    monkeypatch.setattr(probe, "draw_sequences", lambda *args: found.extend(own(*args)) or found)
    return found


@pytest.mark.parametrize("name", ["gpt_neox", "gpt2", "llama", "opt", "opt_narrow", "gemma2", "mamba"])
def test_all_is_as_by_brute_force(name, documents, tokenizer, drawn):
    model = make_model(name, spread=2)
    outcome = run(model, documents, tokenizer)
    metrics = {key.removeprefix("lmsat_gradient_noise/"): value for key, value in outcome.metrics.items()}
    products, tokens, loss = brute_force(model, drawn)
    assert 500 <= tokens.sum() < 540
    assert len(set(tokens.tolist())) > 1
    squared, trace = by_definition(products, tokens)
    expected = {"gradient_norm_squared": squared, "noise_trace": trace}
    expected["kaplan_critical_batch_tokens"] = 2e8 / loss ** (1 / 0.21)
    expected |= {"critical_batch_tokens": trace / squared, "gradient_norm": math.sqrt(squared)}
    for key, value in expected.items():
        assert metrics[key] == pytest.approx(value, rel=1e-4), key

    each = np.arange(len(tokens))
    without = [by_definition(products[np.ix_(each != i, each != i)], tokens[each != i]) for i in each]
    squared_K, trace_K = np.array(without).T
    for key, values_K in {
        "gradient_norm_squared": squared_K,
        "noise_trace": trace_K,
        "critical_batch_tokens": trace_K / squared_K,
        "gradient_norm": np.sqrt(squared_K),
    }.items():
        error = math.sqrt((len(each) - 1) * np.var(values_K))
        assert metrics[f"{key}_stderr"] == pytest.approx(error, rel=0.1), key
    facts = outcome.provenance["probes"]["gradient_noise"]
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())
    assert (facts["sequences"], facts["tokens"]) == (len(tokens), tokens.sum())
    assert facts["loss"] == pytest.approx(loss, rel=1e-5)


def test_standard_errors_of_many_sequences_are_by_group(documents, tokenizer, drawn, monkeypatch):
    monkeypatch.setattr(probe, "_MOST_GROUPS", 5)
    metrics = run(make_model("gpt_neox"), documents, tokenizer).metrics
    products, tokens, _ = brute_force(make_model("gpt_neox"), drawn)
    groups = np.arange(len(tokens)) % 5
    without = [by_definition(products[np.ix_(groups != g, groups != g)], tokens[groups != g]) for g in range(5)]
    errors = np.sqrt(4 * np.var(without, 0))
    assert metrics["lmsat_gradient_noise/gradient_norm_squared_stderr"] == pytest.approx(errors[0], rel=0.1)
    assert metrics["lmsat_gradient_noise/noise_trace_stderr"] == pytest.approx(errors[1], rel=0.1)


def test_noise_that_drowns_the_gradient_is_said(documents, tokenizer, monkeypatch, caplog):
    model = make_model("gpt_neox")
    monkeypatch.setattr(GradientSum, "squared_norm", lambda *args: 0.0)
    outcome = run(model, documents, tokenizer)
    names = {key.split("/")[1] for key in outcome.metrics}
    assert names == {
        *("gradient_norm_squared", "gradient_norm_squared_stderr", "noise_trace", "noise_trace_stderr"),
        "kaplan_critical_batch_tokens",
    }
    assert outcome.metrics["lmsat_gradient_noise/gradient_norm_squared"] < 0
    assert outcome.provenance["probes"]["gradient_noise"]["drowned"] is True
    assert "set noise_tokens higher" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_tokens": 0}, "noise_tokens=0 is not right"),
        ({"noise_sequence": "long"}, "noise_sequence=long is not right"),
        ({"noise_tokens": 100}, "noise_tokens=100 .* only 3 sequences of 40, .* needs 4: set noise_sequence lower"),
        ({"noise_sequence": 10**6, "max_tokens": 3}, "of a corpus of 3 tokens are only 1 sequences of 64"),
        ({"noise_sequence": None, "max_tokens": 3}, "of a corpus of 3 tokens are only 3 sequences of 1,"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_met(settings, message, documents, tokenizer):
    long = [text for text in documents if len(text) > 2500]
    with pytest.raises(LmsatError, match=message) as caught:
        run(make_model("gpt_neox"), long, tokenizer, **settings)
    assert "\n" not in str(caught.value)


def test_sequences_are_stretches_of_the_documents(documents, tokenizer, drawn):
    """Drawn from all over the corpus, each once, and all of them where there are no more."""
    model = make_model("gpt_neox")
    texts = [text for text in documents if text]
    run(model, texts, tokenizer, noise_tokens=10**9, noise_sequence=50)
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert sum(window.scored for window in drawn) == sum(map(len, encoded))
    expected = [[0, *tokens][start : start + 51] for tokens in encoded for start in range(0, len(tokens), 50)]
    assert sorted(window.tokens.tolist() for window in drawn) == sorted(expected)
    assert len({window.document for window in drawn[:8]}) > 2
