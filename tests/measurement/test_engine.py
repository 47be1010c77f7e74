"""The prefix token before every window, or before each document alone, in every probe that reads windows."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from gradient_noise_runs import brute_force, by_definition, run
from sample_texts import sample_texts
from tiny_models import WINDOW, make_model
from tiny_tokenizers import prepending_bos

from lmsat_plugin import Measurement, Need, Probe, Settings, measure
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.text.windows import rolling_windows

PREFIX = 0


class ByWindow(Probe[Settings]):
    """The losses of each batch, which is a window where the batch size is one."""

    name = "by_window"
    needs = Need.TOKEN_LOSSES

    def start(self, context):
        self.rows = []

    def update_losses(self, losses_N, batch):
        self.rows.append((batch.targets_N.tolist(), batch.positions_N.tolist(), losses_N.tolist()))

    def finish(self):
        return Measurement(metrics={})


def long_text() -> str:
    return " ".join(sample_texts()[:3])[:1500]


def losses_alone(model, context, tokens) -> list[float]:
    """Return −log p of each token behind a context, by the model's own logits."""
    with torch.no_grad():
        logits = model(torch.tensor([[*context, *tokens[:-1]]])).logits[0]
    return (-logits.log_softmax(-1)[range(len(context) - 1, len(context) + len(tokens) - 1), tokens]).tolist()


def by_window(model, tokenizer, **options):
    probe = ByWindow()
    outcome = measure(model, [probe, "loss"], corpus=[long_text()], tokenizer=tokenizer, batch_size=1, **options)
    return probe.rows, outcome


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama", "gemma3", "olmo2", "mamba"])
def test_windows_are_those_of_the_tokens_alone(name, tokenizer):
    model = make_model(name, spread=2.0)
    tokens = tokenizer.encode(long_text())
    rows, outcome = by_window(model, prepending_bos(tokenizer), max_length=WINDOW)
    rows = sorted(rows, key=lambda row: [row[1][0] != 0, -row[1][0]])
    starts = [0, *range(WINDOW, len(tokens), WINDOW - 1)]
    assert len(rows) == len(starts) > 5
    total = 0.0
    for start, stop in zip(starts, [*starts[1:], len(tokens)], strict=True):
        own = tokens[start:stop]
        # The last window is filled up with tokens that were predicted before.
        fill = 0 if start == 0 else WINDOW - 1 - len(own)
        context = [PREFIX] if start == 0 else [PREFIX, *tokens[start - 1 - fill : start]]
        [(_, positions, losses)] = [row for row in rows if row[0] == own]
        assert positions == list(range(len(context) - 1, len(context) - 1 + len(own)))
        expected = losses_alone(model, context, own)
        assert losses == pytest.approx(expected, rel=1e-6, abs=1e-6)
        total += sum(expected)
    assert outcome.metrics["lmsat_loss/loss"] == pytest.approx(total / len(tokens), rel=1e-6)
    corpus = outcome.provenance["corpus"]
    assert (corpus["prefix"], corpus["prefix_token"], corpus["window"]) == ("window", PREFIX, WINDOW)
    assert corpus["prefix_policy"].startswith("each window begins with the prefix token")


def test_document_is_the_policy_without_bos(tokenizer):
    """To the last bit: of a tokenizer that prepends BOS and one that does not; and each window is the earlier ones'."""
    model = make_model("llama")
    rows, plain = by_window(model, tokenizer, max_length=WINDOW)
    other_rows, other = by_window(model, prepending_bos(tokenizer), max_length=WINDOW, prefix="document")
    assert rows == other_rows
    assert plain.metrics == other.metrics
    assert plain.provenance["corpus"]["prefix"] == "document"
    tokens = tokenizer.encode(long_text())
    for start in range(0, len(tokens), WINDOW):
        own = tokens[start : start + WINDOW]
        context = [PREFIX] if start == 0 else tokens[start - 1 - (WINDOW - len(own)) : start]
        [losses] = [row[2] for row in rows if row[0] == own]
        assert losses == pytest.approx(losses_alone(model, context, own), rel=1e-5)
    windowed = by_window(model, tokenizer, max_length=WINDOW, prefix="window")[1]
    assert abs(windowed.metrics["lmsat_loss/loss"] - plain.metrics["lmsat_loss/loss"]) > 1e-4


def test_models_limit_holds_with_the_prefix_token(tokenizer):
    """GPT-2 has no position beyond its limit: a window of the whole limit fits with its prefix token."""
    rows, outcome = by_window(make_model("gpt2"), tokenizer, prefix="window")
    assert outcome.provenance["corpus"]["window"] == WINDOW
    assert max(position for _, positions, _ in rows for position in positions) == WINDOW - 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix": "window", "max_length": 1}, "max_length=1 leaves no room for the prefix token"),
        ({"prefix": "windows"}, "prefix"),
    ],
)
def test_what_cannot_be_is_one_sentence(options, message, tokenizer):
    with pytest.raises(LmsatError, match=message):
        measure(make_model("gpt2"), ["loss"], corpus=["a text"], tokenizer=tokenizer, **options)


def test_gradient_noise_has_the_prefix_token_in_each_sequence(documents, tokenizer):
    model = make_model("gpt2", spread=1.0)
    settings = {"noise_tokens": 300, "noise_sequence": 40}
    outcome = run(model, [long_text()], tokenizer, prefix="window", **settings)
    tokens = np.array(tokenizer.encode(long_text()))
    outcome_document = run(model, [long_text()], tokenizer, prefix="document", **settings)
    assert outcome.metrics != outcome_document.metrics
    # Sequences are drawn in an order that only their number decides.
    stretches = []
    for start in range(0, len(tokens), 40):
        context = [PREFIX] if start == 0 else [PREFIX, tokens[start - 1]]
        stretches.append((context, tokens[start : start + 40]))
    random.Random(0).shuffle(stretches)
    chosen, scored = [], 0
    while scored < 300:
        chosen.append(stretches[len(chosen)])
        scored += len(chosen[-1][1])

    class Sequence:
        def __init__(self, context, own):
            self.tokens, self.scored = np.array([*context, *own]), len(own)

    products, sizes, loss = brute_force(model, [Sequence(*pair) for pair in chosen])
    squared, trace = by_definition(products, sizes)
    found = outcome.measurements["gradient_noise"]
    assert found.metrics["gradient_norm_squared"] == pytest.approx(squared, rel=1e-3, abs=1e-5 * trace)
    assert found.metrics["noise_trace"] == pytest.approx(trace, rel=1e-4)
    assert found.details["loss"] == pytest.approx(loss, rel=1e-5)
    # A sequence and its prefix token stay within the model's limit.
    whole = run(model, [long_text()], tokenizer, prefix="window", noise_sequence=WINDOW, noise_tokens=300)
    assert whole.measurements["gradient_noise"].details["sequence"] == WINDOW - 1


def test_text_to_train_on_has_the_policy_of_the_text_measured(tokenizer):
    seen = []

    class Reads(Probe[Settings]):
        name = "reads"
        needs = Need.TRAINING_STREAM

        def prepare(self, context):
            seen.append(context.open_training(500, None, 400))

        def start(self, context):
            pass

        def finish(self):
            return Measurement(metrics={})

    text = sample_texts()
    for one, policy in ((prepending_bos(tokenizer), "window"), (tokenizer, "document")):
        measure(make_model("gpt2"), [Reads()], corpus=text, tokenizer=one, max_tokens=500)
        corpus = seen[-1].corpus
        assert corpus.provenance["prefix"] == policy
        expected = [
            window.tokens.tolist()
            for index, document in enumerate(corpus.documents)
            for window in rolling_windows(index, document.tokens, PREFIX, WINDOW, policy=policy)
        ]
        assert [window.tokens.tolist() for window in corpus.windows] == expected
        assert len(expected) > len(corpus.documents)
