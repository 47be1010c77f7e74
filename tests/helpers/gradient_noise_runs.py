"""Measurements of lmsat_gradient_noise, and its definition in a loop."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch.func import functional_call, grad

from lmsat_plugin import measure

SETTINGS = {"noise_tokens": 500, "noise_sequence": 40}


def run(model, documents, tokenizer, **settings):
    """Return the outcome on the documents that have text."""
    return measure(
        model, ["gradient_noise"], corpus=[text for text in documents if text], tokenizer=tokenizer,
        **{**SETTINGS, "max_tokens": None, **settings},
    )  # fmt: skip


def brute_force(model, windows) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the sequences' products of gradients [K, K], their tokens [K], and their loss, all in float64."""
    model = copy.deepcopy(model).double()
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(weights, window):
        tokens = torch.as_tensor(window.tokens).long()
        logits = functional_call(model, weights, (tokens[None, :-1],), {"use_cache": False}).logits[0]
        chosen = logits.log_softmax(-1)[torch.arange(len(tokens) - 1), tokens[1:]]
        return -chosen[len(chosen) - window.scored :].sum()

    rows = [torch.cat([part.flatten() for part in grad(loss)(weights, window).values()]) for window in windows]
    with torch.no_grad():
        nats = sum(float(loss(weights, window)) for window in windows)
    tokens = np.array([window.scored for window in windows])
    stacked = torch.stack(rows)
    return (stacked @ stacked.T).numpy(), tokens, nats / tokens.sum()


def by_definition(products: np.ndarray, tokens: np.ndarray) -> tuple[float, float]:
    """Return |G|² as the mean of the products of different sequences, and tr Σ from what that leaves of |G_big|²."""
    apart = ~np.eye(len(tokens), dtype=bool)
    squared = products[apart].sum() / np.outer(tokens, tokens)[apart].sum()
    return squared, tokens.sum() * (products.sum() / tokens.sum() ** 2 - squared)
