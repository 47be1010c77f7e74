"""The trainer of heads against autograd, and Pythia's schedule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_heads import random_head

from lmsat_plugin.probes.rank_head import trainer as trainer_module
from lmsat_plugin.probes.rank_head.trainer import HeadTrainer, LowRankHead, cosine_schedule


@pytest.mark.parametrize(
    "parts", [{}, {"scale": 0.3, "softcap": 4.0}, {"bias_V": torch.arange(300) / 100.0, "scale": 2.0}]
)
def test_training_is_that_of_autograd(parts, monkeypatch):
    """Ten steps against the plain way: whole logits, autograd, clipping, torch's AdamW."""
    monkeypatch.setattr(trainer_module, "_CPU_LOGITS", 300 * 4 * 7)
    head, states, targets = random_head(**parts)
    torch.manual_seed(1)
    factors = [(torch.randn(300, rank), torch.randn(rank, 12)) for rank in (3, 8)]
    heads = [LowRankHead(left.clone(), right.clone(), 0.01) for left, right in factors]
    trainer = HeadTrainer(heads, head, lambda states: states)
    batches = [slice(0, 20), slice(20, 50)] * 5
    for step, batch in enumerate(batches):
        trainer.step(states[batch], targets[batch], len(targets[batch]), cosine_schedule(step, 10))
    for index, (left, right) in enumerate(factors):
        left.requires_grad_(), right.requires_grad_()
        optimizer = torch.optim.AdamW([left, right], lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine_schedule(step, 10))
        for step, batch in enumerate(batches):
            logits = head.finish(states[batch] @ right.T @ left.T)
            loss = torch.nn.functional.cross_entropy(logits, targets[batch])
            assert trainer.losses[step][index] == pytest.approx(float(loss.detach()), rel=1e-4)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([left, right], 1.0)
            optimizer.step()
            schedule.step()
        torch.testing.assert_close(heads[index].left_VR, left.detach(), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(heads[index].right_RD, right.detach(), rtol=1e-3, atol=1e-3)


def test_schedule_is_pythias():
    rates = [cosine_schedule(step, 1000) for step in range(1001)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert max(rates) == 1
    assert rates[505] == pytest.approx(0.55)
    assert rates[1000] == pytest.approx(0.1)
