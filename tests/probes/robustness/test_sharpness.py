"""Critical sharpness against the loss on a fine grid of steps, and against a quadratic function's curvature."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from tiny_models import WINDOW, make_model

from lmsat_plugin import measure
from lmsat_plugin.model.fixed import model_digest
from lmsat_plugin.probes.robustness.sharpness import _Search

SIX = ["gpt2", "gpt_neox", "opt_narrow", "llama", "gemma2", "mamba"]


def mean_loss(model, outcome_sequences) -> torch.Tensor:
    total, count = 0.0, 0
    for window in outcome_sequences:
        tokens = torch.from_numpy(window.tokens).long()
        logits = model(input_ids=tokens[None, :-1]).logits[0, -window.scored :]
        total = total + torch.nn.functional.cross_entropy(logits, tokens[-window.scored :], reduction="sum")
        count += window.scored
    return total / count


@pytest.mark.parametrize("architecture", SIX)
def test_bracket_holds_the_first_rise_on_a_grid(architecture, tokenizer, documents, monkeypatch):
    from lmsat_plugin.probes.robustness import sharpness

    drawn = []
    real = sharpness.draw_sequences
    monkeypatch.setattr(sharpness, "draw_sequences", lambda *arguments: drawn.append(real(*arguments)) or drawn[-1])
    model = make_model(architecture, spread=1.0)
    before = model_digest(model)
    texts = [text for text in documents if text][:4]
    outcome = measure(model, ["sharpness"], corpus=texts, tokenizer=tokenizer, max_length=WINDOW, sharpness_tokens=300)
    assert model_digest(model) == before
    values = {name.rpartition("/")[2]: value for name, value in outcome.metrics.items()}
    other = make_model(architecture, spread=1.0)
    loss = mean_loss(other, drawn[0])
    loss.backward()
    start = [(p, p.detach().clone()) for p in other.parameters() if p.grad is not None]

    def rise(step: float) -> float:
        with torch.no_grad():
            for parameter, origin in start:
                parameter.copy_(origin - step * parameter.grad)
            return float(mean_loss(other, drawn[0]) - loss)

    if values["critical_sharpness"] is None:
        reason = outcome.provenance["probes"]["sharpness"]["reasons"]["critical_sharpness"]
        assert rise(float(re.search(r"no step up to (\S+) times", reason)[1])) < 0
        return
    low, high = 2 / values["critical_sharpness_high"], 2 / values["critical_sharpness_low"]
    assert low < 2 / values["critical_sharpness"] < high <= 2 * low
    grid = [(step, rise(step)) for step in np.geomspace(low / 4, high * 1.02, 40)]
    first = next(step for step, own in grid if own > 0)
    assert first >= low * (1 - 1e-6)
    assert max(step for step, _ in grid if step < first) <= high * (1 + 1e-6)


def test_steps_towards_another_checkpoint(tokenizer, documents, tmp_path, monkeypatch):
    """The first rise of the loss on the way to a checkpoint that gradient descent leads to, and beyond."""
    from lmsat_plugin.probes.robustness import sharpness

    drawn = []
    real = sharpness.draw_sequences
    monkeypatch.setattr(sharpness, "draw_sequences", lambda *arguments: drawn.append(real(*arguments)) or drawn[-1])
    texts = {"corpus": [text for text in documents if text][:4], "tokenizer": tokenizer, "max_length": WINDOW}
    model, later = (make_model("llama", spread=1.0) for _ in range(2))
    measure(model, "sharpness", **texts, sharpness_tokens=300)
    for _ in range(3):
        later.zero_grad()
        mean_loss(later, drawn[0]).backward()
        with torch.no_grad():
            for parameter in later.parameters():
                parameter -= 0.02 * parameter.grad
    later.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    before = model_digest(model)
    outcome = measure(model, "sharpness", **texts, sharpness_tokens=300, reference=str(tmp_path))
    assert model_digest(model) == before
    values = outcome.measurements["sharpness"].metrics
    low, high = 2 / values["critical_sharpness_high"], 2 / values["critical_sharpness_low"]
    start, loss = {name: p.detach().clone() for name, p in model.named_parameters()}, mean_loss(model, drawn[0])

    def rise(step: float) -> float:
        with torch.no_grad():
            for (name, parameter), target in zip(model.named_parameters(), later.parameters(), strict=True):
                parameter.copy_(start[name] + step * (target - start[name]))
            return float(mean_loss(model, drawn[0]) - loss)

    assert rise(1.0) < 0, "training has lowered the loss"
    assert low > 1
    assert rise(low) <= 0 < rise(high)
    # Away from where the loss falls, no step lowers it.
    measured = measure(later, "sharpness", **texts, sharpness_tokens=300, reference=str(tmp_path))
    reasons = measured.provenance["probes"]["sharpness"]["reasons"]
    assert "no step changes the loss" in reasons["critical_sharpness"]


@pytest.mark.parametrize("curvature", [0.01, 3.0, 500.0])
def test_of_a_quadratic_function(curvature):
    """Whatever the first step, the bracket holds 2/c."""
    for first in (1e-4 / curvature, 1 / curvature, 30 / curvature):
        search = _Search(lambda step: -step + curvature / 2 * step**2)
        search.run(first, 1.0)
        assert search.reason is None
        assert search.low * (1 - 1e-9) <= 2 / curvature <= search.high <= 1.5 * search.low
        assert search.passes <= 8


def test_a_loss_that_never_rises_has_no_sharpness():
    search = _Search(lambda step: -step)
    search.run(0.1, 1.0)
    assert "no step up to" in search.reason
    search = _Search(lambda step: 1.0)
    search.run(0.1, 1.0)
    assert "raises the loss" in search.reason
