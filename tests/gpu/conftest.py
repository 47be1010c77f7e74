"""The device that the tests run on: CUDA or, to try the tests themselves, what ``LMSAT_TEST_DEVICE`` names."""

from __future__ import annotations

import gc
import os

import pytest
import torch

NAMED = os.environ.get("LMSAT_TEST_DEVICE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of this folder where there is no GPU."""
    if NAMED is None and not torch.cuda.is_available():
        for item in items:
            if "/tests/gpu/" in item.path.as_posix():
                item.add_marker(pytest.mark.skip(reason="needs a GPU: LMSAT_TEST_DEVICE=cpu tries the tests alone"))


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device(NAMED or "cuda")


@pytest.fixture
def on_gpu(device) -> bool:
    """Return whether what only a GPU shows can be asked for."""
    return device.type == "cuda"


@pytest.fixture
def memory(device):
    """Return a function from nothing to the bytes of the GPU's memory that tensors hold; 0 on a CPU."""

    def allocated() -> int:
        gc.collect()
        if device.type != "cuda":
            return 0
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    return allocated


@pytest.fixture
def saved(tokenizer, tmp_path):
    """Return a function that saves a model with its tokenizer in a type, and returns the folder."""

    def save(model, name: str, dtype: torch.dtype = torch.float32) -> str:
        model.to(dtype).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    return save
