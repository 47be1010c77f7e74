"""The loss is lm-eval's, exact in float32, whatever the batches, and whatever memory does on the way."""

from __future__ import annotations

import itertools
import logging
import math
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from evaluation import rolling_requests
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tiny_models import ROWS, WINDOW, make_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lmsat_plugin import measure
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.model import cross_entropy
from lmsat_plugin.model.cross_entropy import losses_of_logits, token_losses
from lmsat_plugin.model.lm_head import Head

FLOAT32 = {"dtype": "float32", "device": "cpu"}


def test_rolling_loglikelihood_is_that_of_hf(architecture, checkpoint, documents):
    folder, requests = str(checkpoint(architecture)), rolling_requests(documents)
    options = {**FLOAT32, "max_length": WINDOW}
    hf = HFLM(pretrained=folder, softmax_dtype="float32", batch_size=16, **options)
    expected = hf.loglikelihood_rolling(requests, disable_tqdm=True)
    for batch_size in (1, 5, "auto"):
        lm = SaturationLM(pretrained=folder, batch_size=batch_size, **options)
        # No absolute tolerance: the empty document's log-likelihood is 0.
        assert lm.loglikelihood_rolling(requests, disable_tqdm=True) == pytest.approx(
            expected, rel=1e-5, abs=0
        )


def test_rolling_loglikelihood_at_the_default_window(checkpoint, documents):
    folder, requests = str(checkpoint("mamba")), rolling_requests(documents)
    hf = HFLM(pretrained=folder, softmax_dtype="float32", **FLOAT32)
    lm = SaturationLM(pretrained=folder, **FLOAT32)
    assert lm.max_length == hf.max_length
    ours, theirs = (each.loglikelihood_rolling(requests, disable_tqdm=True) for each in (lm, hf))
    assert ours == pytest.approx(theirs, rel=1e-5, abs=0)


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


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation makes."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.largest = max([self.largest, *sizes])
        return result


@pytest.mark.parametrize("tile", [(32, 100), cross_entropy._CPU_TILE])
def test_logits_of_a_batch_never_exist_as_a_whole(monkeypatch, tile):
    monkeypatch.setattr(cross_entropy, "_CPU_TILE", tile)
    rows, columns = 3 * tile[0] // 2, 3 * tile[1] // 2
    hidden, weight = torch.randn(rows, 4), torch.randn(columns, 4)
    with LargestTensor() as recorded:
        token_losses(hidden, torch.randint(columns, (rows,)), Head(weight))
    assert recorded.largest == tile[0] * tile[1]


def test_logits_of_a_pass_never_exist_as_a_whole(monkeypatch, documents, tokenizer):
    """In the whole measurement, after the first window's check, no tensor is as large as a batch's logits."""
    monkeypatch.setattr(cross_entropy, "_CPU_TILE", (64, 64))
    model = make_model("llama")
    with LargestTensor() as recorded:
        measure(model, ["loss"], corpus=documents, tokenizer=tokenizer, max_tokens=1024, batch_size=1000)
    batch, checked = 1024 * ROWS, WINDOW * ROWS
    assert recorded.largest >= checked, "the check's own logits should be seen"
    assert recorded.largest < batch / 4


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
    outcome = measure(
        model, ["loss"], corpus=documents, tokenizer=tokenizer, max_tokens=None, batch_size=batch_size
    )
    metrics, arrays = outcome.measurements["loss"].metrics, outcome.measurements["loss"].arrays
    scored = brute_force(model, tokenizer, texts, WINDOW)
    every = [pair for document in scored for pair in document]
    counts = Counter(
        token for text in texts for token in tokenizer(text, add_special_tokens=False)["input_ids"]
    )
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


def test_standard_error_against_a_bootstrap_over_documents(tokenizer, documents):
    text = "".join(documents)
    cuts = np.cumsum(np.random.default_rng(0).integers(40, 400, 80))
    texts = [text[a:b] for a, b in itertools.pairwise(cuts) if b <= len(text)]
    outcome = measure(make_model("llama"), ["loss"], corpus=texts, tokenizer=tokenizer)
    nats, tokens = outcome.arrays["loss/by_document"], outcome.arrays["loss/by_document_tokens"]
    drawn = np.random.default_rng(1).integers(len(nats), size=(4000, len(nats)))
    bootstrap = (nats[drawn].sum(1) / tokens[drawn].sum(1)).std()
    assert outcome.metrics["loss/loss_stderr"] == pytest.approx(bootstrap, rel=0.1)


@pytest.mark.parametrize("architecture", ["gpt_neox", "gemma2", "gpt2"])
def test_bfloat16_model_is_measured_beyond_its_own_rounding(architecture, documents, tokenizer):
    """Its states are its own; the product with the head, in float64 here, is not rounded to 8 bits."""
    model = make_model(architecture).bfloat16()
    texts = [text for text in documents if text][:4]
    ours = measure(model, ["loss"], corpus=texts, tokenizer=tokenizer, batch_size=1).metrics["loss/loss"]
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
    assert outcome.metrics["loss/loss"] == pytest.approx(np.mean(losses), rel=1e-9)
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
    with pytest.raises(LmsatError, match=r"the loss of document 2 of documents is nan: .*dtype=float32"):
        measure(model, ["loss"], corpus=texts, tokenizer=tokenizer)


class Memory:
    """Makes a model run out of memory above so many tokens at a time, once it has made some calls."""

    def __init__(
        self, model, most: int, after: int = 0, error: type[Exception] = torch.OutOfMemoryError
    ) -> None:
        self.most, self.after, self.error = most, after, error
        self.seen: list[int] = []
        self.refused = 0
        model.base_model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module, args, kwargs) -> None:
        size = kwargs["input_ids"].numel()
        if len(self.seen) + self.refused >= self.after and size > self.most:
            self.refused += 1
            raise self.error("out of memory")
        self.seen.append(size)


ALL = ["loss", "anisotropy"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, RuntimeError])
@pytest.mark.parametrize(("most", "after"), [(5 * WINDOW, 0), (WINDOW, 0), (3 * WINDOW, 4)])
def test_out_of_memory_begins_again_with_smaller_batches(documents, tokenizer, caplog, most, after, error):
    """After 4: the check's two calls and two whole batches have been counted when memory runs out."""
    options = {"corpus": documents, "tokenizer": tokenizer, "batch_size": 8}
    expected = measure(make_model("llama").double(), ALL, **options)
    model = make_model("llama").double()
    memory = Memory(model, most, after, error)
    with caplog.at_level(logging.WARNING, "lmsat_plugin"):
        outcome = measure(model, ALL, **options)
    assert memory.refused > 0
    assert (max(memory.seen) > most) == (after > 0), "a whole batch should have gone through before, or none"
    assert "Out of memory" in caplog.text
    assert outcome.metrics == pytest.approx(expected.metrics, rel=1e-9)
    for name, array in expected.arrays.items():
        np.testing.assert_allclose(outcome.arrays[name], array, rtol=1e-9, atol=1e-12)


def test_out_of_memory_in_rolling_loglikelihood(documents, tokenizer):
    requests = rolling_requests(documents)

    def lm(model):
        return SaturationLM(
            pretrained=model, tokenizer=tokenizer, batch_size=8, max_length=WINDOW, device="cpu"
        )

    expected = lm(make_model("llama")).loglikelihood_rolling(requests, disable_tqdm=True)
    model = make_model("llama")
    memory = Memory(model, 3 * WINDOW, after=4)
    assert lm(model).loglikelihood_rolling(requests, disable_tqdm=True) == pytest.approx(expected, rel=1e-6)
    assert memory.refused == 2


def test_window_that_does_not_fit_is_an_error(documents, tokenizer):
    model = make_model("llama")
    Memory(model, WINDOW - 1, after=2)
    with pytest.raises(
        LmsatError, match=rf"memory does not suffice for one window of {WINDOW} tokens: .*max_length"
    ):
        measure(model, ["loss"], corpus=documents, tokenizer=tokenizer, batch_size=8)


def test_other_errors_of_the_model_are_not_taken_for_want_of_memory(documents, tokenizer):
    model = make_model("llama")
    Memory(model, 0, after=2, error=ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        measure(model, ["loss"], corpus=documents, tokenizer=tokenizer)
