"""The forward pass where memory is scarce: smaller batches, the same numbers, and errors that say what to do."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from memory_probes import LargestTensor, Memory
from synchronisation import Waits
from tiny_models import ROWS, WINDOW, make_model

from lmsat_plugin import measure
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.measurement.forward import ForwardPass
from lmsat_plugin.model import cross_entropy, lm_head, low_rank
from lmsat_plugin.probes.rank_head.trainer import HeadTrainer


def test_logits_of_a_pass_never_exist_as_a_whole(monkeypatch, documents, tokenizer):
    """In the whole measurement, after the first window's check, no tensor is as large as a batch's logits."""
    monkeypatch.setattr(cross_entropy, "_CPU_TILE", (64, 64))
    model = make_model("llama")
    with LargestTensor() as recorded:
        measure(model, ["loss"], corpus=documents, tokenizer=tokenizer, max_tokens=1024, batch_size=1000)
    batch, checked = 1024 * ROWS, WINDOW * ROWS
    assert recorded.largest >= checked, "the check's own logits should be seen"
    assert recorded.largest < batch / 4


ALL = ["loss", "anisotropy", "geometry", "activations"]


@pytest.fixture(scope="module")
def undisturbed(documents, tokenizer):
    """Return the outcome where memory suffices."""
    return measure(make_model("llama").double(), ALL, corpus=documents, tokenizer=tokenizer, batch_size=8)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, RuntimeError])
@pytest.mark.parametrize(("most", "after"), [(5 * WINDOW, 0), (WINDOW, 0), (3 * WINDOW, 4)])
def test_out_of_memory_begins_again_with_smaller_batches(documents, tokenizer, undisturbed, caplog, most, after, error):
    """After 4: the check's two calls and two whole batches have been counted when memory runs out."""
    model = make_model("llama").double()
    memory = Memory(model, most, after, error)
    with caplog.at_level(logging.WARNING, "lmsat_plugin"):
        outcome = measure(model, ALL, corpus=documents, tokenizer=tokenizer, batch_size=8)
    assert memory.refused > 0
    assert (max(memory.seen) > most) == (after > 0), "a whole batch should have gone through before, or none"
    assert "Out of memory" in caplog.text
    found, expected = (
        {name: value for name, value in each.metrics.items() if value is not None} for each in (outcome, undisturbed)
    )
    assert found == pytest.approx(expected, rel=1e-9)
    for name, array in undisturbed.arrays.items():
        np.testing.assert_allclose(outcome.arrays[name], array, rtol=1e-9, atol=1e-12)


def test_window_that_does_not_fit_is_an_error(documents, tokenizer):
    model = make_model("llama")
    Memory(model, WINDOW - 1, after=2)
    with pytest.raises(LmsatError, match=rf"memory does not suffice for one window of {WINDOW} tokens: .*max_length"):
        measure(model, ["loss"], corpus=documents, tokenizer=tokenizer, batch_size=8)


def test_other_errors_of_the_model_are_not_taken_for_want_of_memory(documents, tokenizer):
    model = make_model("llama")
    Memory(model, 0, after=2, error=ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        measure(model, ["loss"], corpus=documents, tokenizer=tokenizer)


def test_positions_that_the_model_does_not_have_never_reach_it(documents, tokenizer):
    model = make_model("gpt2")
    memory = Memory(model, 10**9)
    with pytest.raises(LmsatError, match=f"max_length={WINDOW + 9} is beyond the {WINDOW} positions"):
        measure(model, ["loss"], corpus=documents, tokenizer=tokenizer, max_length=WINDOW + 9)
    assert max(memory.seen) <= 2 * WINDOW, "the check of the parts alone should have run"


def test_want_of_memory_beside_the_pass_names_the_probe(documents, tokenizer, monkeypatch):
    """Smaller batches of the pass would not help it."""

    def greedy(*_):
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    monkeypatch.setattr(HeadTrainer, "step", greedy)
    with pytest.raises(LmsatError, match="memory does not suffice for what the probe 'rank_head' computes"):
        measure(
            make_model("llama"), ["rank_head"], corpus=documents, tokenizer=tokenizer, ranks=[4], max_tokens=200,
            train_tokens=1024,
        )  # fmt: skip


def test_probes_share_the_decomposition_of_the_head(documents, tokenizer, monkeypatch):
    """One QR of the tokens' rows, a small one that adds the padding, one SVD, and one in the metric of the states."""
    calls = []

    def counted(name: str, function):
        return lambda *arguments: calls.append(name) or function(*arguments)

    for name in ("triangle", "decompose"):
        monkeypatch.setattr(lm_head, name, counted(name, getattr(lm_head, name)))
    monkeypatch.setattr(low_rank, "decompose", counted("decompose", low_rank.decompose))
    measure(
        make_model("llama"), ["rank_head", "gradient_bottleneck"], corpus=documents, tokenizer=tokenizer, max_tokens=500
    )
    assert sorted(calls) == ["decompose", "decompose", "triangle", "triangle"]


@pytest.mark.parametrize("name", ["gpt_neox", "mistral", "gemma2", "opt"])
def test_nothing_in_a_pass_needs_a_number_from_the_gpu(name, documents, tokenizer, monkeypatch):
    """What would wait for a GPU is an operation of its own on a CPU, too."""
    run_batch, seen = ForwardPass._run_batch, Waits()

    def run(self, *arguments) -> None:
        with seen:
            run_batch(self, *arguments)

    monkeypatch.setattr(ForwardPass, "_run_batch", run)
    probes = ["loss", "anisotropy", "rank_head", "gradient_bottleneck", "geometry", "activations", "ngram_gap"]
    settings = {"corpus": documents, "tokenizer": tokenizer, "max_tokens": 500, "batch_size": 4, "ranks": [4]}
    measure(make_model(name), probes, **settings)
    assert seen.batches >= 2
    assert not seen.operations
