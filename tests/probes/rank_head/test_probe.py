"""Losses by head rank of whole models: against the model's own, truncated heads, and languages of known entropy."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from evaluation import evaluate, numbers
from rank_head_runs import train
from tiny_heads import exact_model
from tiny_models import WINDOW, make_model

from lmsat_plugin import measure
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.synthetic import MarkovSource


def test_full_rank_is_the_model_and_truncated_is_head_rank(architecture, checkpoint, texts, tokenizer):
    options = {"tokenizer": tokenizer, "max_tokens": 1500, "max_length": WINDOW}
    model = make_model(architecture)
    width = model.get_output_embeddings().weight.shape[1]
    outcome = measure(model, ["loss", "rank_head"], corpus=texts, ranks=[4, width], **options)
    metrics = outcome.metrics
    assert metrics["lmsat_rank_head/full_loss"] == pytest.approx(metrics["lmsat_loss/loss"], rel=1e-12)
    for kind in ("truncated", "weighted_truncated"):
        assert metrics[f"lmsat_rank_head/{kind}_loss_rank_{width}"] == pytest.approx(
            metrics["lmsat_loss/loss"], abs=1e-5
        )
        gaps = np.abs(outcome.arrays[f"rank_head/{kind}_by_document"].sum(1) / 1500 - metrics["lmsat_loss/loss"])
        assert (gaps <= outcome.arrays[f"rank_head/{kind}_bound"] + 1e-5).all()
    lm = SaturationLM(pretrained=str(checkpoint(architecture)), dtype="float32", device="cpu", head_rank=4)
    low = measure(lm.model, ["loss"], corpus=texts, **options).metrics["lmsat_loss/loss"]
    assert metrics["lmsat_rank_head/truncated_loss_rank_4"] == pytest.approx(low, rel=1e-5)
    assert low != pytest.approx(metrics["lmsat_loss/loss"], rel=5e-5)


def test_default_ranks_and_names_through_lm_eval(checkpoint, texts, tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    model_args = {"pretrained": str(checkpoint("gpt_neox")), "dtype": "float32", "device": "cpu"}
    options = {"corpus": str(corpus), "max_tokens": 1500, "model_args": model_args}
    found = numbers(evaluate("lmsat", ["lmsat_rank_head"], **options))
    ranks = [
        int(key[1].split("_")[-1][:-5]) for key in found if key[1].startswith("truncated_loss") and "err" not in key[1]
    ]
    assert ranks == [1, 2, 4, 8, 16, 32, 48]
    assert found["lmsat_rank_head", "truncated_loss_rank_8_stderr,none"] > 0
    results = evaluate("lmsat", ["lmsat_rank_head"], **options, ranks=[16, 8], train_tokens=2048, init="svd")
    found = numbers(results)
    for rank in (8, 16):
        loss = found["lmsat_rank_head", f"loss_rank_{rank},none"]
        assert found["lmsat_rank_head", f"perplexity_rank_{rank},none"] == pytest.approx(math.exp(loss))
        assert 0 <= found["lmsat_rank_head", f"accuracy_rank_{rank},none"] <= 1
        assert found["lmsat_rank_head", f"loss_rank_{rank}_stderr,none"] > 0
    training = results["config"]["lmsat"]["probes"]["rank_head"]["training"]
    assert training["tokens"] == pytest.approx(2048, abs=16)
    assert training["steps"] == 2


@pytest.mark.parametrize(("init", "left"), [("svd", 0.03), ("normal", 0.15)])
def test_trained_heads_approach_the_entropy_rate_from_above(init, left):
    """A source of 16 tokens; states that tell the last token: with enough rank and text nothing else is lost."""
    source = MarkovSource.make(16, rank=4, seed=1, concentration=0.5)
    model = exact_model(source, 24)
    outcome = measure(
        model, ["rank_head"], corpus=list(source.documents(2000, 60)), tokenizer=source.tokenizer(),
        max_tokens=20_000, max_length=WINDOW, ranks=[1, 4, 16], train_tokens=90_000, batch_tokens=1024,
        init=init, learning_rate=0.05,
    )  # fmt: skip
    # The first token of a document has no context; the others know theirs.
    first = -float(source.stationary @ np.log(source.stationary))
    rate = (first + 59 * source.entropy_rate) / 60
    losses = [outcome.metrics[f"lmsat_rank_head/loss_rank_{rank}"] for rank in (1, 4, 16)]
    error = outcome.metrics["lmsat_rank_head/loss_rank_16_stderr"]
    assert losses[0] > losses[1] > losses[2] - 0.01
    assert rate - 3 * error < losses[2] < rate + 3 * error + left
    assert losses[0] > rate + 0.1
    assert outcome.metrics["lmsat_rank_head/full_loss"] > rate + 0.5


def test_rates_go_with_the_ranks_in_the_order_given(tokenizer, texts):
    outcome = train(make_model("gpt_neox"), tokenizer, texts, ranks=[48, 4], learning_rate=[0.001, 0.01])
    assert outcome.arrays["rank_head/ranks"].tolist() == [4, 48]
    assert outcome.arrays["rank_head/learning_rates"].tolist() == [0.01, 0.001]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ranks": [4, 49]}, "ranks=49 is above the width of this head: give ranks from 1 to 48"),
        ({"batch_tokens": 20_000}, "train_tokens=12000 is less than one batch of 20000"),
        ({"train_tokens": 10**6}, "the training wants 1,000,000 tokens, more than the .* tokens that corpus="),
        ({"learning_rate": [0.1]}, "learning_rate has 1 values for 2 ranks"),
        ({"train_corpus": "nowhere"}, "corpus=nowhere is neither a file"),
        ({"heads": "/proc/heads"}, "cannot write to /proc/heads"),
    ],
)
def test_training_that_cannot_be(settings, message, tokenizer, texts):
    with pytest.raises(LmsatError, match=message):
        train(make_model("gpt_neox"), tokenizer, texts, **settings)


def test_a_train_corpus_that_holds_the_text_measured(tokenizer, texts, tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("\n".join(texts))
    with pytest.raises(LmsatError, match=r"\d\d% of the text measured is in train_corpus=.*train.txt too"):
        train(make_model("gpt_neox"), tokenizer, texts, train_corpus=str(path))


def test_too_little_text_leaves_the_plain_curve(tokenizer, texts, caplog):
    outcome = measure(
        make_model("gpt_neox"), ["rank_head"], corpus=texts[:3], tokenizer=tokenizer, max_tokens=None, ranks=[4]
    )  # fmt: skip
    assert "lmsat_rank_head/truncated_loss_rank_4" in outcome.metrics
    assert "lmsat_rank_head/weighted_truncated_loss_rank_4" not in outcome.metrics
    assert "no weighted truncated heads: the training wants" in caplog.text


def test_tied_heads_are_trained_apart(tokenizer, texts, caplog):
    model = make_model("gpt2")
    before = model.get_input_embeddings().weight.clone()
    train(model, tokenizer, texts)
    assert "The LM head is tied to the embeddings: the heads are trained apart from them" in caplog.text
    assert torch.equal(model.get_input_embeddings().weight, before)
