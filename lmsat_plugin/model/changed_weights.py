"""Change weights for a moment: quantised, with noise, or moved; afterwards they are as they were, bit for bit.

Shapes: O outputs, I inputs of a matrix.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lmsat_plugin.lazy import torch, without_gradients
from lmsat_plugin.model.matrices import Matrix

GROUP = 128
"""Weights along the input that share a scale."""


@contextmanager
def restored(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Give copies of tensors, in the CPU's memory, and put these back at the end, bit for bit, also after an error."""
    copies = [tensor.detach().to("cpu", copy=True) for tensor in tensors]
    try:
        yield copies
    finally:
        for tensor, copy in zip(tensors, copies, strict=True):
            tensor.detach().copy_(copy)


@without_gradients
def quantised(weight_OI: torch.Tensor, bits: int) -> torch.Tensor:
    """Return weights rounded to the nearest of 2^bits − 1 levels, float32.

    The levels lie symmetrically about 0, at multiples of the greatest absolute weight of each group of 128 along the
    input over 2^(bits − 1) − 1; the last group of a row may be shorter.
    """
    most = 2 ** (bits - 1) - 1
    outputs, inputs = weight_OI.shape
    groups = torch.nn.functional.pad(weight_OI.float(), (0, -inputs % GROUP)).view(outputs, -1, GROUP)
    scales = groups.abs().amax(-1, keepdim=True) / most
    rounded = (groups / scales.clamp_min(torch.finfo(torch.float32).tiny)).round_().mul_(scales)
    return rounded.view(outputs, -1)[:, :inputs]


@without_gradients
def with_noise(matrix: Matrix, size: float, draw: int) -> torch.Tensor:
    """Return W + size · ‖W‖_F/√n · N(0, I), n the number of weights, float32 (Springer et al. 2025, 2503.19206).

    The normal numbers depend on the matrix' name and ``draw`` alone: they are the same for all checkpoints of a model
    and for all sizes.
    """
    weight_OI = matrix.weight_OI.float()
    generator = torch.Generator().manual_seed(zlib.crc32(f"{draw} {matrix.name}".encode()))
    normal_OI = torch.randn(weight_OI.shape, generator=generator).to(weight_OI.device)
    return weight_OI + normal_OI * (size * weight_OI.norm() / weight_OI.numel() ** 0.5)
