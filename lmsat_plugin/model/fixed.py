"""Whether a model in memory is still the one that was loaded: a digest of its tensors, modes and hooks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress

from torch import nn

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.lazy import torch

_COLUMNS = 1021
"""A prime, so that rows that change places change the sums."""
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_LOADERS = {"torch", "transformers", "accelerate", "peft", "lmsat_plugin"}
"""Packages that put hooks of their own into a model while it works."""
_GROWING_ROPE = ("dynamic", "longrope")
"""Kinds of rotary embeddings that fit their frequencies to the text."""


class AlteredError(LmsatError):
    """The model, the tokens or the tokenizer in memory are not those that were loaded: load them again."""


def model_digest(model: nn.Module) -> str:
    """Return a digest that is another one after a weight, a type, a mode or a hook of the model was changed.

    It reads each tensor once and adds its bits up in columns, which takes less time than a forward pass over a few
    tokens. It is no protection from somebody who wants to deceive.
    """
    digest = hashlib.sha256()
    for name, tensor in _tensors(model):
        local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        digest.update(f"{name} {local.dtype} {tuple(local.shape)} {local.device.type}\n".encode())
        if not local.is_meta:
            # Of quantised tensors of some libraries the bits cannot be had.
            with suppress(RuntimeError, NotImplementedError, TypeError, AttributeError):
                digest.update(_sums(local.detach()).cpu().numpy().tobytes())
    for name, module in model.named_modules():
        hooks = [id(hook) for hook in _hooks(module)]
        own = id(module.__dict__["forward"].__code__) if _is_patched(module) else None
        digest.update(f"{name} {module.training} {hooks} {own}\n".encode())
    return digest.hexdigest()


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    has_own_code = bool(getattr(getattr(model, "config", None), "auto_map", None))
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            # What is not stored may be a cache that grows with the text, except the frequencies of rotary embeddings.
            kinds = str(getattr(module, "rope_type", ""))
            grows = has_own_code or not name.endswith("inv_freq") or any(kind in kinds for kind in _GROWING_ROPE)
            if not grows or name not in module._non_persistent_buffers_set:
                yield f"{prefix}.{name}", buffer


def _sums(tensor: torch.Tensor) -> torch.Tensor:
    """Return sums over the bits of a tensor in columns, int64, and what is left of the last row."""
    flat = tensor.contiguous().flatten()
    if flat.is_complex():
        flat = torch.view_as_real(flat).flatten()
    size = flat.element_size()
    is_even = not (flat.numel() * size) % 8 and not (flat.storage_offset() * size) % 8
    words = flat.view(torch.int64 if is_even else _WORDS[size])
    rows = len(words) // _COLUMNS
    whole = words[: rows * _COLUMNS].view(rows, _COLUMNS).sum(0, dtype=torch.int64)
    return torch.cat([whole, words[rows * _COLUMNS :].to(torch.int64)])


def _hooks(module: nn.Module) -> Iterator[object]:
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        yield from (hook for hook in hooks.values() if _root(hook) not in _LOADERS)


def _is_patched(module: nn.Module) -> bool:
    forward = module.__dict__.get("forward")
    return hasattr(forward, "__code__") and _root(forward) not in _LOADERS


def _root(function: object) -> str:
    # A `functools.partial` is what it calls.
    return str(getattr(getattr(function, "func", function), "__module__", "")).partition(".")[0]
