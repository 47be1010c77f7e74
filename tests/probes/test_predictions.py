"""Hits, entropy, calibration and losses by frequency against whole distributions, window by window."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from tiny_models import WINDOW, make_model
from window_passes import window_passes

from lmsat_plugin import measure
from lmsat_plugin.model.cross_entropy import predict_tokens
from lmsat_plugin.model.lm_head import Head
from lmsat_plugin.probes.loss import LossProbe, calibration_error

SIX = ["gpt2", "gpt_neox", "opt_narrow", "llama", "gemma2", "mamba"]
# These compute in float32 on the way, whatever their type, and a batch rounds otherwise than a single window.
ROUNDED = {"gemma2": 1e-7, "mamba": 1e-7}
NEW = ("accuracy", "entropy", "calibration_error", "loss_frequent", "loss_medium", "loss_rare")


def expected(model, tokenizer, texts) -> tuple[dict[str, float], dict[str, list]]:
    """Return the metrics by their definitions, and the losses and tokens of each document."""
    passes = list(window_passes(model, tokenizer, texts, with_states=False))
    logits = np.concatenate([each.logits for each in passes])
    targets = [token for each in passes for token in each.targets]
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    losses = -np.log(p[np.arange(len(targets)), targets])
    hits = p.argmax(1) == targets
    ranked = sorted(zip(p.max(1), hits, strict=True), key=lambda pair: pair[0])
    bins = [part for part in np.array_split(np.arange(len(ranked)), 15) if len(part)]
    gaps = [abs(sum(ranked[i][1] - ranked[i][0] for i in part)) for part in bins]
    values = {
        "accuracy": hits.mean(),
        "entropy": -(p * np.log(p)).sum(1).mean(),
        "calibration_error": sum(gaps) / len(targets),
    }
    # All occurrences of a token stand together, from the most frequent token to the least.
    counts, third, place = Counter(targets), {}, 0
    for token, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        middle = place + count / 2
        third[token] = ("frequent", "medium", "rare")[min(2, int(3 * middle / len(targets)))]
        place += count
    for name in ("frequent", "medium", "rare"):
        own = [loss for loss, token in zip(losses, targets, strict=True) if third[token] == name]
        values[f"loss_{name}"] = float(np.mean(own))
    by_document: dict[int, list[float]] = {}
    start = 0
    for each in passes:
        by_document.setdefault(each.document, []).extend(losses[start : start + len(each.targets)])
        start += len(each.targets)
    octaves: dict[int, list[float]] = {}
    for loss, token in zip(losses, targets, strict=True):
        octaves.setdefault(int(math.log2(counts[token])), []).append(loss)
    return values, {"by_document": list(by_document.values()), "by_frequency": octaves}


@pytest.mark.parametrize("architecture", SIX)
def test_against_whole_distributions(architecture, tokenizer, documents):
    texts = [text for text in documents if text][:6]
    model = make_model(architecture)
    settings = {"corpus": texts, "tokenizer": tokenizer, "max_length": WINDOW, "batch_size": 3}
    single = measure(model, ["loss"], **settings).measurements["loss"].metrics
    double = measure(model.double(), ["loss"], token_losses=True, **settings)
    values, arrays = expected(model, tokenizer, texts)
    metrics, exact = double.measurements["loss"].metrics, ROUNDED.get(architecture, 1e-10)
    for name in NEW:
        assert metrics[name] == pytest.approx(values[name], rel=exact), name
        assert single[name] == pytest.approx(values[name], rel=2e-5), name
    octaves = double.arrays["loss/by_frequency"]
    assert double.arrays["loss/by_frequency_tokens"].sum() == metrics["tokens"]
    assert sorted(np.flatnonzero(np.isfinite(octaves))) == sorted(arrays["by_frequency"])
    for octave, losses in arrays["by_frequency"].items():
        assert octaves[octave] == pytest.approx(np.mean(losses), rel=exact)
    # The documents are in another order.
    found = double.arrays["loss/by_token"]
    assert found.dtype == np.float32
    ends = np.cumsum(double.arrays["loss/by_document_tokens"])[:-1]
    tokens = [tuple(tokenizer(text, add_special_tokens=False).input_ids) for text in texts]
    ids = double.arrays["loss/by_token_ids"]
    assert ids.dtype == np.int32
    assert sorted(tuple(part.tolist()) for part in np.split(ids, ends)) == sorted(tokens)
    parts = np.split(found, ends)
    for part in parts:
        assert any(
            len(part) == len(losses) and np.allclose(part, losses, rtol=1e-6) for losses in arrays["by_document"]
        )


def test_losses_are_those_without_predictions(tokenizer, documents, monkeypatch):
    """To the last bit, and the array of all tokens is there where it is asked for."""
    model, settings = make_model("gpt_neox"), {"corpus": documents, "tokenizer": tokenizer, "batch_size": 3}
    found = measure(model, ["loss"], **settings)
    monkeypatch.setattr(LossProbe, "update_predictions", lambda *_: None)
    monkeypatch.setattr(LossProbe, "needs", LossProbe.needs & ~LossProbe.needs.PREDICTIONS)
    plain = measure(model, ["loss"], **settings)
    assert plain.metrics["lmsat_loss/loss"] == found.metrics["lmsat_loss/loss"]
    assert plain.arrays["loss/by_position"].tobytes() == found.arrays["loss/by_position"].tobytes()
    assert "loss/by_token" not in found.arrays


def test_models_own_logits_give_the_same(tokenizer, documents):
    """Of a model whose head is not known."""
    model = make_model("llama").double()
    model.register_forward_hook(lambda module, args, out: out.__setitem__("logits", out.logits * 1.5) or out)
    texts = [text for text in documents if text][:3]
    found = measure(model, ["loss"], corpus=texts, tokenizer=tokenizer)
    assert "own logits" in found.provenance["head_form"]
    values, _ = expected(model, tokenizer, texts)
    for name in NEW:
        assert found.metrics[f"lmsat_loss/{name}"] == pytest.approx(values[name], rel=1e-10)


def test_predictions_without_rounding_where_logits_are_far_apart():
    """A token of probability one, logits of −∞ for padding, and a flat distribution."""
    weight = torch.zeros(4096, 3, dtype=torch.float64)
    weight[7, 0] = 1e4
    bias = torch.zeros(4096, dtype=torch.float64)
    bias[4000:] = -torch.inf
    head = Head(weight_VD=weight, bias_V=bias)
    states = torch.tensor([[1.0, 0, 0], [0.0, 0, 0]], dtype=torch.float64)
    found = predict_tokens(states, torch.tensor([7, 7]), head)
    assert found.entropies_N.tolist() == pytest.approx([0.0, math.log(4000)], abs=1e-9)
    assert found.top_N.tolist() == pytest.approx([1.0, 1 / 4000], rel=1e-12)
    assert found.hits_N.tolist() == [True, True]
    assert len(predict_tokens(states[:0], torch.zeros(0, dtype=torch.long), head).top_N) == 0


def test_calibration_error_of_a_known_case():
    """Forecasts of 0.9 that come true in 60 % of cases, and of 0.1 in 10 %."""
    top = np.repeat([0.9, 0.1], 150)
    hits = np.concatenate([np.tile([1, 1, 1, 0, 0], 30), np.tile([1.0] + [0.0] * 9, 15)])
    assert calibration_error(top, hits) == pytest.approx((0.3 * 150 + 0.0) / 300, abs=1e-12)


def test_an_empty_third_is_null_with_a_sentence(tokenizer):
    found = measure(make_model("llama"), ["loss"], corpus=["a"], tokenizer=tokenizer)
    assert found.metrics["lmsat_loss/loss_frequent"] is None
    assert found.metrics["lmsat_loss/loss_medium"] == found.metrics["lmsat_loss/loss"]
    reasons = found.provenance["probes"]["loss"]["reasons"]
    assert reasons["loss_rare"].startswith("no token of the vocabulary lies in the rare third of these 1 tokens")
