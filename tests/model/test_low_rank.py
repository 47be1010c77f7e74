"""Truncated heads against NumPy's SVD, and the losses of several ranks against each alone."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from tiny_heads import random_head

from lmsat_plugin.model.cross_entropy import token_losses
from lmsat_plugin.model.lm_head import Head
from lmsat_plugin.model.low_rank import NestedHeads, Truncation


@pytest.mark.parametrize("weighted", [False, True])
def test_truncation_is_the_best_approximation(weighted):
    """Against NumPy's SVD of W M^½ with SciPy's root, and its error against a loop over states."""
    head, states, _ = random_head()
    weight, states = head.weight_VD.double(), states.double()
    moment = states.T @ states / len(states)
    root = sqrtm(moment.numpy()) if weighted else np.eye(12)
    u, s, v = np.linalg.svd(weight.numpy() @ root, full_matrices=False)
    truncation = Truncation.of(Head(weight), moment if weighted else None)
    np.testing.assert_allclose(truncation.singular_D, s, rtol=1e-9)
    errors = truncation.error(torch.linalg.qr(weight, mode="r").R, moment, [1, 5, 12])
    for rank, error in zip([1, 5, 12], errors, strict=True):
        expected = (u[:, :rank] * s[:rank]) @ v[:rank] @ np.linalg.inv(root)
        low = truncation.weight(weight, rank)
        np.testing.assert_allclose(low, expected, atol=1e-9)
        distances = ((states @ (weight - low).T) ** 2).sum(1)
        assert float(error) == pytest.approx(float(distances.mean().sqrt()), abs=1e-9)
        if weighted:
            assert float(error) == pytest.approx(math.sqrt((s[rank:] ** 2).sum()), abs=1e-9)


def test_truncation_in_a_singular_metric_is_still_the_head_at_full_rank():
    """Of fewer states than the width, and without the direction that a norm without bias takes away."""
    head, states, _ = random_head()
    states = states[:5].double()
    weight = head.weight_VD.double()
    truncation = Truncation.of(Head(weight), states.T @ states / 5)
    torch.testing.assert_close(truncation.weight(weight, 12), weight, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(states @ truncation.weight(weight, 5).T, states @ weight.T, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("parts", [{}, {"scale": 0.3, "softcap": 4.0}, {"bias_V": torch.arange(300) / 100.0}])
def test_nested_losses_are_those_of_each_head_alone(parts, monkeypatch):
    monkeypatch.setattr("lmsat_plugin.model.cross_entropy._CPU_TILE", (16, 70))
    head, states, targets = random_head(**parts)
    truncation = Truncation.of(head, states.double().T @ states.double())
    own = token_losses(states, targets, head)
    found = NestedHeads(head=head, truncation=truncation, ranks=[1, 3, 11, 12]).losses(states, targets, own)
    for losses, rank in zip(found, [1, 3, 11, 12], strict=True):
        low = dataclasses.replace(head, weight_VD=truncation.weight(head.weight_VD.double(), rank))
        logits = low.logits(states.double())
        expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
