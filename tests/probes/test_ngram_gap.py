"""Divergences from unigrams and bigrams against whole distributions, token by token."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import torch
import transformers
from sample_texts import sample_texts
from tiny_models import WINDOW, make_model
from window_passes import window_passes

from lmsat_plugin import measure
from lmsat_plugin.probes.ngram_gap import probe as gap_probe
from lmsat_plugin.synthetic import MarkovSource

# gemma2 caps its logits, cohere and granite scale them, gptj adds a bias.
ARCHITECTURES = ["gpt_neox", "opt_narrow", "llama", "gemma2", "cohere", "gptj", "mamba"]
ROUNDED = {"gemma2": 1e-6, "mamba": 1e-6}


def expected(model, tokenizer, measured, others) -> dict[str, float]:
    """Return the metrics by their definitions."""
    unigrams, bigrams = Counter(), {}
    for text in others:
        tokens = tokenizer.encode(text, add_special_tokens=False)
        unigrams.update(tokens)
        for before, token in zip([0, *tokens[:-1]], tokens, strict=True):
            bigrams.setdefault(before, Counter())[token] += 1

    def divergence(counts: Counter, log_p: np.ndarray) -> float:
        total = sum(counts.values())
        return sum(n / total * (np.log(n / total) - log_p[token]) for token, n in counts.items())

    of_unigrams, of_bigrams = [], []
    for each in window_passes(model, tokenizer, measured, with_states=False):
        for before, logits in zip(each.inputs, each.logits, strict=True):
            log_p = torch.log_softmax(torch.from_numpy(logits), 0).numpy()
            of_unigrams.append(divergence(unigrams, log_p))
            if sum(bigrams.get(before, Counter()).values()) >= gap_probe.LEAST_COUNT:
                of_bigrams.append(divergence(bigrams[before], log_p))
    return {
        "unigram_kl": float(np.mean(of_unigrams)),
        "bigram_kl": float(np.mean(of_bigrams)),
        "bigram_coverage": len(of_bigrams) / len(of_unigrams),
    }


@pytest.fixture(scope="module")
def split() -> tuple[list[str], list[str]]:
    """Return a text that is measured, with the beginning of one that is cut, and the rest."""
    texts = sample_texts()
    return texts[:1], texts[1:4]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_against_whole_distributions(architecture, tokenizer, split, monkeypatch):
    """The documents are drawn: the one that comes first is measured, the others are counted."""
    monkeypatch.setattr(gap_probe, "LEAST_COUNT", 5)
    documents = ["the measured one: the states of the model, of which there are some. " * 3, *split[1]]
    model = make_model(architecture)
    settings = {"corpus": documents, "tokenizer": tokenizer, "max_length": WINDOW, "batch_size": 2}
    tokens = len(tokenizer.encode(documents[0]))
    seed = next(s for s in range(50) if first_of(len(documents), s) == 0)
    settings |= {"max_tokens": tokens, "seed": seed}
    single = measure(model, ["ngram_gap"], **settings).measurements["ngram_gap"].metrics
    found = measure(model.double(), ["ngram_gap"], **settings)
    values = expected(model, tokenizer, documents[:1], documents[1:])
    assert 0 < values["bigram_coverage"] < 1
    for name, value in values.items():
        exact = ROUNDED.get(architecture, 1e-10)
        assert found.metrics[f"lmsat_ngram_gap/{name}"] == pytest.approx(value, rel=exact), name
        assert single[name] == pytest.approx(value, rel=1e-4), name
    details = found.provenance["probes"]["ngram_gap"]
    assert details["counted_tokens"] == sum(len(tokenizer.encode(text)) for text in documents[1:])


def first_of(number: int, seed: int) -> int:
    """Return which of so many documents comes first."""
    order = list(range(number))
    random.Random(seed).shuffle(order)
    return order[0]


def model_of_bigrams(source: MarkovSource) -> transformers.PreTrainedModel:
    """Return a Llama without blocks that predicts what follows a token in a Markov chain of order 1."""
    width = 2 * source.vocabulary
    config = transformers.LlamaConfig(
        vocab_size=source.vocabulary + 1, hidden_size=width, num_hidden_layers=0, intermediate_size=8,
        num_attention_heads=1, max_position_embeddings=WINDOW, bos_token_id=source.vocabulary,
        eos_token_id=source.vocabulary, tie_word_embeddings=False, rms_norm_eps=0.0,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).double().eval()
    log_p = np.log(np.maximum(source.probabilities, 1e-9))
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(torch.eye(source.vocabulary + 1, width))
        head = model.get_output_embeddings().weight.zero_()
        head[source.vocabulary] = -30
        head[: source.vocabulary, : source.vocabulary] = torch.from_numpy(log_p.T) / width**0.5
    return model


def test_a_model_that_is_the_bigrams_is_at_no_distance():
    """It is at the distance of the sample from the chain, of (V − 1)/(2 n) for n tokens behind a context."""
    source = MarkovSource.make(16, rank=16, seed=0)
    texts = list(source.documents(40, 500))
    found = measure(
        model_of_bigrams(source), ["ngram_gap"], corpus=texts, tokenizer=source.tokenizer(), max_tokens=2000
    ).metrics
    assert found["lmsat_ngram_gap/bigram_coverage"] > 0.9
    assert found["lmsat_ngram_gap/bigram_kl"] < 2 * 15 * 16 / (2 * 18_000)
    assert found["lmsat_ngram_gap/unigram_kl"] > 20 * found["lmsat_ngram_gap/bigram_kl"]


def test_without_other_text_all_are_null(tokenizer):
    found = measure(make_model("llama"), ["ngram_gap", "loss"], corpus=["a few words"], tokenizer=tokenizer)
    assert set(found.measurements["ngram_gap"].metrics.values()) == {None}
    reason = found.provenance["probes"]["ngram_gap"]["reasons"]["unigram_kl"]
    assert reason.startswith("corpus=documents has no text beside the measured documents")
    assert found.metrics["lmsat_loss/loss"] > 0


def test_without_a_frequent_context_only_the_bigrams_are_null(tokenizer):
    found = measure(
        make_model("llama"), ["ngram_gap"], corpus=["a b c d", "some other words"], tokenizer=tokenizer, max_tokens=3
    )
    metrics = found.measurements["ngram_gap"].metrics
    assert metrics["unigram_kl"] > 0
    assert (metrics["bigram_kl"], metrics["bigram_coverage"]) == (None, 0.0)
    reason = found.provenance["probes"]["ngram_gap"]["reasons"]["bigram_kl"]
    assert "no token of the measured text follows one that was seen 100 times" in reason
