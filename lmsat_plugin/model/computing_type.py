"""The type that weights are stored in, and float32 in its place on processors without units for half types."""

from __future__ import annotations

import functools
import logging
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lmsat_plugin.model.memory import free_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

_HALVES = (torch.float16, torch.bfloat16)
_UNITS = {torch.bfloat16: {"avx512_bf16", "amx_bf16", "avx10_2"}, torch.float16: {"avx512_fp16", "amx_fp16", "avx10_2"}}
"""The names of x86 processors' units with which PyTorch multiplies a half type at least as fast as float32."""
_MARK = "_lmsat_stored_dtype"
_TRIED = 256


def computing_type(stored: torch.dtype, device: torch.device, n_bytes: int, *, free: int) -> torch.dtype:
    """Return the type to compute in with weights that are stored in a type and take ``n_bytes`` in it.

    It is float32 on a CPU without units for a half type, where a product of halves takes up to five times as long
    (benchmarks/half_types.py), if ``free`` bytes of memory hold the weights in float32 and the next checkpoint's as
    they are stored; otherwise it is the stored type.
    """
    if device.type != "cpu" or stored not in _HALVES or has_units(stored):
        return stored
    if free < 3 * n_bytes:
        logger.warning(
            "Memory does not suffice to compute in float32 with weights of %s, as this processor, without units "
            "for them, does better",
            name_of(stored),
        )
        return stored
    return torch.float32


def widen(model: PreTrainedModel, device: torch.device) -> None:
    """Have a model that was loaded in the type of its files compute in the type that `computing_type` returns.

    A model of which a part is quantised, or not in this process' memory, stays as it is.
    """
    weights = [*model.parameters(), *model.buffers()]
    quantised = getattr(model, "is_quantized", False) or getattr(model.config, "quantization_config", None)
    if quantised or device.type != "cpu" or any(weight.device.type != "cpu" for weight in weights):
        return
    n_bytes = sum(weight.nbytes for weight in weights if weight.dtype in _HALVES)
    # The halves themselves, which are in memory already, are given back one by one.
    if computing_type(model.dtype, device, n_bytes, free=free_memory(device) + n_bytes) != model.dtype:
        model.float()


def is_widened(model: torch.nn.Module) -> bool:
    """Return whether a model computes in float32 with weights that are stored in a half type."""
    return getattr(model, "dtype", None) == torch.float32 and stored_type(model) in {name_of(half) for half in _HALVES}


def widened(dtype: torch.dtype) -> torch.dtype:
    """Return float32 for a half type, and any other type as it is."""
    return torch.float32 if dtype in _HALVES else dtype


def note_stored_type(model: torch.nn.Module, dtype: Any) -> None:
    """Note which type the files of a model have."""
    setattr(model, _MARK, dtype)


def stored_type(model: torch.nn.Module) -> str | None:
    """Return the name of the type that a model's files have; None if it is unknown, as of a model made in memory."""
    dtype = getattr(model, _MARK, None)
    return None if dtype is None else name_of(dtype)


def name_of(dtype: Any) -> str:
    """Return a type's name without PyTorch's own."""
    return str(dtype).removeprefix("torch.")


@functools.cache
def has_units(dtype: torch.dtype) -> bool:
    """Return whether this processor multiplies a half type at least as fast as float32, which is asked once.

    An x86 processor names its units. Any other is tried: on one product, which takes some milliseconds.
    """
    names = _names_of_units()
    if "avx2" in names or "sse2" in names:
        return bool(_UNITS[dtype] & names)
    return _seconds_of_product(dtype) < _seconds_of_product(torch.float32)


def _names_of_units() -> set[str]:
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        return {name for name, value in capabilities().items() if value is True}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("flags"):
                return set(line.split())
    return set()


def _seconds_of_product(dtype: torch.dtype) -> float:
    inputs, weight = (torch.ones(_TRIED, _TRIED, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        torch.nn.functional.linear(inputs, weight)
        best = min(best, time.perf_counter() - start)
    return best
