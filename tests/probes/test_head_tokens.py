"""Costly probes of the head take some tokens, spread over the text, whatever the batches are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import WINDOW, make_model

from lmsat_plugin import measure
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.probe import TokenBatch
from lmsat_plugin.probes.head_tokens import HeadTokensSettings, part_of, spread


def test_stride():
    assert HeadTokensSettings().stride(50_000) == 7
    assert HeadTokensSettings().stride(8192) == 1
    assert HeadTokensSettings().stride(50_000, trains=True) == 1
    assert HeadTokensSettings(head_tokens=100).stride(1001, trains=True) == 11
    assert HeadTokensSettings(head_tokens="all").stride(10**9) == 1


def test_tokens_are_spread_over_documents_and_windows():
    documents_N, positions_N = (torch.tensor(ids) for ids in zip(*np.ndindex(20, 37), strict=True))
    batch = TokenBatch(targets_N=torch.arange(740), documents_N=documents_N, positions_N=positions_N)
    part = part_of(batch, spread(batch, 5))
    assert len(part.targets_N) == 740 // 5
    assert {len(part.positions_N[part.documents_N == document]) for document in range(20)} <= {7, 8}
    assert set(part.positions_N.tolist()) == set(range(37))


def everything(model, tokenizer, texts, **settings):
    probes = ["loss", "rank_head", "gradient_bottleneck"]
    return measure(model, probes, corpus=texts, tokenizer=tokenizer, max_length=WINDOW, max_tokens=600, **settings)


def test_no_value_depends_on_the_batches(tokenizer, texts):
    model = make_model("llama")
    one, four = (everything(model, tokenizer, texts, head_tokens=100, batch_size=size) for size in (1, 4))
    assert four.metrics == pytest.approx(one.metrics, rel=1e-5)
    assert one.arrays["rank_head/by_document_tokens"].sum() == pytest.approx(100, abs=6)


def test_all_tokens_are_those_of_the_loss(tokenizer, texts):
    whole = everything(make_model("llama"), tokenizer, texts, head_tokens="all")
    assert whole.metrics["lmsat_rank_head/full_loss"] == pytest.approx(whole.metrics["lmsat_loss/loss"], rel=1e-9)
    both = (whole.arrays[f"{name}/by_document_tokens"].tolist() for name in ("rank_head", "loss"))
    assert next(both) == next(both)


def test_values_are_those_of_the_tokens_taken(tokenizer, texts):
    model = make_model("llama")
    found = everything(model, tokenizer, texts[:1], head_tokens=100)
    ids = [0, *tokenizer.encode(texts[0])[:600]]
    scored, taken = len(ids) - 1, []
    stride = -(-scored // 100)
    for end in [*range(WINDOW, scored, WINDOW), scored]:
        window = torch.tensor(ids[end - WINDOW : end + 1])
        with torch.no_grad():
            logits = model(window[None, :-1]).logits[0]
        losses = torch.nn.functional.cross_entropy(logits, window[1:], reduction="none").tolist()
        own = (end - 1) % WINDOW + 1  # the last window sees tokens of the one before again
        taken += [loss for place, loss in enumerate(losses) if place >= WINDOW - own and place % stride == 0]
    assert found.metrics["lmsat_rank_head/full_loss"] == pytest.approx(sum(taken) / len(taken), rel=1e-5)


def test_a_wrong_number_is_one_sentence(tokenizer, texts):
    with pytest.raises(LmsatError, match="head_tokens=0 is not right"):
        everything(make_model("llama"), tokenizer, texts, head_tokens=0)
