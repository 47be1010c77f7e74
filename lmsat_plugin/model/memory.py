"""Whether an error says that memory ran out or that a GPU is lost, and how much memory is free."""

from __future__ import annotations

import gc
import re
from contextlib import suppress
from pathlib import Path

import psutil

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.lazy import torch

_CGROUP = Path("/sys/fs/cgroup")
_LIMITS_AND_USES = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
_SENTENCES = ("out of memory", "not enough memory", "can't allocate memory")
# The libraries of CUDA want memory of their own, and have no sentence for it.
_STATUSES = tuple(f"{library}_STATUS_ALLOC_FAILED" for library in ("CUBLAS", "CUSOLVER", "CUDNN", "CUSPARSE", "CUFFT"))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on a GPU or a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in (*_SENTENCES, *_STATUSES))


def no_memory_for(what: str) -> LmsatError:
    """Return the error of a model that does not fit with the least that can be asked of it."""
    return LmsatError(
        f"memory does not suffice for {what}: set max_length lower, load with dtype=bfloat16, or use a larger device"
    )


def give_back_memory(device: torch.device) -> None:
    """Give back what nothing refers to any more. Not within an except clause: its traceback holds tensors."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_broken_device(error: BaseException) -> bool:
    """Return whether an error has cost this process its GPU: one such as an assertion on the device ends its context.

    Most errors of CUDA's libraries are of a single call, after which the GPU answers as before.
    """
    if is_out_of_memory(error) or not re.search("CUDA error|device-side assert", str(error)):
        return False
    if not torch.cuda.is_available():
        return True
    try:
        return torch.ones(1, device="cuda").item() != 1
    except RuntimeError as other:
        return not is_out_of_memory(other)


def free_memory(device: torch.device) -> int:
    """Return the bytes of memory that this process may still take on a device.

    On a CPU those are of the machine and, on Linux, of the group of processes that this one belongs to.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = psutil.virtual_memory().available
    for limit, use in _LIMITS_AND_USES:
        # Without a limit the file says "max".
        with suppress(OSError, ValueError):
            free = min(free, int((_CGROUP / limit).read_text()) - int((_CGROUP / use).read_text()))
    return max(0, free)
