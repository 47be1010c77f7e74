"""Memory of the GPU: passes that do not fit, models of a series one after another, weights that change in place."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
from pathlib import Path

import pytest
import torch
import transformers
from memory_probes import Memory
from tiny_models import make_model

from lmsat_plugin import measure
from lmsat_plugin.harness.checkpoint_evaluator import CheckpointEvaluator
from lmsat_plugin.model.memory import free_memory

MIB = 1 << 20


@pytest.fixture
def limited(device):
    """Return a context in which this process may take only so many more bytes of the GPU than it holds."""

    @contextlib.contextmanager
    def limit(more: int):
        gc.collect()
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + more) / total)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
            torch.cuda.empty_cache()

    return limit


def long_context(layers: int = 4) -> transformers.PreTrainedModel:
    """Return a model whose states, for many windows at once, take far more memory than its weights."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=576, hidden_size=256, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=4096,
        max_position_embeddings=1024, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def test_a_pass_that_does_not_fit_begins_again_with_smaller_batches(
    device, on_gpu, limited, memory, documents, tokenizer, caplog
):
    model = long_context().to(device)
    texts = ["".join(documents) * (40 if on_gpu else 1)]
    settings = {"corpus": texts, "tokenizer": tokenizer, "max_tokens": 128 * 1024 if on_gpu else 4096}
    expected = measure(model, ["loss", "anisotropy"], batch_size=1, **settings).metrics
    before = memory()
    if not on_gpu:
        Memory(model, 2048, after=2)
    with caplog.at_level(logging.WARNING), limited(1 << 30) if on_gpu else contextlib.nullcontext():
        found = measure(model, ["loss", "anisotropy"], batch_size=128, **settings).metrics
    assert "Out of memory" in caplog.text
    assert found == pytest.approx(expected, rel=1e-5)
    assert memory() - before <= MIB, "the failed tries have left something"


@pytest.mark.parametrize("error", ["CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"])
def test_memory_is_back_before_the_next_try(device, memory, documents, tokenizer, error):
    """The error comes in the midst of a pass, which holds tensors."""
    model = make_model("llama").to(device)
    before, held = memory(), []

    def refuse(module, args, kwargs) -> None:
        if len(held) == 4:
            held.append(0)
            large = torch.ones(4 * MIB, device=device)
            raise RuntimeError(error if large.any() else "")
        held.append(memory() - before)

    model.base_model.layers[-1].register_forward_pre_hook(refuse, with_kwargs=True)
    measure(model, ["loss"], corpus=documents, tokenizer=tokenizer, batch_size=8)
    assert max(held) <= MIB * 4, "what the failed try held is still there"
    assert memory() - before <= MIB


@pytest.fixture
def series(saved):
    """Return folders of three checkpoints of one model, and of one of another architecture."""
    folders = [saved(make_model("gpt_neox", seed), f"step{seed}", torch.bfloat16) for seed in range(3)]
    return [*folders, saved(make_model("llama"), "other", torch.bfloat16)]


def load(evaluator: CheckpointEvaluator, folder: str) -> torch.nn.Module:
    evaluator.load(Path(folder), name="run", revision=folder)
    return evaluator.lm.model


def test_weights_go_into_the_tensors_that_are_there(series, device, memory):
    evaluator = CheckpointEvaluator({"dtype": "bfloat16"}, {"device": device.type, "batch_size": 1})
    places, used = [], []
    for folder in (*series[:3], *series[:3], *series[:3]):
        model = load(evaluator, folder)
        places.append([parameter.data_ptr() for parameter in model.parameters()])
        used.append(memory())
        fresh = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to(device)
        for name, weight in fresh.state_dict().items():
            assert torch.equal(model.state_dict()[name], weight), name
        del fresh
    assert all(place == places[0] for place in places)
    assert max(used) - used[0] <= MIB


def test_one_model_at_a_time(series, device, on_gpu, memory):
    """Also where another architecture follows, or arguments have each checkpoint loaded anew."""
    for arguments in ({}, {"parallelize": True}):
        evaluator = CheckpointEvaluator({"dtype": "bfloat16", **arguments}, {"device": device.type, "batch_size": 1})
        used = []
        before = memory()
        for folder in series:
            load(evaluator, folder)
            used.append(memory() - before)
        if on_gpu:
            assert max(used) <= 1.1 * max(used[0], used[-1]) + MIB
        evaluator.lm = None


def test_weights_too_large_for_the_gpu_twice_come_by_the_cpu(series, device, on_gpu, monkeypatch):
    evaluator = CheckpointEvaluator({"dtype": "bfloat16"}, {"device": device.type, "batch_size": 1})
    load(evaluator, series[0])
    first, asked = evaluator.lm, []
    real = first.AUTO_MODEL_CLASS.from_pretrained

    def from_pretrained(*arguments, **keywords):
        asked.append("device_map" in keywords)
        return real(*arguments, **keywords)

    monkeypatch.setattr(first.AUTO_MODEL_CLASS, "from_pretrained", from_pretrained)
    for free in (1 << 40, 0):
        monkeypatch.setattr("lmsat_plugin.harness.model.free_memory", lambda device, free=free: free)
        load(evaluator, series[1])
        assert evaluator.lm is first
    assert asked == [on_gpu, False]


def test_free_memory_is_what_a_tensor_may_take(device, on_gpu):
    free = free_memory(device)
    assert free > 0
    if on_gpu:
        held = torch.empty(64 * MIB, dtype=torch.uint8, device=device)
        assert math.isclose(free - free_memory(device), held.nbytes, rel_tol=0.5)
