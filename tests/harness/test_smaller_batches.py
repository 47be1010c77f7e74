"""Batches that do not fit: halved where it happens, with the same answers, and without a word to other processes."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness import smaller_batches
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.harness.smaller_batches import with_smaller_batches
from lmsat_plugin.measurement.execution import Processes

TEXTS = ["The sky is", "A", "One two three four five", "It was"]


def generation() -> list[Instance]:
    options = {"max_gen_toks": 4, "until": ["\n\n"]}
    return [Instance(request_type="generate_until", doc={}, arguments=(text, options), idx=0) for text in TEXTS]


def refusing(model: torch.nn.Module, most: int) -> list[int]:
    """Have a model run out of memory above so many rows; return the list of the numbers of rows it has got."""
    rows: list[int] = []

    def see(module, args) -> None:
        rows.append(len(args[0]))
        if rows[-1] > most:
            raise torch.OutOfMemoryError("out of memory")

    model.get_input_embeddings().register_forward_pre_hook(see)
    return rows


@pytest.mark.parametrize("batch_size", [4, "auto"])
def test_generation_goes_on_with_smaller_batches(model_args, batch_size):
    expected = SaturationLM(**model_args, batch_size=4).generate_until(generation(), disable_tqdm=True)
    lm = SaturationLM(**model_args, batch_size=batch_size, max_batch_size=4)
    rows = refusing(lm.model, most=1)
    assert lm.generate_until(generation(), disable_tqdm=True) == expected
    assert sorted(set(rows)) == [1, 2, 4]
    assert (lm.batch_size_per_gpu, lm.max_batch_size) == ((1, 4) if batch_size == 4 else ("auto", 1))


def test_a_batch_of_one_that_does_not_fit_is_an_error(model_args):
    lm = SaturationLM(**model_args, batch_size=2)
    refusing(lm.model, most=0)
    with pytest.raises(LmsatError, match="memory does not suffice for a batch of one"):
        lm.generate_until(generation(), disable_tqdm=True)


def test_what_failed_is_gone_before_the_next_try(lm):
    class Large:
        """Stands for a tensor of the failed run."""

    held: list[weakref.ref] = []

    def call() -> int:
        gc.collect()
        assert all(ref() is None for ref in held)
        large = Large()
        held.append(weakref.ref(large))
        if lm.batch_size_per_gpu > 1:
            raise RuntimeError("CUDA out of memory")
        return lm.batch_size_per_gpu

    assert with_smaller_batches(lm, call) == 1
    assert len(held) == 2


def test_processes_keep_one_batch_size(lm, monkeypatch):
    """Of texts that they share all have to form the same batches, though one of them had less memory."""
    monkeypatch.setattr(smaller_batches.Processes, "current", lambda: Processes(1, 2))

    def call() -> int:
        if lm.batch_size_per_gpu > 1:
            raise RuntimeError("CUDA out of memory")
        return lm.batch_size_per_gpu

    assert (with_smaller_batches(lm, call), lm.batch_size_per_gpu) == (1, 2)


@pytest.mark.parametrize("known_elsewhere", [True, False])
def test_all_processes_try_batches_or_none(lm, monkeypatch, known_elsewhere):
    """Trying them ends in a collective, and requests of another process may be of another length."""
    monkeypatch.setattr(Processes, "current", lambda: Processes(0, 2))

    def gather(found: list, mine: bool) -> None:
        found[:] = [mine, known_elsewhere]

    tried = []
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    monkeypatch.setattr(HFLM, "_detect_batch_size", lambda *_: tried.append(1) or 8)
    lm.lmsat_cache, lm._device = {}, torch.device("cuda")
    request = [(None, [1], [2])]
    assert [lm._detect_batch_size(request, 0) for _ in range(2)] == [8, 8]
    assert len(tried) == (1 if known_elsewhere else 2)
