"""transformers' search for packed sequences, put aside where each row of a batch is one window."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


_NAME = "find_packed_sequence_indices"


@contextmanager
def without_packing() -> Iterator[None]:
    """Have no model look for several sequences in a row, while it makes its masks: the answer is on the GPU.

    Each batch would wait for the one before it to end before any of its own work was sent to the GPU.
    """
    from transformers import masking_utils

    search: Any = getattr(masking_utils, _NAME, None)
    if search is None:
        yield
        return
    setattr(masking_utils, _NAME, _none)
    try:
        yield
    finally:
        setattr(masking_utils, _NAME, search)


def _none(position_ids: torch.Tensor) -> None:
    return None
