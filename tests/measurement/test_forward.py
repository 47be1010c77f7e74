"""The forward pass where memory is scarce: smaller batches, the same numbers, and errors that say what to do."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from memory_probes import LargestTensor, Memory
from tiny_models import ROWS, WINDOW, make_model

from lmsat_plugin import measure
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.model import cross_entropy


def test_logits_of_a_pass_never_exist_as_a_whole(monkeypatch, documents, tokenizer):
    """In the whole measurement, after the first window's check, no tensor is as large as a batch's logits."""
    monkeypatch.setattr(cross_entropy, "_CPU_TILE", (64, 64))
    model = make_model("llama")
    with LargestTensor() as recorded:
        measure(model, ["loss"], corpus=documents, tokenizer=tokenizer, max_tokens=1024, batch_size=1000)
    batch, checked = 1024 * ROWS, WINDOW * ROWS
    assert recorded.largest >= checked, "the check's own logits should be seen"
    assert recorded.largest < batch / 4


ALL = ["loss", "anisotropy"]


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
    assert outcome.metrics == pytest.approx(undisturbed.metrics, rel=1e-9)
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
