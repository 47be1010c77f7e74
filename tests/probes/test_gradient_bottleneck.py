"""The share of the gradient that the head suppresses, against autograd and a dense projector."""

from __future__ import annotations

import pytest
import torch
from tiny_heads import exact_model
from tiny_models import WINDOW, make_model

from lmsat_plugin import measure
from lmsat_plugin.model.anatomy import dissect
from lmsat_plugin.synthetic import MarkovSource


def test_suppressed_share_against_autograd_and_a_dense_projector(architecture, tokenizer, texts):
    model = make_model(architecture)
    metrics = measure(
        model, ["gradient_bottleneck"], corpus=[texts[0]], tokenizer=tokenizer, max_length=WINDOW, max_tokens=40
    ).metrics
    tokens = torch.tensor([0, *tokenizer.encode(texts[0])[:40]])
    anatomy = dissect(model, tokens[:-1])
    with torch.no_grad():
        states = model.base_model(tokens[None, :-1]).last_hidden_state[0].double()
    weight = anatomy.head.weight_VD.double()
    products = (states @ weight.T).requires_grad_()
    bias = None if anatomy.head.bias_V is None else anatomy.head.bias_V.double()
    logits = products + (0 if bias is None else bias)
    logits = logits * anatomy.head.scale
    if anatomy.head.softcap is not None:
        logits = torch.tanh(logits / anatomy.head.softcap) * anatomy.head.softcap
    loss = torch.nn.functional.cross_entropy(logits, tokens[1:], reduction="sum")
    [gradient] = torch.autograd.grad(loss, products)
    basis = torch.linalg.svd(weight, full_matrices=False).U
    lost = gradient - gradient @ basis @ basis.T
    shares = lost.norm(dim=1) / gradient.norm(dim=1)
    energy = (lost**2).sum() / (gradient**2).sum()
    assert metrics["lmsat_gradient_bottleneck/suppressed_norm_share"] == pytest.approx(float(shares.mean()), abs=1e-5)
    assert metrics["lmsat_gradient_bottleneck/suppressed_energy_share"] == pytest.approx(float(energy), abs=1e-5)


def test_a_wide_head_suppresses_nothing():
    """A head of as many columns as rows passes every gradient back."""
    source = MarkovSource.make(15, seed=0)
    found = measure(
        exact_model(source, 16), ["gradient_bottleneck"], corpus=list(source.documents(5, 20)),
        tokenizer=source.tokenizer(), max_length=WINDOW,
    )  # fmt: skip
    assert found.metrics["lmsat_gradient_bottleneck/suppressed_norm_share"] == pytest.approx(0, abs=1e-3)
