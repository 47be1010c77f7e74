"""How large the tensors of a computation get, and models that run out of memory."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation makes."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.largest = max([self.largest, *sizes])
        return result


class Memory:
    """Makes a model run out of memory above so many tokens at a time, once it has made some calls."""

    def __init__(self, model, most: int, after: int = 0, error: type[Exception] = torch.OutOfMemoryError) -> None:
        self.most, self.after, self.error = most, after, error
        self.seen: list[int] = []
        self.refused = 0
        model.base_model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module, args, kwargs) -> None:
        size = (args[0] if args else kwargs["input_ids"]).numel()
        if len(self.seen) + self.refused >= self.after and size > self.most:
            self.refused += 1
            raise self.error("out of memory")
        self.seen.append(size)
