"""Operations that make a program wait for a GPU, seen on any device."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Each needs a number on the CPU, or has a result whose shape depends on the numbers.
_WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero", "aten::equal"}


class Waits(TorchDispatchMode):
    """Records the operations that would wait for a GPU, and how often it was entered."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []
        self.batches = 0

    def __enter__(self):
        self.batches += 1
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name
        masks = (isinstance(each, torch.Tensor) and each.dtype == torch.bool for each in _indices(name, args))
        if name in _WAITING or any(masks):
            self.operations.append(name)
        return function(*args, **(kwargs or {}))


def _indices(name: str, args: tuple) -> list:
    return list(args[1]) if name in ("aten::index", "aten::index_put_", "aten::index_put") else []
