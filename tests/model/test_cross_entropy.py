"""Losses of tokens are the cross-entropy, tile by tile, and the logits never exist as a whole."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from memory_probes import LargestTensor
from tiny_heads import random_head
from tiny_models import ROWS

from lmsat_plugin.model import cross_entropy
from lmsat_plugin.model.cross_entropy import losses_of_logits, score_tokens, token_losses
from lmsat_plugin.model.lm_head import Head


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("biased", [False, True])
def test_token_losses_are_the_cross_entropy(monkeypatch, biased, softcap, dtype, tolerance):
    """Tiles of 64 tokens and 50 columns, neither of which divides the whole."""
    monkeypatch.setattr(cross_entropy, "_CPU_TILE", (64, 50))
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(333, 48, generator=generator, dtype=dtype)
    weight = torch.randn(ROWS + 1, 48, generator=generator, dtype=dtype)
    bias = torch.randn(len(weight), generator=generator, dtype=dtype) if biased else None
    targets = torch.randint(len(weight), (len(hidden),), generator=generator)
    losses = token_losses(hidden, targets, Head(weight, bias, scale=0.5, softcap=softcap))
    logits = hidden.double() @ weight.double().T
    logits = 0.5 * (logits + bias.double() if biased else logits)
    logits = softcap * torch.tanh(logits / softcap) if softcap else logits
    expected = F.cross_entropy(logits, targets, reduction="none")
    assert losses.dtype == torch.float64
    # A logit of so many nats is rounded by so much.
    torch.testing.assert_close(losses, expected, rtol=0, atol=tolerance * float(logits.abs().max()))


def test_losses_of_logits_are_the_cross_entropy_and_leave_the_logits_alone():
    logits = 20 * torch.randn(50, ROWS, generator=torch.Generator().manual_seed(0))
    before, targets = logits.clone(), torch.arange(50)
    expected = F.cross_entropy(logits.double(), targets, reduction="none")
    torch.testing.assert_close(losses_of_logits(logits, targets), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(logits, before)


def test_losses_of_extreme_logits_are_finite():
    """Logits that overflow an exponential in float32, and a token as good as certain."""
    head = Head(torch.diag(torch.tensor([1000.0, 500.0, -1000.0])))
    losses = token_losses(torch.eye(3), torch.tensor([0, 0, 2]), head)
    torch.testing.assert_close(
        losses, torch.tensor([0.0, 500.0 + math.log1p(2 * math.exp(-500)), 1000.0 + math.log(2)]).double()
    )


def test_hits_are_where_the_target_is_the_most_probable(monkeypatch):
    monkeypatch.setattr("lmsat_plugin.model.cross_entropy._CPU_TILE", (16, 70))
    head, states, targets = random_head()
    targets[::2] = (states @ head.weight_VD.T).argmax(1)[::2]
    hits = torch.cat([scores.hits_N for scores in score_tokens(states, targets, head)])
    assert torch.equal(hits, (states @ head.weight_VD.T).argmax(1) == targets)


@pytest.mark.parametrize("tile", [(32, 100), cross_entropy._CPU_TILE])
def test_logits_of_a_batch_never_exist_as_a_whole(monkeypatch, tile):
    monkeypatch.setattr(cross_entropy, "_CPU_TILE", tile)
    rows, columns = 3 * tile[0] // 2, 3 * tile[1] // 2
    hidden, weight = torch.randn(rows, 4), torch.randn(columns, 4)
    with LargestTensor() as recorded:
        token_losses(hidden, torch.randint(columns, (rows,)), Head(weight))
    assert recorded.largest == tile[0] * tile[1]
