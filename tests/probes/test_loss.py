"""The loss probe against a loop over lm-eval's windows, in float64."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
import transformers
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tiny_models import ROWS, VOCAB, WINDOW, make_model

from lmsat_plugin import measure
from lmsat_plugin.errors import LmsatError


def brute_force(model, tokenizer, texts, length, prefix=0) -> list[list[tuple[int, float]]]:
    """Return each document's (position in its window, nats), window by window as lm-eval cuts them."""
    rows = []
    for text in texts:
        tokens, scored = tokenizer.encode(text, add_special_tokens=False), []
        pairs = get_rolling_token_windows(tokens, prefix_token=prefix, max_seq_len=length, context_len=1)
        for context, continuation in map(make_disjoint_window, pairs):
            window = torch.tensor([*context, *continuation])
            with torch.no_grad():
                logits = model(window[None, :-1]).logits[0].double()
            for offset, token in enumerate(continuation):
                position = len(context) - 1 + offset
                nats = -torch.log_softmax(logits[position], 0)[token]
                scored.append((position, float(nats)))
        rows.append(scored)
    return rows


@pytest.mark.parametrize("batch_size", [1, 7, "auto"])
def test_loss_probe_against_a_loop(documents, tokenizer, batch_size):
    model = make_model("gpt_neox").double()
    texts = [text for text in documents if text]
    outcome = measure(model, ["loss"], corpus=documents, tokenizer=tokenizer, max_tokens=None, batch_size=batch_size)
    metrics, arrays = outcome.measurements["loss"].metrics, outcome.measurements["loss"].arrays
    scored = brute_force(model, tokenizer, texts, WINDOW)
    every = [pair for document in scored for pair in document]
    counts = Counter(token for text in texts for token in tokenizer(text, add_special_tokens=False)["input_ids"])
    unigram = -sum(n * math.log(n / len(every)) for n in counts.values()) / len(every)
    nats, n_bytes = sum(loss for _, loss in every), sum(len(text.encode()) for text in texts)
    expected = {
        "loss": nats / len(every),
        "perplexity": math.exp(nats / len(every)),
        "bits_per_byte": nats / math.log(2) / n_bytes,
        "unigram_loss": unigram,
        "unigram_normalised_perplexity": math.exp(nats / len(every) - unigram),
        "tokens": len(every),
        "bytes": n_bytes,
    }
    assert {key: metrics[key] for key in expected} == pytest.approx(expected, rel=1e-9)

    by_position = [[loss for at, loss in every if at == position] for position in range(WINDOW)]
    assert arrays["by_position_tokens"].tolist() == list(map(len, by_position))
    np.testing.assert_allclose(arrays["by_position"], list(map(np.mean, by_position)), rtol=1e-9)

    corpus = outcome.provenance["corpus"]
    assert corpus["documents"] == len(texts)
    # The seed shuffles the documents.
    found = zip(*(arrays[f"by_document{key}"].tolist() for key in ("_tokens", "_bytes", "")), strict=True)
    wanted = [
        (len(document), len(text.encode()), pytest.approx(sum(loss for _, loss in document), rel=1e-9))
        for text, document in zip(texts, scored, strict=True)
    ]
    assert sorted(found) == sorted(wanted, key=lambda row: row[:2])


def test_positions_without_a_token_are_nan(tokenizer):
    outcome = measure(make_model("llama"), ["loss"], corpus=["a few words"], tokenizer=tokenizer)
    n_tokens = len(tokenizer.encode("a few words"))
    by_position = outcome.arrays["loss/by_position"]
    assert np.isfinite(by_position[:n_tokens]).all()
    assert np.isnan(by_position[n_tokens:]).all()
    assert "loss_stderr" not in outcome.measurements["loss"].metrics, "one document has no spread"


def test_padded_rows_are_in_the_denominator_of_the_loss(tokenizer):
    """The spectrum leaves them out; the model's own softmax does not."""
    model = make_model("llama").double()
    metrics = measure(model, ["loss"], corpus=["a few words"], tokenizer=tokenizer).metrics
    tokens = torch.tensor(tokenizer.encode("a few words"))
    with torch.no_grad():
        logits = model(torch.tensor([[0, *tokens[:-1]]])).logits[0]
    assert logits.shape[1] == ROWS > VOCAB
    expected = torch.nn.functional.cross_entropy(logits, tokens)
    assert metrics["lmsat_loss/loss"] == pytest.approx(float(expected), rel=1e-9)


def test_standard_error_against_a_bootstrap_over_documents(tokenizer, documents):
    text = "".join(documents)
    cuts = np.cumsum(np.random.default_rng(0).integers(40, 400, 80))
    texts = [text[a:b] for a, b in itertools.pairwise(cuts) if b <= len(text)]
    outcome = measure(make_model("llama"), ["loss"], corpus=texts, tokenizer=tokenizer)
    nats, tokens = outcome.arrays["loss/by_document"], outcome.arrays["loss/by_document_tokens"]
    drawn = np.random.default_rng(1).integers(len(nats), size=(4000, len(nats)))
    bootstrap = (nats[drawn].sum(1) / tokens[drawn].sum(1)).std()
    assert outcome.metrics["lmsat_loss/loss_stderr"] == pytest.approx(bootstrap, rel=0.1)


@pytest.mark.parametrize("architecture", ["gpt_neox", "gemma2", "gpt2"])
def test_bfloat16_model_is_measured_beyond_its_own_rounding(architecture, documents, tokenizer):
    """Its states are its own; the product with the head, in float64 here, is not rounded to 8 bits."""
    model = make_model(architecture).bfloat16()
    texts = [text for text in documents if text][:4]
    ours = measure(model, ["loss"], corpus=texts, tokenizer=tokenizer, batch_size=1).metrics["lmsat_loss/loss"]
    head = model.get_output_embeddings().weight.double()
    cap = getattr(model.config, "final_logit_softcapping", None)

    class InFloat64:
        def __call__(self, window):
            logits = model.base_model(window).last_hidden_state.double() @ head.T
            return transformers.modeling_outputs.CausalLMOutput(
                logits=logits if cap is None else torch.tanh(logits / cap) * cap
            )

    exact = [loss for row in brute_force(InFloat64(), tokenizer, texts, WINDOW) for _, loss in row]
    assert ours == pytest.approx(np.mean(exact), rel=1e-6)


def test_unknown_head_is_measured_by_the_models_own_logits(documents, tokenizer):
    model = make_model("llama").double()
    model.register_forward_hook(lambda module, args, out: out.__setitem__("logits", out.logits * 1.5) or out)
    outcome = measure(model, ["loss"], corpus=documents[:5], tokenizer=tokenizer)
    losses = [loss for row in brute_force(model, tokenizer, documents[:5], WINDOW) for _, loss in row]
    assert outcome.metrics["lmsat_loss/loss"] == pytest.approx(np.mean(losses), rel=1e-9)
    assert "the model's own logits" in outcome.provenance["head_form"]


def test_not_a_number_is_an_error_that_names_the_document(documents, tokenizer):
    """Only the document that holds the token of a broken embedding is named."""
    model = make_model("gpt_neox")
    texts = ["good words here", "also good words", "broken: 🙂 after it", "fine words"]
    token = tokenizer.encode("🙂")[-1]
    holding = [index for index, text in enumerate(texts) if token in tokenizer.encode(text)]
    assert holding == [2]
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = math.nan
    with pytest.raises(
        LmsatError, match=r"the loss of document 2 of documents is nan: the weight \S+embed_in.weight is"
    ):
        measure(model, ["loss"], corpus=texts, tokenizer=tokenizer)
