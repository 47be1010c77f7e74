"""Products of float32 in float32, whatever a launcher or a training has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute products and convolutions of float32 in float32, and not in TF32 or bfloat16.

    ``torch_compile=True`` of the Trainer and some launchers set products to less, and PyTorch's own default for
    convolutions on a GPU is TF32. What was set comes back afterwards.
    """
    before = _put_aside()
    try:
        yield
    finally:
        _put_back(*before)


def _put_aside() -> tuple[str | None, list[str], bool | None]:
    """Set all to float32; return what was set: of products, of parts by the newer interface, and of convolutions."""
    try:
        precision = torch.get_float32_matmul_precision()
        convolutions = torch.backends.cudnn.allow_tf32
    except RuntimeError:
        # From PyTorch 2.9 on a newer interface sets each part by itself, and whoever has used it cannot ask the older.
        parts = [part.fp32_precision for part in _parts()]
        for part in _parts():
            part.fp32_precision = "ieee"
        return None, parts, None
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    return precision, [], convolutions


def _put_back(precision: str | None, parts: list[str], convolutions: bool | None) -> None:
    if precision is None or convolutions is None:
        for part, value in zip(_parts(), parts, strict=True):
            part.fp32_precision = value
        return
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = convolutions


def _parts() -> tuple[Any, ...]:
    backends: Any = torch.backends
    return backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul
