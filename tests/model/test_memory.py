"""Errors that say that memory ran out or that a GPU is lost, and the memory that is free."""

from __future__ import annotations

import psutil
import pytest
import torch

from lmsat_plugin.model import memory
from lmsat_plugin.model.memory import free_memory, is_broken_device, is_out_of_memory

WANT_OF_MEMORY = [
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "CUDA error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory",
]


@pytest.mark.parametrize("text", WANT_OF_MEMORY)
def test_want_of_memory_in_the_words_of_each_library(text):
    assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_memory(ValueError(text))
    assert not is_broken_device(RuntimeError(text))


@pytest.mark.parametrize("answers", [True, False])
def test_a_gpu_that_answers_is_not_lost(monkeypatch, answers):
    """cuBLAS says "CUDA error" of a call that it cannot do, too."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def ones(size, device):
        if not answers:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return torch.zeros(size) + 1

    monkeypatch.setattr(torch, "ones", ones)
    assert is_broken_device(RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling ...")) is not answers
    assert not is_broken_device(RuntimeError("the size of tensor a must match that of tensor b"))


def test_free_memory_is_that_of_the_group_of_processes(monkeypatch, tmp_path):
    cpu = torch.device("cpu")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert free_memory(cpu) == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    (tmp_path / "memory.current").write_text("2000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(cpu) > 5000
    (tmp_path / "memory.max").write_text("5000\n")
    assert free_memory(cpu) == 3000
    (tmp_path / "memory.max").write_text("1000\n")
    assert free_memory(cpu) == 0
